import type { Disk } from "../../disk/disk.ts"
import { currentPath, nextCurrentPath } from "../table/format.ts"
import type { ManifestWrite } from "./manifest.ts"

/**
 * Writes and syncs an edit; a new manifest is put in force by replacing CURRENT. A write of no bytes
 * (a job that changes nothing) is none.
 *
 * May be repeated after it threw, on a disk that was full: it writes the same bytes to the same
 * places, over whatever part of them is there. It must be repeated until it succeeds: a part of an
 * edit, with another one written over it, would not be told from damage.
 */
export function runManifestWrite(disk: Disk, write: ManifestWrite): void {
  const { directory, path, current } = write
  if (write.bytes.length === 0) return
  if (current === undefined) {
    writeAt(disk, path, write.bytes, write.offset)
    return
  }
  writeAt(disk, path, write.bytes, 0)
  // The manifest's name must be durable before CURRENT can point to it.
  disk.syncDirectory(directory)
  const next = nextCurrentPath(directory)
  writeAt(disk, next, current, 0)
  disk.rename(next, currentPath(directory))
  disk.syncDirectory(directory)
}

/** Writes and syncs; the file is made if there is none. */
function writeAt(disk: Disk, path: string, bytes: Uint8Array, offset: number): void {
  const file = disk.exists(path) ? disk.open(path) : disk.create(path)
  try {
    file.write(bytes, offset)
    file.sync()
  } finally {
    file.close()
  }
}
