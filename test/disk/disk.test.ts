import { afterAll, expect, test } from "bun:test"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { StorageCorruption } from "../../src/disk/disk.ts"
import { FileDisk } from "../../src/disk/FileDisk.ts"
import { SimulatedDisk } from "../sim/simulatedDisk.ts"
import { diskContract } from "./contract.ts"

const made: Array<string> = []
afterAll(() => {
  for (const directory of made) rmSync(directory, { recursive: true, force: true })
})

diskContract("FileDisk", () => {
  const directory = mkdtempSync(join(tmpdir(), "kvorum-disk-"))
  made.push(directory)
  return new FileDisk(directory)
})
diskContract("SimulatedDisk", () => new SimulatedDisk())

test.skipIf(process.platform !== "linux")(
  "bytes that the disk cannot read are damaged bytes",
  () => {
    // Nothing is mapped at address 0: Linux answers a read of it as a disk answers one of a bad sector.
    const file = new FileDisk("/proc/self").open("mem")
    expect(() => file.read(new Uint8Array(8), 0)).toThrow(StorageCorruption)
    file.close()
  },
)
