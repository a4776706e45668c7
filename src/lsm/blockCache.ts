/**
 * Verified blocks of tables, within a byte budget; eviction is CLOCK (Corbato, 1968): a hand goes
 * round, clears the mark of what was used since it last came by and evicts what was not. Each table
 * finds its blocks by index, so a hit hashes nothing.
 *
 * A block is never written to again and its memory is never reused: a view of it stays right for
 * ever, evicted or not.
 */
import { assert } from "../lib/assert.ts"

export interface CachedBlock {
  readonly content: Uint8Array
  readonly home: Array<CachedBlock | undefined>
  readonly blockIndex: number
  /** Place in the clock. */
  position: number
  used: boolean
}

/** Bytes of bookkeeping that a block costs besides its content. */
const overheadBytes = 128

export class BlockCache {
  readonly budgetBytes: number
  hits = 0
  misses = 0
  private readonly clock: Array<CachedBlock> = []
  private hand = 0
  private heldBytes = 0

  constructor(budgetBytes: number) {
    this.budgetBytes = budgetBytes
  }

  get sizeBytes(): number {
    return this.heldBytes
  }

  /** Keeps a block for `home[blockIndex]`, unless it is larger than the whole budget. */
  insert(home: Array<CachedBlock | undefined>, blockIndex: number, content: Uint8Array): void {
    assert(home[blockIndex] === undefined, "a block is cached once")
    const costBytes = content.length + overheadBytes
    if (costBytes > this.budgetBytes) return
    while (this.heldBytes + costBytes > this.budgetBytes) this.evictOne()
    const block: CachedBlock = {
      content,
      home,
      blockIndex,
      position: this.clock.length,
      used: true,
    }
    this.clock.push(block)
    home[blockIndex] = block
    this.heldBytes += costBytes
  }

  /** Forgets all blocks of one table. */
  dropTable(home: Array<CachedBlock | undefined>): void {
    for (const block of home) if (block !== undefined) this.remove(block)
  }

  private evictOne(): void {
    for (;;) {
      if (this.hand >= this.clock.length) this.hand = 0
      const block = this.clock[this.hand]
      if (!block.used) {
        this.remove(block)
        return
      }
      block.used = false
      this.hand++
    }
  }

  private remove(block: CachedBlock): void {
    block.home[block.blockIndex] = undefined
    this.heldBytes -= block.content.length + overheadBytes
    const last = this.clock.pop() as CachedBlock
    if (last !== block) {
      this.clock[block.position] = last
      last.position = block.position
    }
  }
}
