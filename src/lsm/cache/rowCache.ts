/**
 * Values of keys read lately, in one slab. Rows are appended in a ring, the oldest ones make room;
 * a row that is asked for when it is about to go is appended again, so what is in use stays (FIFO
 * with lazy promotion; Yang et al., HotOS 2023). An index in a typed array finds a row by its key's
 * hash, eight places to a bucket.
 *
 * Whoever writes a key must `invalidate` it; what changes many keys at once must `clear`. A row
 * leaves the index before its bytes are overwritten, so the index names whole rows only, and a hit
 * compares the whole key.
 *
 * A row: hash u32, key length u32, value length u32, size u32, key, value, up to 16 bytes more. A
 * filler before the end of the slab has the key length `filler`.
 */
import { assert } from "../../lib/assert.ts"
import { keyHash } from "../table/bloom.ts"

const headerBytes = 16
const unitBytes = 16
const ways = 8
const filler = 0xffffffff
/** Part of the slab that one row may take: larger ones would push out too many. */
const maxRowPart = 1 / 8
/** A row that has less than this part of the way left to go is appended again when it is used. */
const renewPart = 1 / 2
/** By this many bytes of budget the index has a place: twice as many as there are rows of 128. */
const rowBytesGuess = 64

export class RowCache {
  readonly budgetBytes: number
  hits = 0
  misses = 0
  private readonly bytes: Uint8Array
  private readonly words: Uint32Array
  /** Row's offset in units + 1; 0 = free. */
  private readonly index: Uint32Array
  private readonly bucketMask: number
  private head = 0
  private tail = 0
  private usedBytes = 0

  constructor(budgetBytes: number) {
    this.budgetBytes = budgetBytes
    const buckets = 2 ** Math.floor(Math.log2(Math.max(1, budgetBytes / (rowBytesGuess * ways))))
    const indexBytes = 4 * ways * buckets
    const slabBytes = Math.floor((budgetBytes - indexBytes) / unitBytes) * unitBytes
    const isOff = slabBytes < 4 * unitBytes
    this.bytes = new Uint8Array(isOff ? 0 : slabBytes)
    this.words = new Uint32Array(this.bytes.buffer)
    this.index = new Uint32Array(isOff ? 0 : ways * buckets)
    this.bucketMask = buckets - 1
  }

  get isOff(): boolean {
    return this.bytes.length === 0
  }

  get sizeBytes(): number {
    return this.usedBytes + 4 * this.index.length
  }

  /** A copy of the value of `key`. `hash` is its `keyHash`. */
  get(key: Uint8Array, hash: number): Uint8Array | undefined {
    if (this.isOff) return undefined
    const place = this.find(key, hash)
    if (place < 0) {
      this.misses++
      return undefined
    }
    this.hits++
    const row = (this.index[place] - 1) * unitBytes
    const word = row >>> 2
    const start = row + headerBytes + this.words[word + 1]
    const value = this.bytes.slice(start, start + this.words[word + 2])
    const left = row >= this.tail ? row - this.tail : row - this.tail + this.bytes.length
    const isLeaving = this.usedBytes > this.bytes.length / 2 && left < this.bytes.length * renewPart
    if (isLeaving) this.set(key, hash, value, 0, value.length)
    return value
  }

  /** Keeps a copy of a value, in place of the one it had. */
  set(
    key: Uint8Array,
    hash: number,
    valueBytes: Uint8Array,
    valueOffset: number,
    valueLength: number,
  ): void {
    if (this.isOff) return
    const old = this.find(key, hash)
    if (old >= 0) this.index[old] = 0
    const needed = headerBytes + key.length + valueLength
    const sizeBytes = Math.ceil(needed / unitBytes) * unitBytes
    if (sizeBytes > this.bytes.length * maxRowPart) return
    this.makeRoom(sizeBytes)
    const row = this.head
    const word = row >>> 2
    this.words[word] = hash
    this.words[word + 1] = key.length
    this.words[word + 2] = valueLength
    this.words[word + 3] = sizeBytes
    this.bytes.set(key, row + headerBytes)
    const value = valueBytes.subarray(valueOffset, valueOffset + valueLength)
    this.bytes.set(value, row + headerBytes + key.length)
    this.head = row + sizeBytes === this.bytes.length ? 0 : row + sizeBytes
    this.usedBytes += sizeBytes
    this.index[this.placeFor(hash)] = row / unitBytes + 1
  }

  /** Forgets a key. */
  invalidate(key: Uint8Array): void {
    if (this.usedBytes === 0) return
    const place = this.find(key, keyHash(key, 0, key.length))
    if (place >= 0) this.index[place] = 0
  }

  clear(): void {
    if (this.usedBytes === 0) return
    this.index.fill(0)
    this.head = 0
    this.tail = 0
    this.usedBytes = 0
  }

  /** Index place of the key's row, or -1. */
  private find(key: Uint8Array, hash: number): number {
    const bucket = (hash & this.bucketMask) * ways
    for (let place = bucket; place < bucket + ways; place++) {
      const entry = this.index[place]
      if (entry === 0) continue
      const row = (entry - 1) * unitBytes
      if (this.words[row >>> 2] === hash && this.hasKey(row, key)) return place
    }
    return -1
  }

  private hasKey(row: number, key: Uint8Array): boolean {
    const length = key.length
    if (this.words[(row >>> 2) + 1] !== length) return false
    const start = row + headerBytes
    for (let i = 0; i < length; i++) if (this.bytes[start + i] !== key[i]) return false
    return true
  }

  /** A free place of the hash's bucket, or that of its oldest row. */
  private placeFor(hash: number): number {
    const bucket = (hash & this.bucketMask) * ways
    let oldest = bucket
    let oldestLeft = Number.POSITIVE_INFINITY
    for (let place = bucket; place < bucket + ways; place++) {
      if (this.index[place] === 0) return place
      const row = (this.index[place] - 1) * unitBytes
      const left = row >= this.tail ? row - this.tail : row - this.tail + this.bytes.length
      if (left < oldestLeft) {
        oldestLeft = left
        oldest = place
      }
    }
    return oldest
  }

  /** Lets the oldest rows go until `sizeBytes` in one piece are free at `head`. */
  private makeRoom(sizeBytes: number): void {
    const rest = this.bytes.length - this.head
    if (rest < sizeBytes) {
      while (this.usedBytes > 0 && this.tail >= this.head) this.dropOldest()
      const word = this.head >>> 2
      this.words[word + 1] = filler
      this.words[word + 3] = rest
      this.usedBytes += rest
      this.head = 0
    }
    while (this.usedBytes > 0 && this.tail >= this.head && this.tail - this.head < sizeBytes) {
      this.dropOldest()
    }
  }

  private dropOldest(): void {
    const row = this.tail
    const word = row >>> 2
    const sizeBytes = this.words[word + 3]
    assert(sizeBytes > 0 && row + sizeBytes <= this.bytes.length, "rows lie one behind the other")
    if (this.words[word + 1] !== filler) {
      const bucket = (this.words[word] & this.bucketMask) * ways
      for (let place = bucket; place < bucket + ways; place++) {
        if (this.index[place] === row / unitBytes + 1) this.index[place] = 0
      }
    }
    this.tail = row + sizeBytes === this.bytes.length ? 0 : row + sizeBytes
    this.usedBytes -= sizeBytes
  }
}
