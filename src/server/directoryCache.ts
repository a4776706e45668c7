import type { Disk } from "../disk/disk.ts"
import { text } from "../lib/bytes.ts"
import { checksumOf, writeChecked } from "./checkedFile.ts"
import { type Directory, directoryAsJson, directoryFromJson } from "./directory.ts"

/** File DIRECTORY: what a node knew last, so that it finds its peers again while the meta group is out of reach. */
const directoryFile = "DIRECTORY"
const directoryFormat = 1
const sizeBytesMax = 64 * 1024 * 1024

/**
 * The directory as it was kept last. A file that is damaged, or of a newer format, counts as none: it is a copy, and the meta group has
 * the original. Throws `DiskError`.
 */
export function readDirectory(disk: Disk): Directory | undefined {
  if (!disk.exists(directoryFile)) return undefined
  const file = disk.open(directoryFile)
  const bytes = new Uint8Array(Math.min(file.sizeBytes, sizeBytesMax))
  file.read(bytes, 0)
  file.close()
  try {
    const { checksum, ...fields } = JSON.parse(text(bytes))
    if (checksum !== checksumOf(fields) || fields.format !== directoryFormat) return undefined
    return directoryFromJson(fields.directory)
  } catch {
    return undefined
  }
}

/** Throws `DiskError`. */
export function keepDirectory(disk: Disk, directory: Directory): void {
  const fields = { format: directoryFormat, directory: directoryAsJson(directory) }
  writeChecked(disk, directoryFile, fields)
}
