import type { Membership } from "../../src/raft/membership.ts"
import type { HeartbeatResponse } from "../../src/raft/message.ts"
import type { RangeId, ReplicaId, Term } from "../../src/types.ts"

/** The last word of a replica to the leader of one term. */
interface Echo {
  at: number
  /** The latest round that it has followed; 0 = none. */
  round: number
}

const termLimit = 2 ** 32

/**
 * Who has told whom that it follows: what a leader's right to speak rests on. A replica that answers a heartbeat of a term is in that term at that moment, so a
 * majority that has done so since a moment shows that nobody was elected before it.
 */
export class Echoes {
  /** By range; then by term and replica. */
  private readonly ranges = new Map<RangeId, Map<number, Echo>>()

  said(range: RangeId, { from, term, round }: HeartbeatResponse, now: number): void {
    let echoes = this.ranges.get(range)
    if (echoes === undefined) {
      echoes = new Map()
      this.ranges.set(range, echoes)
    }
    const echo = echoes.get(term * termLimit + from)
    if (echo === undefined) echoes.set(term * termLimit + from, { at: now, round })
    else {
      echo.at = now
      echo.round = Math.max(echo.round, round)
    }
  }

  /** The latest round of that term that the replica has followed; 0 = none. */
  roundOf(range: RangeId, term: Term, replica: ReplicaId): number {
    return this.ranges.get(range)?.get(term * termLimit + replica)?.round ?? 0
  }

  /** Whether a majority of each deciding set, the leader with it, has followed it since that time. */
  isFollowed(
    range: RangeId,
    { term, leader }: { readonly term: Term; readonly leader: ReplicaId },
    { voters, outgoing }: Membership,
    since: number,
  ): boolean {
    const echoes = this.ranges.get(range)
    const follows = (voter: ReplicaId) =>
      voter === leader || (echoes?.get(term * termLimit + voter)?.at ?? -1) >= since
    return [voters, outgoing].every(
      (set) => set.length === 0 || 2 * set.filter(follows).length > set.length,
    )
  }
}
