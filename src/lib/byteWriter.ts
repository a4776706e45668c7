import { storeU32, storeU64 } from "./littleEndian.ts"
import { writeVarint } from "./varint.ts"

/**
 * Appends little-endian numbers and bytes to one buffer that grows by doubling. `bytes()` is a view that the next
 * write may overwrite or leave behind: copy it, or `take()` it.
 */
export class ByteWriter {
  private buffer: Uint8Array
  private used = 0

  constructor(capacity = 256) {
    this.buffer = new Uint8Array(capacity)
  }

  get length(): number {
    return this.used
  }

  reset(): void {
    this.used = 0
  }

  /** Cuts back to an earlier `length`. */
  truncate(length: number): void {
    this.used = length
  }

  /** Makes room for `count` bytes without writing them. */
  reserve(count: number): void {
    const needed = this.used + count
    if (needed <= this.buffer.length) return
    const larger = new Uint8Array(Math.max(needed, this.buffer.length * 2))
    larger.set(this.buffer.subarray(0, this.used))
    this.buffer = larger
  }

  u8(value: number): void {
    this.reserve(1)
    this.buffer[this.used++] = value
  }

  u16(value: number): void {
    this.reserve(2)
    this.buffer[this.used++] = value
    this.buffer[this.used++] = value >>> 8
  }

  u32(value: number): void {
    this.reserve(4)
    storeU32(this.buffer, this.used, value)
    this.used += 4
  }

  /** A safe integer from 0, in eight bytes. */
  u64(value: number): void {
    this.reserve(8)
    storeU64(this.buffer, this.used, value)
    this.used += 8
  }

  /** A safe integer from 0, in one to eight bytes. */
  varint(value: number): void {
    this.reserve(8)
    this.used = writeVarint(this.buffer, this.used, value)
  }

  raw(bytes: Uint8Array): void {
    this.reserve(bytes.length)
    this.buffer.set(bytes, this.used)
    this.used += bytes.length
  }

  /** A part of longer bytes. */
  stretch(bytes: Uint8Array, offset: number, length: number): void {
    this.reserve(length)
    this.buffer.set(bytes.subarray(offset, offset + length), this.used)
    this.used += length
  }

  /** `u32 length ‖ bytes`. */
  bytes32(bytes: Uint8Array): void {
    this.u32(bytes.length)
    this.raw(bytes)
  }

  /** Overwrites four bytes already written, for a length or checksum known later. */
  patchU32(offset: number, value: number): void {
    storeU32(this.buffer, offset, value)
  }

  /** A view of what was written. */
  bytes(): Uint8Array {
    return this.buffer.subarray(0, this.used)
  }

  /** What was written, as an own copy; the writer starts again. */
  take(): Uint8Array {
    const result = this.buffer.slice(0, this.used)
    this.used = 0
    return result
  }
}
