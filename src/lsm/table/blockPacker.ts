import { compress } from "./compression.ts"

/** After so many blocks in a row that compression did not make smaller, it is tried on few. */
const futileBlocks = 16
/** On one block in so many. */
const tryEvery = 8

/**
 * Compresses the blocks of one table. Trying is dear, and values that are random or compressed already fill whole tables: there it is tried now and then
 * only, until it pays again.
 */
export class BlockPacker {
  private readonly kind: number
  /** Tried and not paid, in a row. */
  private futile = 0
  private untried = 0

  constructor(kind: number) {
    this.kind = kind
  }

  /** `undefined`: the block is stored as it is. */
  pack(content: Uint8Array): Uint8Array | undefined {
    if (this.futile >= futileBlocks && ++this.untried < tryEvery) return undefined
    this.untried = 0
    const packed = compress(this.kind, content)
    this.futile = packed === undefined ? this.futile + 1 : 0
    return packed
  }
}
