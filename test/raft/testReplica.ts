import { assert } from "../../src/lib/assert.ts"
import { describeReady, describeRole } from "../../src/raft/describe.ts"
import { leftJoint, type Membership, noMembership } from "../../src/raft/membership.ts"
import type { Entry, HardState, Message } from "../../src/raft/message.ts"
import type { RaftNode } from "../../src/raft/raftNode.ts"
import type { ConfirmedRead, Ready } from "../../src/raft/ready.ts"
import { type TestCluster, tickMs } from "./cluster.ts"
import { isMember, lastMembership, membersData } from "./members.ts"
import { MemoryLog } from "./memoryLog.ts"

/**
 * One replica with a disk that loses what is not yet durable, and a state machine that is a list.
 */
export class TestReplica {
  readonly id: number
  private readonly cluster: TestCluster
  node: RaftNode
  up = true
  nowMs = 0
  /** How fast its clocks run. */
  clockRate = 1
  private tickedMs = 0
  /** Its monotonic clock stands still for so long from now. */
  sleepMs = 0
  /** How far its wall clock is ahead of its monotonic one. */
  wallAheadMs = 0
  /** What a crash leaves. */
  durableLog = new MemoryLog()
  durableState: HardState = { term: 0, vote: 0, commit: 0 }
  /** What the core reads: written at once, or only when durable. */
  visibleLog: MemoryLog
  writesVisibleAtOnce = false
  /** Writes wait for `persist`. */
  holdsWrites = false
  private pending: Array<Ready> = []
  /** Applied entries from 1, and as far as a crash finds them applied. */
  applied: Array<Entry> = []
  reads: Array<ConfirmedRead> = []
  readsLost: Array<number> = []
  wanted: Array<number> = []
  /** What it knew of the group before it applied anything, or by a snapshot. */
  baseMembership: Membership

  constructor(cluster: TestCluster, id: number) {
    this.cluster = cluster
    this.id = id
    this.baseMembership = isMember(cluster.initial, id) ? cluster.initial : noMembership
    this.visibleLog = this.durableLog.clone()
    this.node = this.start()
  }

  private start(): RaftNode {
    return new this.cluster.Node({
      ...this.cluster.settings,
      id: this.id,
      membership: lastMembership(this.applied) ?? this.baseMembership,
      storage: this.visibleLog,
      hardState: this.durableState,
      appliedIndex: this.applied.length,
      prng: this.cluster.prng.fork(),
      nowMs: this.nowMs,
    })
  }

  /** Time passes, with the ticks that fall into it; while it sleeps only its wall clock shows that. */
  passTime(durationMs: number): void {
    const asleepMs = Math.min(this.sleepMs, durationMs)
    this.sleepMs -= asleepMs
    this.wallAheadMs += asleepMs * this.clockRate
    this.nowMs += (durationMs - asleepMs) * this.clockRate
    if (this.nowMs - this.tickedMs < tickMs) return
    this.tickedMs = this.nowMs
    this.tick()
  }

  tick(): void {
    if (!this.up) return
    this.changing(() => this.node.tick(this.nowMs))
    this.settle()
  }

  get wallMs(): number {
    return this.nowMs + this.wallAheadMs
  }

  get holdsLease(): boolean {
    return this.up && this.node.leaseHolds(this.nowMs, this.wallMs)
  }

  get pendingWrites(): number {
    return this.pending.length
  }

  /**
   * Everything not durable is gone; of what was applied, the log prefix up to `keepApplied` is
   * kept.
   */
  crash(keepApplied = this.applied.length): void {
    assert(keepApplied >= this.durableLog.firstIndex - 1, "the state machine lost a snapshot")
    this.up = false
    this.pending = []
    this.applied.length = Math.min(this.applied.length, keepApplied)
    this.visibleLog = this.durableLog.clone()
  }

  restart(): void {
    this.up = true
    this.node = this.start()
  }

  /** Carries out what the core asks for, until it asks for nothing more. */
  settle(): void {
    while (this.up && this.node.hasReady()) this.take(this.node.ready())
  }

  private take(ready: Ready): void {
    for (const line of describeReady(this.id, ready)) this.cluster.trace(line)
    for (const message of ready.messages) this.cluster.send(message)
    if (this.writesVisibleAtOnce) this.visibleLog.append(ready.entries)
    const writes = ready.hardState !== undefined || ready.entries.length > 0
    if (writes || ready.messagesAfterPersist.length > 0) this.pending.push(ready)
    if (!this.holdsWrites) while (this.persist()) {}
    for (const entry of ready.committed) this.apply(entry)
    if (ready.committed.length > 0) this.node.applied(this.applied.length)
    this.reads.push(...ready.reads)
    this.readsLost.push(...ready.readsLost)
    this.wanted.push(...ready.snapshotsWanted)
    if (ready.leaveJointDue && this.leavesJoint) this.leaveJoint()
    if (ready.snapshot !== undefined) this.cluster.install(this, ready.snapshot)
  }

  /** False: a script leaves joint by hand, or never. */
  leavesJoint = true

  leaveJoint(): ReturnType<RaftNode["proposeMembership"]> {
    const next = leftJoint(this.node.membership)
    return this.node.proposeMembership(next, membersData(next))
  }

  private apply(entry: Entry): void {
    assert(entry.index === this.applied.length + 1, `${entry.index} applied out of order`)
    assert(this.durableLog.term(entry.index) === entry.term, `${entry.index} applied, not durable`)
    this.applied.push(entry)
    this.cluster.everApplied[entry.index - 1] = entry
    this.cluster.onApply(this, entry)
  }

  /** The oldest write becomes durable; false when there is none. */
  persist(): boolean {
    const write = this.pending.shift()
    if (write === undefined) return false
    const { hardState, entries, messagesAfterPersist } = write
    if (hardState !== undefined) this.durableState = hardState
    this.durableLog.append(entries)
    if (!this.writesVisibleAtOnce) this.visibleLog.append(entries)
    const last = entries.at(-1)
    if (last !== undefined) this.node.persisted(last.index, last.term)
    for (const message of messagesAfterPersist) {
      if (message.to === this.id) this.stepTraced(message)
      else this.cluster.send(message)
    }
    return true
  }

  stepTraced(message: Message): void {
    this.changing(() => this.node.step(message, this.nowMs))
  }

  /** Runs an input, and traces the change of role that it makes. */
  changing(input: () => void): void {
    const before = describeRole(this.node)
    this.node.observeClocks(this.nowMs, this.wallMs)
    input()
    const after = describeRole(this.node)
    if (before !== after) this.cluster.trace(`${before} => ${after}`)
    this.cluster.onChange(this)
  }
}
