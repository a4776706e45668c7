import { assert } from "../lib/assert.ts"
import type { Version } from "../types.ts"

/**
 * The client's half of "exactly once" (DESIGN section 3): every mutation carries (clientId, sequence, ackedBelow, expiresAt), chosen once
 * and sent again unchanged. A range keeps a result until `ackedBelow` passes it, so a call that stays open for long in one
 * range would hold back the results of all others: the client has one session per range.
 */
export class Session {
  /** Random, 53 bits, never 0. */
  readonly clientId: number
  private nextSequence = 1
  private lowest = 1
  /** Settled ones above `lowest`. */
  private readonly settled = new Set<number>()

  constructor(clientId: number) {
    assert(Number.isSafeInteger(clientId) && clientId > 0, `client id ${clientId}`)
    this.clientId = clientId
  }

  /** A sequence for a new mutation, and every sequence below `ackedBelow` settled. */
  begin(): { readonly sequence: number; readonly ackedBelow: number } {
    const sequence = this.nextSequence++
    return { sequence, ackedBelow: this.lowest }
  }

  /** The call of this sequence has ended, however it did: nothing will be sent for it again. */
  settle(sequence: number): void {
    assert(
      sequence >= this.lowest && sequence < this.nextSequence && !this.settled.has(sequence),
      () => `sequence ${sequence} is outstanding`,
    )
    this.settled.add(sequence)
    while (this.settled.delete(this.lowest)) this.lowest++
  }

  /** How many sequences a range may hold results for. */
  get window(): number {
    return this.nextSequence - this.lowest
  }
}

/** A new session is begun past this, far below the 65,536 results that a range keeps. */
export const sessionWindowMax = 16_384

/** Slack for clocks that differ, in milliseconds. */
const expirySlackMs = 10_000

/** When a command made now stops being acceptable: at most 120 s after the range's time. `rangeTime` is the time estimated now. */
export function expiresAt(rangeTime: Version, deadlineMs: number): Version {
  return rangeTime + Math.ceil(Math.min(deadlineMs + expirySlackMs, 120_000)) * 1000
}
