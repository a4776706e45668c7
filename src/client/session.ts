import { assert } from "../lib/assert.ts"
import type { Version } from "../types.ts"

/**
 * The client's half of "exactly once" (DESIGN section 3): every mutation carries (clientId, sequence, ackedBelow, expiresAt). All but `ackedBelow`, which
 * only grows, are chosen once and sent again unchanged. A range keeps a result until `ackedBelow` passes it, so a call that stays open for long in one range
 * would hold back the results of all others: each range has sessions of its own.
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

  /** What a copy of an outstanding mutation may say by now: a range that has no room for more results gets some by it. */
  get ackedBelow(): number {
    return this.lowest
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

/** Past this a session takes no more mutations for a while, far below the 65,536 results that a range keeps. */
export const sessionWindowMax = 16_384
/** Sessions of one range. With so many held back, the one with the smallest window goes on. */
export const sessionsMax = 8

/**
 * A client's sessions in one range: one, as long as none of its calls stays open while very many others end. A session that is held back gets company; when
 * the call has ended it is used in turns with the others, so that the range hears of it and forgets its results.
 */
export class RangeSessions {
  private readonly sessions: Array<Session> = []
  private next = 0

  /** The session for one more mutation. */
  take(draw: () => Session): Session {
    const { sessions } = this
    for (let i = 0; i < sessions.length; i++) {
      const place = (this.next + i) % sessions.length
      const session = sessions[place] as Session
      if (session.window >= sessionWindowMax) continue
      this.next = place + 1
      return session
    }
    if (sessions.length < sessionsMax) {
      const session = draw()
      sessions.push(session)
      return session
    }
    return sessions.reduce((best, each) => (each.window < best.window ? each : best))
  }
}

/** Slack for clocks that differ, in milliseconds. */
const expirySlackMs = 10_000

/** When a command made now stops being acceptable: at most 120 s after the range's time. `rangeTime` is the time estimated now. */
export function expiresAt(rangeTime: Version, deadlineMs: number): Version {
  return rangeTime + Math.ceil(Math.min(deadlineMs + expirySlackMs, 120_000)) * 1000
}
