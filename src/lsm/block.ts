/**
 * Data blocks: entries in ascending order of key, each key stored without what it shares with the
 * one before it, except at a restart, where it is whole. A search is binary over the restarts and
 * linear between two of them. Layout: format.ts.
 */
import { assert } from "../lib/assert.ts"
import { emptyBytes } from "../lib/bytes.ts"
import { compareRanges } from "./cursor.ts"

/** One entry in this many is a restart. More: smaller blocks, longer linear searches. */
const restartInterval = 16
/** Three varints of at most five bytes, sequence and kind. */
const entryHeaderBytesMax = 15 + 8

/** Gathers one block after the other in one buffer. */
export class BlockWriter {
  private buffer: Uint8Array
  private used = 0
  private count = 0
  private restarts: Array<number> = []
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
    return this.used + 4 * this.restarts.length + 4
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
    this.reserve(entryHeaderBytesMax + keyLength + valueLength)
    let shared = 0
    if (this.count % restartInterval === 0) {
      this.restarts.push(this.used)
    } else {
      const limit = Math.min(keyLength, this.lastKeyLength)
      while (shared < limit && this.lastKey[shared] === key[keyOffset + shared]) shared++
    }
    const buffer = this.buffer
    let at = this.used
    at = writeVarint(buffer, at, shared)
    at = writeVarint(buffer, at, keyLength - shared)
    at = writeVarint(buffer, at, valueLength)
    const high = Math.floor(sequence / 2 ** 32)
    buffer[at] = sequence
    buffer[at + 1] = sequence >>> 8
    buffer[at + 2] = sequence >>> 16
    buffer[at + 3] = sequence >>> 24
    buffer[at + 4] = high
    buffer[at + 5] = high >>> 8
    buffer[at + 6] = high >>> 16
    buffer[at + 7] = kind
    at += 8
    this.rememberKey(key, keyOffset, keyLength, shared)
    for (let i = shared; i < keyLength; i++) buffer[at++] = this.lastKey[i]
    if (valueLength > 0) buffer.set(value.subarray(valueOffset, valueOffset + valueLength), at)
    this.used = at + valueLength
    this.count++
  }

  /**
   * Ends the content and calls `emit` with it and `room` bytes to fill behind it, as a view; then
   * starts anew.
   */
  finish(room: number, emit: (block: Uint8Array, contentBytes: number) => void): void {
    this.reserve(4 * this.restarts.length + 4 + room)
    for (const offset of this.restarts) this.u32(offset)
    this.u32(this.restarts.length)
    emit(this.buffer.subarray(0, this.used + room), this.used)
    this.used = 0
    this.count = 0
    this.restarts = []
    this.lastKeyLength = 0
  }

  private u32(value: number): void {
    writeU32(this.buffer, this.used, value)
    this.used += 4
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

/**
 * A position in one block. Subclassed by `RunCursor`, which goes on to the next block: the fields
 * of `Cursor` stay in one object. Structure is asserted, not reported as corruption: the block's
 * checksum has been verified.
 */
export class BlockCursor {
  keyBytes: Uint8Array = new Uint8Array(256)
  readonly keyOffset = 0
  keyLength = 0
  sequence = 0
  kind = 0
  valueBytes: Uint8Array = emptyBytes
  valueOffset = 0
  valueLength = 0
  /** True while the position is on an entry. */
  valid = false
  private entryOffset = 0
  private nextOffset = 0
  private restartsOffset = 0
  private restartCount = 0

  /** Takes a block's content; then seek. */
  setBlock(content: Uint8Array): void {
    this.valueBytes = content
    this.restartCount = readU32(content, content.length - 4)
    this.restartsOffset = content.length - 4 - 4 * this.restartCount
    assert(this.restartCount > 0 && this.restartsOffset > 0, "a block holds an entry and a restart")
    this.valid = false
  }

  /** To the first entry at or after the key; false when there is none. */
  seekAtOrAfter(key: Uint8Array): boolean {
    this.nextOffset = this.restartOffset(this.lastRestartBefore(key))
    while (this.step()) {
      const order = compareRanges(this.keyBytes, 0, this.keyLength, key, 0, key.length)
      if (order >= 0) return true
    }
    return false
  }

  /** To the last entry before the key; false when there is none. */
  seekBefore(key: Uint8Array): boolean {
    this.nextOffset = this.restartOffset(this.lastRestartBefore(key))
    let found = -1
    while (this.step()) {
      if (compareRanges(this.keyBytes, 0, this.keyLength, key, 0, key.length) >= 0) break
      found = this.entryOffset
    }
    return found >= 0 && this.scanTo(found)
  }

  seekFirst(): boolean {
    this.nextOffset = 0
    return this.step()
  }

  seekLast(): boolean {
    this.nextOffset = this.restartOffset(this.restartCount - 1)
    while (this.nextOffset < this.restartsOffset) this.step()
    return this.valid
  }

  /** To the next entry; false at the end of the block. */
  step(): boolean {
    if (this.nextOffset >= this.restartsOffset) {
      this.valid = false
      return false
    }
    const bytes = this.valueBytes
    let at = this.nextOffset
    this.entryOffset = at
    let shared = bytes[at++]
    if (shared >= 0x80) {
      shared = readVarint(bytes, at - 1)
      at = varintEnd
    }
    let unshared = bytes[at++]
    if (unshared >= 0x80) {
      unshared = readVarint(bytes, at - 1)
      at = varintEnd
    }
    let valueLength = bytes[at++]
    if (valueLength >= 0x80) {
      valueLength = readVarint(bytes, at - 1)
      at = varintEnd
    }
    this.sequence =
      readU32(bytes, at) + (bytes[at + 4] | (bytes[at + 5] << 8) | (bytes[at + 6] << 16)) * 2 ** 32
    this.kind = bytes[at + 7]
    at += 8
    const keyLength = shared + unshared
    if (keyLength > this.keyBytes.length) this.growKey(keyLength * 2)
    const keyBytes = this.keyBytes
    for (let i = shared; i < keyLength; i++) keyBytes[i] = bytes[at++]
    this.keyLength = keyLength
    this.valueOffset = at
    this.valueLength = valueLength
    this.nextOffset = at + valueLength
    assert(this.nextOffset <= this.restartsOffset, "an entry ends inside its block")
    this.valid = true
    return true
  }

  /** To the entry before the present one; false at the beginning of the block. */
  stepBack(): boolean {
    const target = this.entryOffset
    if (target === 0) {
      this.valid = false
      return false
    }
    this.nextOffset = this.restartOffset(this.lastRestartBelow(target))
    let previous = this.nextOffset
    while (this.nextOffset < target) {
      previous = this.nextOffset
      this.step()
    }
    assert(this.entryOffset === previous, "a step back ends on the entry before")
    return true
  }

  private scanTo(offset: number): boolean {
    if (this.valid && this.entryOffset === offset) return true
    let low = this.lastRestartBelow(offset + 1)
    if (low < 0) low = 0
    this.nextOffset = this.restartOffset(low)
    while (this.nextOffset <= offset) this.step()
    return true
  }

  private restartOffset(index: number): number {
    return readU32(this.valueBytes, this.restartsOffset + 4 * index)
  }

  /** Index of the last restart whose offset is below `offset`. */
  private lastRestartBelow(offset: number): number {
    let low = 0
    let high = this.restartCount - 1
    while (low < high) {
      const middle = (low + high + 1) >>> 1
      if (this.restartOffset(middle) < offset) low = middle
      else high = middle - 1
    }
    return low
  }

  /** Index of the last restart whose key is before `key`, or the first one. */
  private lastRestartBefore(key: Uint8Array): number {
    const bytes = this.valueBytes
    let low = 0
    let high = this.restartCount - 1
    while (low < high) {
      const middle = (low + high + 1) >>> 1
      // At a restart nothing is shared, so the first byte is 0 and the key lies whole behind its
      // header.
      let at = this.restartOffset(middle) + 1
      const length = readVarint(bytes, at)
      readVarint(bytes, varintEnd)
      at = varintEnd + 8
      if (compareRanges(bytes, at, length, key, 0, key.length) < 0) low = middle
      else high = middle - 1
    }
    return low
  }

  private growKey(capacity: number): void {
    const larger = new Uint8Array(capacity)
    larger.set(this.keyBytes)
    this.keyBytes = larger
  }
}

/** Where the varint read last ended. Two results without an object. */
let varintEnd = 0

function readVarint(bytes: Uint8Array, offset: number): number {
  let at = offset
  let result = 0
  let shift = 0
  for (;;) {
    const byte = bytes[at++]
    result |= (byte & 0x7f) << shift
    if (byte < 0x80) break
    shift += 7
    assert(shift < 35, "a varint has at most five bytes")
  }
  varintEnd = at
  return result >>> 0
}

function writeVarint(bytes: Uint8Array, offset: number, value: number): number {
  let at = offset
  let rest = value
  while (rest >= 0x80) {
    bytes[at++] = (rest & 0x7f) | 0x80
    rest >>>= 7
  }
  bytes[at++] = rest
  return at
}

export function readU32(bytes: Uint8Array, offset: number): number {
  return (
    (bytes[offset] |
      (bytes[offset + 1] << 8) |
      (bytes[offset + 2] << 16) |
      (bytes[offset + 3] << 24)) >>>
    0
  )
}

export function writeU32(bytes: Uint8Array, offset: number, value: number): void {
  bytes[offset] = value
  bytes[offset + 1] = value >>> 8
  bytes[offset + 2] = value >>> 16
  bytes[offset + 3] = value >>> 24
}
