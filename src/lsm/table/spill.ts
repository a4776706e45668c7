/**
 * A spill file: sorted pairs that wait to be ingested, `u32 key length ‖ u32 value length ‖ key ‖
 * value`, nothing else. The caller writes and removes it; it belongs to one process, so it need not
 * be synced.
 */
import type { Disk, DiskFile } from "../../disk/disk.ts"
import { StorageCorruption } from "../../disk/disk.ts"
import { assert } from "../../lib/assert.ts"
import { emptyBytes } from "../../lib/bytes.ts"
import { crc32 } from "../../lib/checksum.ts"
import type { Cursor } from "../read/cursor.ts"
import { kinds, maxKeyBytes, maxValueBytes } from "./format.ts"
import { readU32 } from "./varint.ts"

const chunkBytes = 1024 * 1024

/** Reads a spill front to back; a deep check of order is the table writer's. */
export class SpillCursor implements Cursor {
  reverse = false
  valid = false
  keyBytes: Uint8Array = emptyBytes
  keyOffset = 0
  keyLength = 0
  readonly sequence: number
  readonly kind = kinds.put
  valueBytes: Uint8Array = emptyBytes
  valueOffset = 0
  valueLength = 0
  /** Checksum of the bytes read so far. */
  checksum = 0
  private readonly file: DiskFile
  private readonly sizeBytes: number
  private buffer: Uint8Array = emptyBytes
  /** File offset of `buffer`, and where in it the next pair begins. */
  private bufferOffset = 0
  private at = 0

  constructor(disk: Disk, path: string, sequence: number) {
    this.file = disk.open(path)
    this.sizeBytes = this.file.sizeBytes
    this.sequence = sequence
  }

  seek(key: Uint8Array | undefined): void {
    assert(key === undefined && this.bufferOffset === 0 && this.at === 0, "a spill is read once")
    this.advance()
  }

  advance(): void {
    this.valid = false
    if (this.bufferOffset + this.at === this.sizeBytes) return
    this.need(8)
    const keyLength = readU32(this.buffer, this.at)
    const valueLength = readU32(this.buffer, this.at + 4)
    if (keyLength === 0 || keyLength > maxKeyBytes || valueLength > maxValueBytes) {
      this.corrupt("lengths within the limits", `${keyLength} and ${valueLength}`)
    }
    this.need(8 + keyLength + valueLength)
    this.keyBytes = this.buffer
    this.keyOffset = this.at + 8
    this.keyLength = keyLength
    this.valueBytes = this.buffer
    this.valueOffset = this.keyOffset + keyLength
    this.valueLength = valueLength
    this.at = this.valueOffset + valueLength
    this.valid = true
  }

  close(): void {
    this.file.close()
  }

  private corrupt(expected: string, actual: string): never {
    const offset = this.bufferOffset + this.at
    throw new StorageCorruption({ path: this.file.path, offset, expected, actual })
  }

  /** Makes `count` bytes from `at` on present in the buffer. */
  private need(count: number): void {
    if (this.at + count <= this.buffer.length) return
    const start = this.bufferOffset + this.at
    if (start + count > this.sizeBytes) this.corrupt(`${count} bytes`, "the end of the file")
    const keep = this.buffer.length - this.at
    const size = Math.min(this.sizeBytes - start, Math.max(count, chunkBytes))
    const next = new Uint8Array(size)
    next.set(this.buffer.subarray(this.at))
    const rest = next.subarray(keep)
    const read = this.file.read(rest, start + keep)
    if (read !== rest.length) this.corrupt(`${rest.length} bytes`, `${read}`)
    this.checksum = crc32(rest, this.checksum)
    this.buffer = next
    this.bufferOffset = start
    this.at = 0
  }
}
