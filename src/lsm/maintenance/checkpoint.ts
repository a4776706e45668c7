import type { Disk } from "../../disk/disk.ts"
import { DiskError } from "../../disk/disk.ts"
import { newManifest } from "../manifest/manifest.ts"
import { runManifestWrite } from "../manifest/manifestWrite.ts"
import { manifestPath, nextCurrentPath, parseName, tablePath } from "../table/format.ts"
import type { CheckpointJob } from "./jobs.ts"

/**
 * Makes `target`, a folder on the same file system that is absent or empty, an engine of its own:
 * its tables are hard links, so it costs no space until one of the two engines drops a table. CURRENT
 * comes last; without it the folder is nothing. Throws `DiskError` "exists" when something is there,
 * and takes back what it made when anything fails.
 */
export function writeCheckpoint(disk: Disk, job: CheckpointJob): void {
  const { directory, target, state } = job
  if (disk.list(target).length > 0) throw new DiskError({ reason: "exists", path: target })
  disk.makeDirectory(target)
  try {
    const slash = target.lastIndexOf("/")
    disk.syncDirectory(slash < 0 ? "" : target.slice(0, slash))
    for (const fileNumber of new Set(state.fragments.map((fragment) => fragment.fileNumber))) {
      disk.link(tablePath(directory, fileNumber), tablePath(target, fileNumber))
    }
    const fileNumber = state.nextFileNumber
    const { write } = newManifest({
      id: job.id,
      directory: target,
      fileNumber,
      state: { ...state, nextFileNumber: fileNumber + 1 },
    })
    // Syncs the folder, and so the links, before CURRENT names the manifest.
    runManifestWrite(disk, write)
  } catch (error) {
    takeBack(disk, target, state.nextFileNumber)
    throw error
  }
}

function takeBack(disk: Disk, target: string, manifestNumber: number): void {
  try {
    // CURRENT is there only if all was well but its sync: it stays.
    const names = disk.list(target)
    if (names.includes("CURRENT")) return
    for (const name of names) {
      if (parseName(name)?.kind === "table") disk.remove(`${target}/${name}`)
    }
    for (const path of [manifestPath(target, manifestNumber), nextCurrentPath(target)]) {
      if (disk.exists(path)) disk.remove(path)
    }
  } catch {
    // The first error is the one that tells what is wrong.
  }
}
