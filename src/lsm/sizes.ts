import { compareBytes } from "../lib/bytes.ts"
import type { TableSet } from "./maintenance/tableSet.ts"
import type { Fragment, Interval, Version } from "./manifest/version.ts"
import { overlapping } from "./manifest/version.ts"
import { BlockCursor } from "./table/block.ts"

/** What is after every key: keys are at most 4 KiB long and begin with a byte below it. */
const endOfKeys = new Uint8Array(4097).fill(0xff)

/** A fragment as far as it lies in an interval. */
interface Part {
  readonly fragment: Fragment
  readonly lower: Uint8Array
  readonly upper: Uint8Array
  readonly bytes: number
}

function partsOf(version: Version, tables: TableSet, interval: Interval): ReadonlyArray<Part> {
  const end = interval.upper ?? endOfKeys
  const parts: Array<Part> = []
  for (const run of version.runs) {
    for (const fragment of overlapping(run, interval)) {
      const lower = greater(fragment.lower, interval.lower)
      const upper = compareBytes(fragment.upper, end) <= 0 ? fragment.upper : end
      const bytes = tables.measure(fragment, lower, upper)
      if (bytes > 0) parts.push({ fragment, lower, upper, bytes })
    }
  }
  return parts
}

/**
 * Bytes of tables and entries in an interval, older values and deletes included, from the indexes:
 * at each of its two ends it may be wrong by a block a run.
 */
export function approximateSize(
  version: Version,
  tables: TableSet,
  interval: Interval,
): { bytes: number; entries: number } {
  let bytes = 0
  let entries = 0
  for (const part of partsOf(version, tables, interval)) {
    bytes += part.bytes
    entries += (part.fragment.entries * part.bytes) / part.fragment.sizeBytes
  }
  return { bytes: Math.round(bytes), entries: Math.round(entries) }
}

/**
 * A key strictly inside of the interval with about half of the interval's bytes before it;
 * `undefined` when no table has one. First among the ends of fragments, then among the ends of the
 * blocks of the largest part at the middle, then, when all is in one block, among its keys. Reads
 * indexes, and in the last case one block.
 */
export function splitKey(
  version: Version,
  tables: TableSet,
  interval: Interval,
): Uint8Array | undefined {
  const parts = partsOf(version, tables, interval)
  let total = 0
  for (const { bytes } of parts) total += bytes
  if (total === 0) return undefined
  const isInside = (key: Uint8Array) =>
    compareBytes(key, interval.lower) > 0 &&
    (interval.upper === undefined || compareBytes(key, interval.upper) < 0)
  const before = (key: Uint8Array) => bytesBefore(parts, tables, key)

  const ends = parts.flatMap(({ lower, upper }) => [lower, upper]).sort(compareBytes)
  const at = firstWithHalf(ends.length, (i) => before(ends[i] as Uint8Array), total)
  const from = at === 0 ? interval.lower : (ends[at - 1] as Uint8Array)
  const to = at === ends.length ? endOfKeys : (ends[at] as Uint8Array)
  const inner = largestBetween(parts, tables, from, to)
  const candidates = [from, to]
  if (inner !== undefined) candidates.push(...innerKeys(inner, tables, from, to, before, total))
  let best: Uint8Array | undefined
  let bestDistance = Number.POSITIVE_INFINITY
  for (const key of candidates) {
    if (!isInside(key)) continue
    const distance = Math.abs(total / 2 - before(key))
    if (distance >= bestDistance) continue
    best = key
    bestDistance = distance
  }
  // All bytes on one side would leave a part with nothing.
  const isUneven = bestDistance >= total / 2
  const biggest = largestBetween(parts, tables, interval.lower, interval.upper ?? endOfKeys)
  if (!isUneven || biggest === undefined) return best
  return middleOfBlock(biggest, tables, isInside) ?? best
}

function bytesBefore(parts: ReadonlyArray<Part>, tables: TableSet, key: Uint8Array): number {
  let sum = 0
  for (const { fragment, lower, upper, bytes } of parts) {
    if (compareBytes(upper, key) <= 0) sum += bytes
    else if (compareBytes(lower, key) < 0) sum += tables.measure(fragment, lower, key)
  }
  return sum
}

/** The first of `count` places at which a rising figure reaches half of `total`. */
function firstWithHalf(count: number, figure: (i: number) => number, total: number): number {
  let low = 0
  let high = count
  while (low < high) {
    const middle = (low + high) >>> 1
    if (figure(middle) < total / 2) low = middle + 1
    else high = middle
  }
  return low
}

/** The part with the most bytes in [from, to). */
function largestBetween(
  parts: ReadonlyArray<Part>,
  tables: TableSet,
  from: Uint8Array,
  to: Uint8Array,
): Part | undefined {
  let best: Part | undefined
  for (const { fragment, lower, upper } of parts) {
    const start = greater(lower, from)
    const end = compareBytes(upper, to) <= 0 ? upper : to
    if (compareBytes(start, end) >= 0) continue
    const bytes = tables.measure(fragment, start, end)
    if (best === undefined || bytes > best.bytes)
      best = { fragment, lower: start, upper: end, bytes }
  }
  return best
}

/** The last keys of the two blocks of a part around the middle of all bytes. */
function innerKeys(
  part: Part,
  tables: TableSet,
  from: Uint8Array,
  to: Uint8Array,
  before: (key: Uint8Array) => number,
  total: number,
): ReadonlyArray<Uint8Array> {
  const table = tables.of(part.fragment)
  const first = table.firstBlockAtOrAfter(greater(from, part.lower))
  const last = Math.min(table.firstBlockAtOrAfter(to), table.blockCount)
  const keyAt = (i: number) => table.lastKey(first + i).slice()
  const at = firstWithHalf(last - first, (i) => before(keyAt(i)), total)
  const keys: Array<Uint8Array> = []
  if (at > 0) keys.push(keyAt(at - 1))
  if (at < last - first) keys.push(keyAt(at))
  return keys
}

/** The middle one of those keys of a part's first block that are strictly inside. */
function middleOfBlock(
  part: Part,
  tables: TableSet,
  isInside: (key: Uint8Array) => boolean,
): Uint8Array | undefined {
  const table = tables.of(part.fragment)
  const block = table.firstBlockAtOrAfter(part.lower)
  if (block >= table.blockCount) return undefined
  const cursor = new BlockCursor()
  table.position(cursor, block)
  const keys: Array<Uint8Array> = []
  for (let valid = cursor.seekFirst(); valid; valid = cursor.step()) {
    const { keyBytes, keyOffset, keyLength } = cursor
    const key = keyBytes.slice(keyOffset, keyOffset + keyLength)
    if (isInside(key)) keys.push(key)
  }
  return keys[keys.length >>> 1]
}

function greater(left: Uint8Array, right: Uint8Array): Uint8Array {
  return compareBytes(left, right) >= 0 ? left : right
}
