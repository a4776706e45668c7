/**
 * Verified, expanded blocks of tables, within a byte budget. Which ones stay is decided by S3-FIFO
 * (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023): new blocks queue in
 * a small part of the budget and go through it once; those that were asked for again meanwhile move
 * to the main queue, the others leave and are remembered for a while (a "ghost"); a ghost that comes
 * back goes to the main queue at once. The main queue gives a block another round for each time it
 * was used, up to three. So a scan, whose blocks are used once, passes through the small queue only.
 *
 * A table has a *home* in the cache: a number for each of its blocks, which is the block's slot (a
 * hit hashes nothing and no other table can be meant), or, negative, when it left as a ghost. All
 * bookkeeping is in typed arrays by slot.
 *
 * A block is never written to again and its memory is never reused: a view of it stays right for
 * ever, evicted or not.
 */
import { assert } from "../../lib/assert.ts"

/** Per block of a table: slot, 0 = never seen, negative = the ghost's stamp. */
export type BlockHome = Int32Array

/** Bytes of bookkeeping that a block costs besides its content: its array's header for the most part. */
const overheadBytes = 96
/** Part of the budget that is for blocks not yet seen twice (S3-FIFO, 4.1). */
const smallPart = 0.1
const maxFrequency = 3
/** Stamps of ghosts count evictions and begin anew here; a stamp of a round before is harmless. */
const stampLimit = 2 ** 30

/** The queues are rings: each begins and ends at a slot that holds nothing. */
const smallQueue = 1
const mainQueue = 2
const firstSlot = 3

export class BlockCache {
  readonly budgetBytes: number
  hits = 0
  misses = 0
  private contents: Array<Uint8Array | undefined> = [undefined, undefined, undefined]
  private homes: Array<BlockHome | undefined> = [undefined, undefined, undefined]
  private indexes = new Uint32Array(64)
  private frequencies = new Uint8Array(64)
  private queues = new Uint8Array(64)
  /** Towards older and newer ones in a queue; `newer` also links free slots. */
  private older = new Int32Array(64)
  private newer = new Int32Array(64)
  private free = 0
  private count = 0
  private heldBytes = 0
  private smallBytes = 0
  private evictions = 0

  constructor(budgetBytes: number) {
    this.budgetBytes = budgetBytes
    for (const queue of [smallQueue, mainQueue]) {
      this.older[queue] = queue
      this.newer[queue] = queue
    }
  }

  get sizeBytes(): number {
    return this.heldBytes
  }

  /** Blocks held. */
  get blockCount(): number {
    return this.count
  }

  /** A place for the blocks of one table, to be given back with `dropTable`. */
  newHome(blockCount: number): BlockHome {
    return new Int32Array(this.budgetBytes > 0 ? blockCount : 0)
  }

  /** The block, if it is held; counts the use. */
  get(home: BlockHome, index: number): Uint8Array | undefined {
    const slot = home[index]
    // Undefined when the cache is off.
    if (slot > 0) {
      this.hits++
      if (this.frequencies[slot] < maxFrequency) this.frequencies[slot]++
      return this.contents[slot]
    }
    this.misses++
    return undefined
  }

  /** The block, if it is held, for a reader that must not change what stays (a scan, a scrub). */
  peek(home: BlockHome, index: number): Uint8Array | undefined {
    const slot = home[index]
    return slot > 0 ? this.contents[slot] : undefined
  }

  /** Keeps a block, unless it is larger than the whole budget. */
  insert(home: BlockHome, index: number, content: Uint8Array): void {
    const costBytes = content.length + overheadBytes
    if (costBytes > this.budgetBytes) return
    assert(home[index] <= 0, "a block is cached once")
    const isGhost = this.isGhost(home[index])
    while (this.heldBytes + costBytes > this.budgetBytes) this.evictOne()
    const slot = this.takeSlot()
    this.contents[slot] = content
    this.homes[slot] = home
    this.indexes[slot] = index
    this.frequencies[slot] = 0
    home[index] = slot
    this.count++
    this.heldBytes += costBytes
    this.enqueue(slot, isGhost ? mainQueue : smallQueue)
  }

  /** Forgets all blocks of one table. */
  dropTable(home: BlockHome): void {
    for (let i = 0; i < home.length; i++) {
      const slot = home[i]
      if (slot > 0) this.remove(slot)
      home[i] = 0
    }
  }

  /** As many ghosts as there are blocks in the cache are still remembered. */
  private isGhost(stamp: number): boolean {
    if (stamp === 0) return false
    const age = (this.evictions + stamp + stampLimit) % stampLimit
    return age < this.count
  }

  private evictOne(): void {
    const small = this.newer[smallQueue]
    if (small !== smallQueue && this.smallBytes > this.budgetBytes * smallPart) {
      this.leaveSmall(small)
      return
    }
    const main = this.newer[mainQueue]
    if (main === mainQueue) {
      this.leaveSmall(small)
      return
    }
    if (this.frequencies[main] > 0) {
      this.frequencies[main]--
      this.unlink(main)
      this.enqueue(main, mainQueue)
      return
    }
    this.remove(main)
  }

  /** The oldest block of the small queue moves to the main one, or goes and becomes a ghost. */
  private leaveSmall(slot: number): void {
    if (this.frequencies[slot] > 0) {
      this.frequencies[slot] = 0
      this.unlink(slot)
      this.enqueue(slot, mainQueue)
      return
    }
    const home = this.homes[slot] as BlockHome
    const index = this.indexes[slot]
    this.remove(slot)
    this.evictions = (this.evictions + 1) % stampLimit
    // A stamp of 0 would say "never seen".
    home[index] = -Math.max(1, this.evictions)
  }

  private remove(slot: number): void {
    this.unlink(slot)
    const home = this.homes[slot] as BlockHome
    home[this.indexes[slot]] = 0
    this.heldBytes -= this.costOf(slot)
    this.contents[slot] = undefined
    this.homes[slot] = undefined
    this.newer[slot] = this.free
    this.free = slot
    this.count--
  }

  private costOf(slot: number): number {
    return (this.contents[slot] as Uint8Array).length + overheadBytes
  }

  /** As the newest of a queue. `newer` of the queue itself is its oldest. */
  private enqueue(slot: number, queue: number): void {
    const newest = this.older[queue]
    this.older[slot] = newest
    this.newer[slot] = queue
    this.newer[newest] = slot
    this.older[queue] = slot
    this.queues[slot] = queue
    if (queue === smallQueue) this.smallBytes += this.costOf(slot)
  }

  private unlink(slot: number): void {
    this.newer[this.older[slot]] = this.newer[slot]
    this.older[this.newer[slot]] = this.older[slot]
    if (this.queues[slot] === smallQueue) this.smallBytes -= this.costOf(slot)
  }

  private takeSlot(): number {
    if (this.free !== 0) {
      const slot = this.free
      this.free = this.newer[slot]
      return slot
    }
    const slot = Math.max(firstSlot, this.contents.length)
    if (slot === this.indexes.length) this.grow()
    this.contents.push(undefined)
    this.homes.push(undefined)
    return slot
  }

  private grow(): void {
    const capacity = this.indexes.length * 2
    const indexes = new Uint32Array(capacity)
    const frequencies = new Uint8Array(capacity)
    const queues = new Uint8Array(capacity)
    const older = new Int32Array(capacity)
    const newer = new Int32Array(capacity)
    indexes.set(this.indexes)
    frequencies.set(this.frequencies)
    queues.set(this.queues)
    older.set(this.older)
    newer.set(this.newer)
    this.indexes = indexes
    this.frequencies = frequencies
    this.queues = queues
    this.older = older
    this.newer = newer
  }
}
