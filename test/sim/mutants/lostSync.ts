import type { DiskFile } from "../../../src/disk/disk.ts"
import { SimulatedDisk } from "../simulatedDisk.ts"
import type { Mutant } from "./mutant.ts"

/** Journal files opened for a write are not synced after it. */
class Broken extends SimulatedDisk {
  override open(path: string): DiskFile {
    const file = super.open(path)
    if (path.startsWith("journal/")) file.sync = () => {}
    return file
  }
}

export const lostSync: Mutant = {
  name: "E",
  title: "the journal's fsync is lost",
  Disk: Broken,
}
