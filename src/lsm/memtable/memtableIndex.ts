/**
 * Where the entries of a memtable are found: a B-tree of two levels (Bayer and McCreight, 1972) over
 * typed arrays. A leaf holds up to 128 entries: their first eight bytes, and where their nodes are.
 * The root holds the same of each leaf's first entry, in order.
 *
 * A search in a skiplist meets a new cache line at every step. Here the root stays in the
 * processor's cache, a search in a leaf meets a few lines, and a node is looked at only where eight
 * bytes don't tell. Two levels are enough: at half a million entries the root has a few thousand
 * leaves, and one more moves 60 KB, once in 64 insertions.
 *
 * Nodes are linked in order by themselves (memtable.ts), so that who stands on one needs no index to
 * go on. Order is that of keys; of equal keys the one inserted last comes first.
 */
import { assert } from "../../lib/assert.ts"

/** What the index asks of the nodes. */
export interface IndexedNodes {
  /** The rest of a node's key, behind eight padded bytes, against that of the key searched for. */
  compareBeyond(node: number, bytes: Uint8Array, offset: number, length: number): number
}

const leafEntries = 128
/** Two words of prefix, then one of place, for each entry. */
const leafWords = 3 * leafEntries
const placesAt = 2 * leafEntries
/** Three words, in leaves that are two thirds full when keys come at random. */
export const indexEntryBytes = 18
/** Leaves come in chunks, so that growing moves nothing. */
const chunkLeaves = 128
/** Chunks kept for the next memtable: half a million entries' worth, for two. */
const keptChunks = 96
const spareChunks: Array<Uint32Array> = []

export class MemtableIndex {
  /** Where the last `locate` ended: a leaf's rank, and a slot in it, which may be one past its end. */
  rank = 0
  slot = 0
  prefix0 = 0
  prefix1 = 0
  private readonly nodes: IndexedNodes
  private readonly chunks: Array<Uint32Array> = []
  /** By rank: prefix and place of the first entry, number of the leaf, count of its entries. */
  private rootPrefixes = new Uint32Array(32)
  private rootPlaces = new Uint32Array(16)
  private rootLeaves = new Uint32Array(16)
  private rootCounts = new Uint8Array(16)
  private leaves = 0
  private entries = 0

  constructor(nodes: IndexedNodes) {
    this.nodes = nodes
  }

  /** About the bytes that the entries so far take here. */
  get usedBytes(): number {
    return this.entries * indexEntryBytes
  }

  /** Gives its memory to the next index. Nothing may be looked up any more. */
  release(): void {
    for (const chunk of this.chunks) if (spareChunks.length < keptChunks) spareChunks.push(chunk)
    this.chunks.length = 0
    this.leaves = 0
    this.entries = 0
  }

  /**
   * To the first entry at or after a key: `rank` and `slot`, from which `found`, `before` and
   * `insert` go on.
   */
  locate(bytes: Uint8Array, offset: number, length: number): void {
    const prefix0 = prefixWord(bytes, offset, length)
    const prefix1 = prefixWord(bytes, offset + 4, length - 4)
    this.prefix0 = prefix0
    this.prefix1 = prefix1
    const { nodes, rootPrefixes, rootPlaces } = this
    // The last leaf that begins before the key: what comes at or after it begins there or with the
    // next one.
    let low = 0
    let high = this.leaves
    while (low < high) {
      const middle = (low + high) >>> 1
      const first = rootPrefixes[2 * middle]
      let isBefore = first < prefix0
      if (first === prefix0) {
        const second = rootPrefixes[2 * middle + 1]
        isBefore =
          second < prefix1 ||
          (second === prefix1 && nodes.compareBeyond(rootPlaces[middle], bytes, offset, length) < 0)
      }
      if (isBefore) low = middle + 1
      else high = middle
    }
    const rank = low === 0 ? 0 : low - 1
    this.rank = rank
    if (low === 0) {
      this.slot = 0
      return
    }
    const leaf = this.rootLeaves[rank]
    const chunk = this.chunks[(leaf / chunkLeaves) | 0]
    const base = (leaf % chunkLeaves) * leafWords
    // Slot 0 is before the key, as the root has told.
    low = 1
    high = this.rootCounts[rank]
    while (low < high) {
      const middle = (low + high) >>> 1
      const at = base + 2 * middle
      const first = chunk[at]
      let isBefore = first < prefix0
      if (first === prefix0) {
        const second = chunk[at + 1]
        isBefore =
          second < prefix1 ||
          (second === prefix1 &&
            nodes.compareBeyond(chunk[base + placesAt + middle], bytes, offset, length) < 0)
      }
      if (isBefore) low = middle + 1
      else high = middle
    }
    this.slot = low
  }

  /** The node that `locate` ended on, or 0. */
  get found(): number {
    const { rank, slot } = this
    if (rank >= this.leaves) return 0
    if (slot < this.rootCounts[rank]) return this.place(rank, slot)
    return rank + 1 < this.leaves ? this.rootPlaces[rank + 1] : 0
  }

  /** The node before that, or 0. */
  get before(): number {
    // Only in the first leaf can the slot be 0.
    return this.slot === 0 ? 0 : this.place(this.rank, this.slot - 1)
  }

  get last(): number {
    const rank = this.leaves - 1
    return rank < 0 ? 0 : this.place(rank, this.rootCounts[rank] - 1)
  }

  /** Puts a node where `locate` ended for its key. */
  insert(node: number): void {
    if (this.leaves === 0) this.addLeaf(0)
    if (this.rootCounts[this.rank] === leafEntries) this.split()
    const { rank, slot, prefix0, prefix1 } = this
    const leaf = this.rootLeaves[rank]
    const chunk = this.chunks[(leaf / chunkLeaves) | 0]
    const base = (leaf % chunkLeaves) * leafWords
    const count = this.rootCounts[rank]
    if (slot < count) {
      chunk.copyWithin(base + 2 * slot + 2, base + 2 * slot, base + 2 * count)
      const places = base + placesAt
      chunk.copyWithin(places + slot + 1, places + slot, places + count)
    }
    chunk[base + 2 * slot] = prefix0
    chunk[base + 2 * slot + 1] = prefix1
    chunk[base + placesAt + slot] = node
    this.rootCounts[rank] = count + 1
    this.entries++
    if (slot === 0) this.setRoot(rank, prefix0, prefix1, node)
  }

  /** Entries from where `locate` ended up to another place that it ended at. */
  entriesTo(from: { rank: number; slot: number }): number {
    let entries = this.slot - from.slot
    for (let rank = from.rank; rank < this.rank; rank++) entries += this.rootCounts[rank]
    return entries
  }

  /** The node so many entries after a place; it must be there. */
  nodeAt(from: { rank: number; slot: number }, entries: number): number {
    let rank = from.rank
    let slot = from.slot + entries
    while (slot >= this.rootCounts[rank]) slot -= this.rootCounts[rank++]
    return this.place(rank, slot)
  }

  /** To one past the last entry. */
  locateEnd(): void {
    this.rank = Math.max(0, this.leaves - 1)
    this.slot = this.leaves === 0 ? 0 : this.rootCounts[this.rank]
  }

  private place(rank: number, slot: number): number {
    const leaf = this.rootLeaves[rank]
    return this.chunks[(leaf / chunkLeaves) | 0][(leaf % chunkLeaves) * leafWords + placesAt + slot]
  }

  private setRoot(rank: number, prefix0: number, prefix1: number, node: number): void {
    this.rootPrefixes[2 * rank] = prefix0
    this.rootPrefixes[2 * rank + 1] = prefix1
    this.rootPlaces[rank] = node
  }

  /**
   * Makes room in the full leaf of `rank` and goes on with the half in which `slot` lies. Behind the
   * last entry of all an empty leaf is begun instead, so that keys in order fill theirs.
   */
  private split(): void {
    const { rank, slot } = this
    const isAtEnd = slot === leafEntries && rank === this.leaves - 1
    const kept = isAtEnd ? leafEntries : leafEntries / 2
    const leaf = this.rootLeaves[rank]
    this.addLeaf(rank + 1)
    if (!isAtEnd) {
      const source = this.chunks[(leaf / chunkLeaves) | 0]
      const from = (leaf % chunkLeaves) * leafWords
      const next = this.rootLeaves[rank + 1]
      const target = this.chunks[(next / chunkLeaves) | 0]
      const to = (next % chunkLeaves) * leafWords
      target.set(source.subarray(from + 2 * kept, from + 2 * leafEntries), to)
      const places = from + placesAt
      target.set(source.subarray(places + kept, places + leafEntries), to + placesAt)
      this.rootCounts[rank] = kept
      this.rootCounts[rank + 1] = leafEntries - kept
      this.setRoot(rank + 1, target[to], target[to + 1], target[to + placesAt])
    }
    if (isAtEnd || slot > kept) {
      this.rank = rank + 1
      this.slot = slot - kept
    }
  }

  /** An empty leaf at a rank; those from it on move up. */
  private addLeaf(rank: number): void {
    const leaf = this.leaves
    if (leaf === this.rootPlaces.length) this.growRoot()
    if (leaf % chunkLeaves === 0) {
      this.chunks.push(spareChunks.pop() ?? new Uint32Array(chunkLeaves * leafWords))
    }
    this.leaves = leaf + 1
    if (rank < leaf) {
      this.rootPrefixes.copyWithin(2 * rank + 2, 2 * rank, 2 * leaf)
      this.rootPlaces.copyWithin(rank + 1, rank, leaf)
      this.rootLeaves.copyWithin(rank + 1, rank, leaf)
      this.rootCounts.copyWithin(rank + 1, rank, leaf)
    }
    this.rootLeaves[rank] = leaf
    this.rootCounts[rank] = 0
    assert(leafEntries < 256, "a count of entries fits a byte")
  }

  private growRoot(): void {
    const size = 2 * this.rootPlaces.length
    const grown = (array: Uint32Array, length: number) => {
      const larger = new Uint32Array(length)
      larger.set(array)
      return larger
    }
    this.rootPrefixes = grown(this.rootPrefixes, 2 * size)
    this.rootPlaces = grown(this.rootPlaces, size)
    this.rootLeaves = grown(this.rootLeaves, size)
    const counts = new Uint8Array(size)
    counts.set(this.rootCounts)
    this.rootCounts = counts
  }
}

/** Up to four bytes as one big-endian number, zero-padded; `length` may be below zero. */
function prefixWord(bytes: Uint8Array, offset: number, length: number): number {
  if (length >= 4) {
    return (
      ((bytes[offset] << 24) |
        (bytes[offset + 1] << 16) |
        (bytes[offset + 2] << 8) |
        bytes[offset + 3]) >>>
      0
    )
  }
  let word = 0
  for (let i = 0; i < 4; i++) word = (word << 8) | (i < length ? bytes[offset + i] : 0)
  return word >>> 0
}
