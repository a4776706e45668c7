/**
 * A batch of writes in one buffer: what the engine applies in one step, and what a log stores.
 * Stored: do not change.
 *
 *     batch      operations u32, operation*
 *     operation  kind u8 (0 delete, 1 put, 2 delete of a range), length of the key u16, length of
 *                the value u32, key, value
 *
 * A delete has no value; that of a range is its upper bound, which lies behind the key. Numbers are
 * little-endian. There is no checksum: a log has its own.
 */
import { assert } from "../lib/assert.ts"
import { MalformedBytes } from "../lib/byteReader.ts"
import { compareRanges } from "./read/cursor.ts"
import { maxKeyBytes, maxValueBytes } from "./table/format.ts"
import { readU32, writeU32 } from "./table/varint.ts"

export const batchKinds = { delete: 0, put: 1, deleteRange: 2 } as const

const headerBytes = 4
const operationBytes = 7

/** Who is told what a batch holds, in its order. Views of the batch: copy what you keep. */
export interface BatchVisitor {
  put(key: Uint8Array, value: Uint8Array): void
  delete(key: Uint8Array): void
  deleteRange(lower: Uint8Array, upper: Uint8Array): void
}

export class WriteBatch {
  private buffer: Uint8Array
  private used = headerBytes
  private operations = 0

  constructor(capacityBytes = 256) {
    this.buffer = new Uint8Array(Math.max(headerBytes, capacityBytes))
  }

  /** A batch with the operations of `bytes`, which are copied. Throws `MalformedBytes`. */
  static decode(bytes: Uint8Array): WriteBatch {
    checkBatch(bytes)
    const batch = new WriteBatch(bytes.length)
    batch.buffer.set(bytes)
    batch.used = bytes.length
    batch.operations = readU32(bytes, 0)
    return batch
  }

  /** Tells `visitor` all of `bytes`, or nothing: `MalformedBytes` is thrown before the first call. */
  static visit(bytes: Uint8Array, visitor: BatchVisitor): void {
    checkBatch(bytes)
    const cursor = new BatchCursor(bytes)
    while (cursor.next()) {
      const { kind, keyOffset, valueOffset } = cursor
      const key = bytes.subarray(keyOffset, valueOffset)
      if (kind === batchKinds.delete) {
        visitor.delete(key)
        continue
      }
      const value = bytes.subarray(valueOffset, valueOffset + cursor.valueLength)
      if (kind === batchKinds.put) visitor.put(key, value)
      else visitor.deleteRange(key, value)
    }
  }

  get count(): number {
    return this.operations
  }

  /** Of `bytes()`. */
  get sizeBytes(): number {
    return this.used
  }

  put(key: Uint8Array, value: Uint8Array): void {
    this.begin(batchKinds.put, key, value.length)
    this.append(value)
  }

  /** Puts the value `head ‖ tail`. */
  putParts(key: Uint8Array, head: Uint8Array, tail: Uint8Array): void {
    this.begin(batchKinds.put, key, head.length + tail.length)
    this.append(head)
    this.append(tail)
  }

  delete(key: Uint8Array): void {
    this.begin(batchKinds.delete, key, 0)
  }

  /** Deletes all keys of [lower, upper). An empty interval is nothing to do, and not noted. */
  deleteRange(lower: Uint8Array, upper: Uint8Array): void {
    if (compareRanges(lower, 0, lower.length, upper, 0, upper.length) >= 0) return
    assert(upper.length <= maxKeyBytes, () => `a bound of ${upper.length} bytes`)
    this.begin(batchKinds.deleteRange, lower, upper.length)
    this.append(upper)
  }

  /** The batch as it is stored: a view, good until the batch is changed. */
  bytes(): Uint8Array {
    writeU32(this.buffer, 0, this.operations)
    return this.buffer.subarray(0, this.used)
  }

  /** Empty again; keeps its buffer. */
  clear(): void {
    this.used = headerBytes
    this.operations = 0
  }

  private begin(kind: number, key: Uint8Array, valueLength: number): void {
    const isRange = kind === batchKinds.deleteRange
    assert(key.length > 0 || isRange, "a key of 0 bytes")
    assert(key.length <= maxKeyBytes, () => `a key of ${key.length} bytes`)
    assert(valueLength <= maxValueBytes, () => `a value of ${valueLength} bytes`)
    const needed = this.used + operationBytes + key.length + valueLength
    if (needed > this.buffer.length) {
      const larger = new Uint8Array(Math.max(needed, this.buffer.length * 2))
      larger.set(this.buffer.subarray(0, this.used))
      this.buffer = larger
    }
    const { buffer } = this
    const at = this.used
    buffer[at] = kind
    buffer[at + 1] = key.length
    buffer[at + 2] = key.length >>> 8
    writeU32(buffer, at + 3, valueLength)
    this.used = at + operationBytes
    this.append(key)
    this.operations++
  }

  /** There is room: `begin` made it. */
  private append(bytes: Uint8Array): void {
    this.buffer.set(bytes, this.used)
    this.used += bytes.length
  }
}

/** Goes through the operations of a batch that was checked, without a view of any. */
export class BatchCursor {
  kind = 0
  keyOffset = 0
  keyLength = 0
  valueOffset = 0
  valueLength = 0
  private readonly bytes: Uint8Array
  private at = headerBytes

  constructor(bytes: Uint8Array) {
    this.bytes = bytes
  }

  next(): boolean {
    const { bytes, at } = this
    if (at >= bytes.length) return false
    this.kind = bytes[at]
    this.keyLength = bytes[at + 1] | (bytes[at + 2] << 8)
    this.valueLength = readU32(bytes, at + 3)
    this.keyOffset = at + operationBytes
    this.valueOffset = this.keyOffset + this.keyLength
    this.at = this.valueOffset + this.valueLength
    return true
  }
}

function checkBatch(bytes: Uint8Array): void {
  if (bytes.length < headerBytes) throw new MalformedBytes(`a batch of ${bytes.length} bytes`)
  let left = readU32(bytes, 0)
  let at = headerBytes
  for (; left > 0; left--) {
    if (at + operationBytes > bytes.length) throw new MalformedBytes(`an operation at ${at}`)
    const kind = bytes[at]
    const keyLength = bytes[at + 1] | (bytes[at + 2] << 8)
    const valueLength = readU32(bytes, at + 3)
    const isRange = kind === batchKinds.deleteRange
    const keyOffset = at + operationBytes
    const valueOffset = keyOffset + keyLength
    const valueLimit = kind === batchKinds.put ? maxValueBytes : isRange ? maxKeyBytes : 0
    const fits =
      kind <= batchKinds.deleteRange &&
      keyLength <= maxKeyBytes &&
      (keyLength > 0 || isRange) &&
      valueLength <= valueLimit &&
      valueOffset + valueLength <= bytes.length
    if (!fits) throw new MalformedBytes(`an operation at ${at}`)
    if (
      isRange &&
      compareRanges(bytes, keyOffset, keyLength, bytes, valueOffset, valueLength) >= 0
    ) {
      throw new MalformedBytes(`an empty interval at ${at}`)
    }
    at = valueOffset + valueLength
  }
  if (at !== bytes.length) throw new MalformedBytes(`${bytes.length - at} bytes too many`)
}
