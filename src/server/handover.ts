import type { MonotonicMs } from "../types.ts"
import { type DiskLimits, DiskScore, type DiskVerdict } from "./diskScore.ts"
import type { Replica } from "./replica.ts"

/**
 * Lets the replicas of a node tick as its disk allows: on a bad one they hand over what they lead, each to the voter that has most of its log, and come
 * late to elections. A leader whose stored bytes are damaged hands over too. A transfer takes a round trip where an election takes its timeout; where it comes
 * to nothing, a leader on a disk that hangs steps down.
 */
export class Handover {
  private readonly score: DiskScore
  /** A turn that comes later than this counts as one that came so late: the disk is not to blame for the time that a node slept. */
  private readonly longestGapMs: number
  private readonly handedOver = new Set<Replica>()
  private lastTurnMs: MonotonicMs | undefined
  /** Runs like the monotonic clock, without the gaps. */
  private awakeMs = 0
  private ticks = 0

  constructor(limits: DiskLimits, tickMs: number) {
    this.score = new DiskScore(limits)
    this.longestGapMs = 2 * tickMs
  }

  /** A turn begins; whether a journal write is under way in it. */
  turn(nowMs: MonotonicMs, isWriting: boolean): void {
    this.awakeMs += Math.min(nowMs - (this.lastTurnMs ?? nowMs), this.longestGapMs)
    this.lastTurnMs = nowMs
    if (!isWriting) this.score.ended(this.awakeMs)
  }

  /** The turn has given out a journal write. */
  writeBegan(): void {
    this.score.began(this.awakeMs)
  }

  /** One tick of all replicas. `mustYield` names those that can't go on leading for another reason. */
  tick(
    replicas: ReadonlyArray<Replica>,
    nowMs: MonotonicMs,
    mustYield: (replica: Replica) => boolean,
  ): void {
    const verdict = this.score.verdict(this.awakeMs)
    this.ticks++
    if (verdict === "good") this.handedOver.clear()
    for (const replica of replicas) {
      if (mustYield(replica)) replica.raft.stepDown()
      else if (replica.isLeader) this.tickLeader(replica, verdict, nowMs)
      else if (verdict === "hangs") continue
      // Half as fast, so that a node whose disk is better is there first.
      else if (verdict === "good" || this.ticks % 2 === 0) replica.raft.tick(nowMs)
    }
  }

  private tickLeader(replica: Replica, verdict: DiskVerdict, nowMs: MonotonicMs): void {
    if (replica.metDamage) leaveDamaged(replica, nowMs)
    if (verdict === "slow" || verdict === "hangs") {
      const isFirst = !this.handedOver.has(replica)
      if (isFirst && handOver(replica, verdict)) this.handedOver.add(replica)
    }
    if (verdict === "hangs" && !replica.raft.transferring) replica.raft.stepDown()
    else replica.raft.tick(nowMs)
  }
}

/** Where every replica is damaged the lead must not be on its way for ever: what can be read is to be served. */
const damageMs = 60_000

/**
 * A leader whose stored bytes fail a read, or a snapshot for another, lets a replica lead that may be whole: else what it cannot read is refused for ever, and
 * no new replica is ever filled, though the others hold all of it.
 */
function leaveDamaged(replica: Replica, nowMs: MonotonicMs): void {
  replica.metDamage = false
  const { handedOverAtMs } = replica
  if (handedOverAtMs !== undefined && nowMs - handedOverAtMs < damageMs) return
  if (handOver(replica, "hangs")) replica.handedOverAtMs = nowMs
}

/**
 * Asks the voter that has most of the log to lead, of those that were heard lately. From a disk that is merely slow only to one that has made durable what
 * here is not yet: where all disks are as slow, nothing would be won, and an election on them may take long.
 */
function handOver({ raft, machine }: Replica, verdict: "slow" | "hangs"): boolean {
  const least = verdict === "slow" ? raft.durableIndex + 1 : 0
  const others = raft.progress().filter((peer) => peer.replica !== machine.replica)
  const heirs = others.filter(({ match }) => match >= least)
  heirs.sort((left, right) => right.match - left.match)
  return heirs.some(({ replica }) => raft.transferLeadership(replica))
}
