import type { Disk } from "../disk/disk.ts"
import { utf8 } from "../lib/bytes.ts"
import { crc32 } from "../lib/checksum.ts"

/** Small JSON files at the top of a data directory: each is one object, with a checksum of itself as its last member. */

/** The CRC-32, in hexadecimal, of the JSON of `fields`. */
export function checksumOf(fields: object): string {
  return crc32(utf8(JSON.stringify(fields)))
    .toString(16)
    .padStart(8, "0")
}

/** Replaces the file, whole or not at all; durable when this returns. Throws `DiskError`. */
export function writeChecked(disk: Disk, path: string, fields: object): void {
  const temporary = `${path}.new`
  if (disk.exists(temporary)) disk.remove(temporary)
  const file = disk.create(temporary)
  file.write(utf8(`${JSON.stringify({ ...fields, checksum: checksumOf(fields) })}\n`), 0)
  file.sync()
  file.close()
  disk.rename(temporary, path)
  disk.syncDirectory("")
}
