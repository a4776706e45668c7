import { assert } from "../../lib/assert.ts"
import { compareRanges } from "../read/cursor.ts"
import { maxSequence } from "./format.ts"
import { writeU32, writeU64, writeVarint } from "./varint.ts"

/** One entry in this many is a restart. More: smaller blocks, longer linear searches. */
const restartInterval = 16
/** Three varints of at most five bytes, one of at most eight. */
const entryHeaderBytesMax = 3 * 5 + 8
/** Base sequence and count of restarts. */
export const blockTailBytes = 12

/** Gathers one data block after the other in one buffer. Layout: format.ts. */
export class BlockWriter {
  private buffer: Uint8Array
  private used = 0
  private count = 0
  private restarts = new Uint32Array(64)
  private restartCount = 0
  private baseSequence = 0
  private lastKey: Uint8Array = new Uint8Array(256)
  private lastKeyLength = 0

  constructor(capacity: number) {
    this.buffer = new Uint8Array(capacity * 2)
  }

  get isEmpty(): boolean {
    return this.count === 0
  }

  /** Bytes of the content if it were finished now. */
  get sizeBytes(): number {
    return this.used + 4 * this.restartCount + blockTailBytes
  }

  /** The key added last, as a view that the next `add` overwrites. */
  get lastKeyView(): Uint8Array {
    return this.lastKey.subarray(0, this.lastKeyLength)
  }

  /** The key added last against another one. */
  compareLast(bytes: Uint8Array, offset: number, length: number): number {
    return compareRanges(this.lastKey, 0, this.lastKeyLength, bytes, offset, length)
  }

  /** Keys must ascend strictly; the table writer checks it. */
  add(
    key: Uint8Array,
    keyOffset: number,
    keyLength: number,
    sequence: number,
    kind: number,
    value: Uint8Array,
    valueOffset: number,
    valueLength: number,
  ): void {
    assert(sequence >= 0 && sequence < maxSequence, "a sequence is below the limit")
    this.reserve(entryHeaderBytesMax + keyLength + valueLength)
    let shared = 0
    if (this.count === 0) this.baseSequence = sequence
    if (this.count % restartInterval === 0) {
      this.addRestart()
    } else {
      const limit = Math.min(keyLength, this.lastKeyLength)
      const lastKey = this.lastKey
      while (shared < limit && lastKey[shared] === key[keyOffset + shared]) shared++
    }
    const buffer = this.buffer
    let at = writeVarint(buffer, this.used, shared)
    at = writeVarint(buffer, at, (keyLength - shared) * 2 + kind)
    this.rememberKey(key, keyOffset, keyLength, shared)
    for (let i = shared; i < keyLength; i++) buffer[at++] = this.lastKey[i]
    const difference = sequence - this.baseSequence
    at = writeVarint(buffer, at, difference < 0 ? -2 * difference - 1 : 2 * difference)
    at = writeVarint(buffer, at, valueLength)
    if (valueLength > 32) {
      buffer.set(value.subarray(valueOffset, valueOffset + valueLength), at)
    } else {
      for (let i = 0; i < valueLength; i++) buffer[at + i] = value[valueOffset + i]
    }
    this.used = at + valueLength
    this.count++
  }

  /** Ends the content and returns it, as a view that the next `add` overwrites; starts anew. */
  finish(): Uint8Array {
    this.reserve(4 * this.restartCount + blockTailBytes)
    let at = this.used
    for (let i = 0; i < this.restartCount; i++, at += 4) writeU32(this.buffer, at, this.restarts[i])
    writeU64(this.buffer, at, this.baseSequence)
    writeU32(this.buffer, at + 8, this.restartCount)
    const content = this.buffer.subarray(0, at + blockTailBytes)
    this.used = 0
    this.count = 0
    this.restartCount = 0
    this.lastKeyLength = 0
    return content
  }

  private addRestart(): void {
    if (this.restartCount === this.restarts.length) {
      const larger = new Uint32Array(this.restarts.length * 2)
      larger.set(this.restarts)
      this.restarts = larger
    }
    this.restarts[this.restartCount++] = this.used
  }

  private rememberKey(key: Uint8Array, offset: number, length: number, shared: number): void {
    if (length > this.lastKey.length) {
      const larger = new Uint8Array(length * 2)
      larger.set(this.lastKey.subarray(0, this.lastKeyLength))
      this.lastKey = larger
    }
    for (let i = shared; i < length; i++) this.lastKey[i] = key[offset + i]
    this.lastKeyLength = length
  }

  private reserve(count: number): void {
    const needed = this.used + count
    if (needed <= this.buffer.length) return
    const larger = new Uint8Array(Math.max(needed, this.buffer.length * 2))
    larger.set(this.buffer.subarray(0, this.used))
    this.buffer = larger
  }
}
