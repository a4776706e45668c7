import type { NodeId } from "../types.ts"
import { replicasMax } from "./member.ts"

/**
 * Where a slot stands in a ring change. `owned`: its owners are the only ones. `pending`: new owners take writes and are being filled. `filled`: they
 * hold all of it.
 */
export type SlotState = "owned" | "pending" | "filled"

/**
 * The owners of one slot for one number of copies, and what they have to say for a level to be met: a view for a coordinator, filled by
 * `Ring.owners` again and again, so that a request allocates nothing.
 *
 * A request numbers the owners by their place in `nodes`, old owners first in order of preference, and collects who answered as bits: owner i has
 * bit 1 << i. While a slot changes, both sets of owners have to agree, as both majorities do in joint consensus (Raft paper 6).
 */
export class SlotOwners {
  readonly nodes: Uint32Array = new Uint32Array(2 * replicasMax)
  count = 0
  /** Bits of those that own the slot now, and of those that will. The same, unless the slot is changing. */
  oldMask = 0
  newMask = 0
  state: SlotState = "owned"

  /** Who is sent a write: all of them. */
  get writeMask(): number {
    return this.oldMask | this.newMask
  }

  /** Whose answers to a read count. A new owner that is not filled yet knows too little. */
  get readMask(): number {
    return this.state === "filled" ? this.oldMask | this.newMask : this.oldMask
  }

  /**
   * Whether a write is at its level: `copies` of the old owners hold it, and as many of the new ones, whichever of the two sets is asked later. Any
   * `copies` owners are enough that are in both sets; with one more for each that is in one set only, any will do (DESIGN section 4 asks for
   * that number).
   */
  writeMet(answered: number, copies: number): boolean {
    return bits(answered & this.oldMask) >= copies && bits(answered & this.newMask) >= copies
  }

  /** Whether a read is at its level. Of a filled slot both sets are asked: see `ringChange.ts`. */
  readMet(answered: number, copies: number): boolean {
    if (bits(answered & this.oldMask) < copies) return false
    return this.state !== "filled" || bits(answered & this.newMask) >= copies
  }

  /**
   * The same for a quorum of the owners among `within`, those of one zone: more than half of the old ones there, and of the new ones. Where there are none it cannot be met.
   */
  writeMetWithin(answered: number, within: number): boolean {
    return (
      isMajority(answered, this.oldMask & within) && isMajority(answered, this.newMask & within)
    )
  }

  readMetWithin(answered: number, within: number): boolean {
    if (!isMajority(answered, this.oldMask & within)) return false
    return this.state !== "filled" || isMajority(answered, this.newMask & within)
  }

  /** The place of a node in `nodes`, or -1. */
  indexOf(node: NodeId): number {
    for (let i = 0; i < this.count; i++) if (this.nodes[i] === node) return i
    return -1
  }
}

function isMajority(answered: number, owners: number): boolean {
  return 2 * bits(answered & owners) > bits(owners)
}

/** Bits set in a number of at most 16. */
function bits(mask: number): number {
  let left = mask
  let count = 0
  while (left !== 0) {
    left &= left - 1
    count++
  }
  return count
}
