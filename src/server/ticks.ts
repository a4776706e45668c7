import type { NodeId, ReplicaId, Version, WallMs } from "../types.ts"
import type { PeerMessage } from "./peerMessage.ts"
import type { Replica } from "./replica.ts"
import type { ClockReading } from "./storeLoop.ts"
import type { TickRefused, TickWanted } from "./tickMessages.ts"
import { versionOfWall } from "./versionClock.ts"

/** What this room needs of the loop. */
export interface TickHost {
  readonly clock: ClockReading
  /** What ranges' times go by. */
  readonly stampMs: WallMs
  /** Drawn once in this node's life: answers to an earlier life of it are told by this. */
  readonly session: number
  send(to: NodeId, message: PeerMessage): void
}

/**
 * Whether a key has expired is for the log to say, since replicas agree in nothing else: a linearizable read that meets an expiry which the clock of its
 * node has passed, and range time has not, waits for an entry that moves range time, a *tick*. A leader proposes it; a follower asks its leader. Where the
 * leader's clock has come that far it proposes the tick and says nothing. Where it has not it says what its clock reads, and the keys whose expiry is later than that
 * are present for this read: so a follower's clock that runs ahead expires nothing. Either way the state that is read is one that the read's index has confirmed.
 *
 * A question or an answer may be lost, and the leader may change: it is asked again after a while, of whoever leads then.
 */
export class Ticks {
  private readonly host: TickHost
  /** Ticks that others wait for; when one is applied here they are told at once that it is committed. */
  private readonly wanted = new WeakSet<Replica>()

  constructor(host: TickHost) {
    this.host = host
  }

  /** Sees to it that reads which wait for range time get their answer: call once a turn where `reads.hasEarly`. */
  advance(replica: Replica): void {
    const { host } = this
    if (replica.isLeader) return replica.proposeTick(host.stampMs)
    const leader = replica.raft.leader
    const node = leader === undefined ? undefined : replica.nodeOf(leader)
    if (leader === undefined || node === undefined) return
    const { range, machine } = replica
    replica.reads.askForTick(host.clock.monotonicMs, (question, expiry) => {
      const ids = { range, from: machine.replica, to: leader as ReplicaId }
      host.send(node, { _tag: "TickWanted", ...ids, session: host.session, question, expiry })
    })
  }

  /** A follower asks. Whoever leads no more says nothing. */
  asked(replica: Replica, message: TickWanted, from: NodeId): void {
    if (!replica.leadsNoticed) return
    const { range, session, question, expiry } = message
    const clock: Version = versionOfWall(this.host.stampMs)
    if (expiry > clock && expiry > replica.machine.rangeTime) {
      const ids = { range, from: message.to, to: message.from }
      this.host.send(from, { _tag: "TickRefused", ...ids, session, question, clock })
      return
    }
    this.wanted.add(replica)
    if (expiry > replica.machine.rangeTime) replica.proposeTick(this.host.stampMs)
    else this.applied(replica)
  }

  answered(replica: Replica, { session, question, clock }: TickRefused): void {
    if (session === this.host.session) replica.reads.tickRefused(question, clock)
  }

  /** A tick was applied by this replica. */
  applied(replica: Replica): void {
    if (this.wanted.delete(replica)) replica.raft.broadcastCommit()
  }
}
