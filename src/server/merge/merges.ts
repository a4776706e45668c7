/**
 * Merges: a range, the *target*, takes in its right neighbour, the *source* (DESIGN section 3). Two groups with two logs become one, and at no moment may a key have
 * two owners, or none for good. So the outcome is decided in one log, the target's, and all else follows from it.
 *
 * The flow; each step but the first and third is an entry (entries.ts):
 *  1. Whoever orders it has put the replicas of both on the same nodes.
 *  2. **Freeze**, in the target's log: its members and bounds stay as they are from here on. Its index names the merge. It goes on to serve.
 *  3. The target's leader asks all nodes to have the source prepared.
 *  4. **Prepare**, in the source's log, if the source still is what the freeze has seen: from here on it changes nothing and serves nothing. Requests for it wait.
 *  5. Every replica of the source, learners too, says that it has applied that, hence holds all of it durably, and serves nothing either.
 *  6. **Commit**, in the target's log, stamped above all that the source has. Whoever applies it applies the source's log up to its preparation first, which the
 *     commit proves to be committed. Then the target has the source's keys, sessions and time, and the source is gone, in one step: data stays where it is, as both lie in
 *     one engine, and the change of both states is sealed in one memtable. The source's log is kept until that is flushed.
 *
 * Or, where a replica is silent, the leader changes, or the source is another by now:
 *  7. **Abort**, in the target's log. The first of commit and abort counts.
 *  8. **Fence**, in the source's log, on the word of a leader that has applied the abort: it goes on where it was. Its membersVersion rises, so that no late word prepares it.
 *  9. **Thaw**, in the target's log, once the source's leader has applied that.
 *
 * Why it is right:
 * - The source resumes only on a committed abort, and is taken in only by a committed commit: never both, as both are entries of one log, and the first one counts.
 * - Between freeze and thaw or commit neither group changes its members, so every node that has a replica of the one has a replica of the other: what a node must
 *   know of the other range it finds at home, and both groups have a quorum, or neither.
 * - No read of any kind is served by the source once a commit is proposed: each replica has applied the preparation before, and one that has forgotten that in a crash
 *   has it in its log, where a new leader must commit it before it answers.
 * - A replica of the target that gets a snapshot from after the commit buries the source's in the same barrier; the state lists what it has taken in (`Absorbed`)
 *   until all members have dealt with it (**settle**). A node that was removed from the target before it had is told by the graves of the others (rangeLife.ts).
 *
 * Left out: merging with a left neighbour as the one that gives its id up, and moving replicas together, which is the control plane's.
 *
 * Sources: TiKV and CockroachDB, for what went wrong there (RELIABILITY pitfall 39).
 */
import { assert } from "../../lib/assert.ts"
import { entryKinds } from "../../raft/message.ts"
import type {
  LogIndex,
  MonotonicMs,
  NodeId,
  RangeId,
  ReplicaId,
  Term,
  Version,
  WallMs,
} from "../../types.ts"
import type { AppliedEntry, RangeMachine } from "../apply.ts"
import { tellLost } from "../holeFilling.ts"
import type { PeerMessage } from "../peerMessage.ts"
import type { Replica } from "../replica.ts"
import { decodeMergeStep, type MergeStep, type SourceStep } from "./entries.ts"
import type { MergeMessage } from "./messages.ts"
import { absorbedMax, fits, isAt, isPreparedFor, type TargetState } from "./state.ts"

/** What this room needs of the loop. */
export interface MergeHost {
  readonly node: NodeId
  readonly replicas: ReadonlyMap<RangeId, Replica>
  /** In the order of a turn. */
  readonly awake: ReadonlyArray<Replica>
  readonly settings: MergeSettings
  readonly clock: { readonly monotonicMs: MonotonicMs }
  readonly stampMs: WallMs
  send(to: NodeId, message: PeerMessage): void
  rouse(replica: Replica): void
  /** It misses entries that it cannot hope for any more. */
  isHopeless(replica: Replica): boolean
  /** The source serves again what has waited. */
  resume(replica: Replica): void
}

export interface MergeSettings {
  /** Questions are repeated after so long. */
  readonly mergeAskMs: number
  /** A replica of the source that says nothing for so long ends a merge, and so does one that takes so much longer altogether. */
  readonly mergeSilenceMs: number
  readonly mergeMs: number
}

interface Confirmation {
  readonly index: LogIndex
  readonly term: Term
  readonly rangeTime: Version
}

/** What the leader of a frozen target knows of the source. */
interface Attempt {
  readonly merge: LogIndex
  readonly term: Term
  readonly sinceMs: MonotonicMs
  readonly heardAtMs: Map<ReplicaId, MonotonicMs>
  readonly confirmed: Map<ReplicaId, Confirmation>
  /** The source's leader has said that it never will be prepared. */
  isRefused: boolean
}

const settleAskMs = 1000
const lostAgainMs = 1000

export class Merges {
  private readonly host: MergeHost
  private readonly attempts = new Map<RangeId, Attempt>()
  /** By source: who wants to hear of it. */
  private readonly askers = new Map<RangeId, NodeId>()
  /** By range: how far its replicas have applied, for those that have absorbed others. */
  private readonly progress = new Map<RangeId, Map<ReplicaId, LogIndex>>()
  private readonly askedAtMs = new Map<RangeId, MonotonicMs>()
  /** From this node to itself. */
  private readonly own: Array<MergeMessage> = []
  private readonly lostAtMs = new WeakMap<Replica, MonotonicMs>()

  constructor(host: MergeHost) {
    this.host = host
  }

  /** The range takes part in a merge, or in what is left of one. */
  isUnderWay({ machine }: Replica): boolean {
    return machine.merge !== undefined || machine.absorbed.length > 0
  }

  /** Call once a turn. */
  advance(): void {
    this.hearOwn()
    this.advanceAll()
    this.hearOwn()
  }

  /** Something was said in this turn that this node is to hear in the next. */
  get hasMore(): boolean {
    return this.own.length > 0
  }

  private send(to: NodeId, message: MergeMessage): void {
    if (to === this.host.node) this.own.push(message)
    else this.host.send(to, message)
  }

  private hearOwn(): void {
    for (let message = this.own.shift(); message !== undefined; message = this.own.shift()) {
      this.received(this.host.node, message)
    }
  }

  private advanceAll(): void {
    for (const replica of this.host.awake) {
      const { merge, absorbed } = replica.machine
      if (merge === undefined && absorbed.length === 0) continue
      if (!replica.leadsNoticed) continue
      if (merge?._tag === "Target") this.lead(replica, merge)
      if (absorbed.length > 0) this.settle(replica)
    }
  }

  // ---- The target's leader

  private lead(replica: Replica, merge: TargetState): void {
    if (replica.mergeIndex > replica.machine.appliedIndex) return
    if (merge.phase === "aborted") return this.ask(replica, merge, "fence")
    const attempt = this.attempts.get(replica.range)
    if (attempt?.merge !== merge.merge || attempt.term !== replica.raft.term) {
      // Begun by another leader: what it has heard is not known here.
      return this.propose(replica, { _tag: "Abort", merge: merge.merge })
    }
    if (this.isConfirmed(attempt, merge)) return this.commit(replica, merge, attempt)
    if (this.isTooLate(attempt, merge)) {
      return this.propose(replica, { _tag: "Abort", merge: merge.merge })
    }
    this.ask(replica, merge, "prepare")
  }

  private isTooLate(attempt: Attempt, { source }: TargetState): boolean {
    const { settings, clock } = this.host
    const nowMs = clock.monotonicMs
    if (attempt.isRefused || nowMs - attempt.sinceMs >= settings.mergeMs) return true
    return source.replicas.some(({ replica }) => {
      const heardAtMs = attempt.heardAtMs.get(replica) ?? attempt.sinceMs
      return nowMs - heardAtMs >= settings.mergeSilenceMs
    })
  }

  /** By all, not by a quorum: one that lacks the preparation would serve, and could never be taken in. One word of each is for ever, unless an abort comes first. */
  private isConfirmed({ confirmed }: Attempt, { source }: TargetState): boolean {
    return source.replicas.every(({ replica }) => confirmed.has(replica))
  }

  private commit(replica: Replica, { merge }: TargetState, attempt: Attempt): void {
    const confirmed = [...attempt.confirmed.values()]
    const { index, term } = confirmed[0] as Confirmation
    assert(
      confirmed.every((each) => each.index === index && each.term === term),
      () => `the source of range ${replica.range} was prepared once`,
    )
    const above = Math.max(...confirmed.map(({ rangeTime }) => rangeTime))
    this.propose(replica, { _tag: "Commit", merge, index, term }, above)
  }

  private ask(replica: Replica, merge: TargetState, kind: "prepare" | "fence"): void {
    const { source } = merge
    const nowMs = this.host.clock.monotonicMs
    const askedAtMs = this.askedAtMs.get(replica.range) ?? Number.NEGATIVE_INFINITY
    if (nowMs - askedAtMs < this.host.settings.mergeAskMs) return
    this.askedAtMs.set(replica.range, nowMs)
    const { boundsVersion, membersVersion, id } = source
    const question = {
      ...blank(replica, merge.merge, id),
      ...{ kind, range: id, boundsVersion, membersVersion },
    }
    for (const { node } of source.replicas) this.send(node, question)
  }

  /** What the core does not take is proposed again in a later turn. */
  private propose(replica: Replica, step: MergeStep, above: Version = 0): void {
    replica.proposeMerge(this.host.stampMs, step, above)
  }

  // ---- After an entry was applied

  /** A step of a merge was applied by this replica. */
  applied(replica: Replica, entry: AppliedEntry): void {
    const { machine } = replica
    if (entry.kind !== entryKinds.merge || machine.changed !== "merge") return
    const step = decodeMergeStep(entry.data)
    switch (step._tag) {
      case "Freeze":
        if (replica.leadsNoticed && entry.term === replica.raft.term) this.begin(replica, entry)
        return
      case "Prepare":
        replica.raft.broadcastCommit()
        return this.tellPrepared(replica)
      case "Fence":
        replica.raft.broadcastCommit()
        this.tellFenced(replica, step)
        return this.host.resume(replica)
      case "Commit":
      case "Abort":
        this.attempts.delete(replica.range)
        this.askedAtMs.delete(replica.range)
        return replica.raft.broadcastCommit()
      case "Thaw":
      case "Settle":
        return
      default:
        step satisfies never
    }
  }

  private begin(replica: Replica, { index, term }: AppliedEntry): void {
    this.askedAtMs.delete(replica.range)
    this.attempts.set(replica.range, {
      merge: index,
      term,
      sinceMs: this.host.clock.monotonicMs,
      heardAtMs: new Map(),
      confirmed: new Map(),
      isRefused: false,
    })
  }

  /**
   * The range that an entry takes in, applied as far as that asks for; `undefined` when the entry takes none in; "waits" when it is not there yet. That it is
   * committed that far is proved by the entry.
   */
  sourceOf(replica: Replica, entry: AppliedEntry): RangeMachine | "waits" | undefined {
    const step = decodeMergeStep(entry.data)
    const { merge } = replica.machine
    if (step._tag !== "Commit" || !isAt(merge, step)) return undefined
    const source = this.host.replicas.get(merge.source.id)
    if (source === undefined || source.isEmpty) return this.lacks(replica)
    if (source.installing) return "waits"
    if (source.machine.appliedIndex >= step.index) {
      replica.lacksSource = false
      return source.machine
    }
    this.host.rouse(source)
    const isThere = source.raft.learnCommitted(step.index, step.term)
    // It had confirmed that entry: without damage it is there. Nobody gives back what is missing once it is taken in everywhere else.
    const isAlone = merge.source.replicas.every(
      ({ node }) => node === this.host.node || source.takenOn.has(node),
    )
    const isLost = !isThere && (source.log.missingCount === 0 || isAlone)
    const isHurt = source.damage !== undefined || this.host.isHopeless(source)
    // Or it waits for a source of its own.
    const lacksToo = source.lacksSource
    return isLost || isHurt || lacksToo ? this.lacks(replica) : "waits"
  }

  /** Damage has taken the source from this node alone: only another replica of the target can take the place of this one. */
  private lacks(replica: Replica): "waits" {
    replica.lacksSource = true
    const nowMs = this.host.clock.monotonicMs
    if (nowMs - (this.lostAtMs.get(replica) ?? Number.NEGATIVE_INFINITY) >= lostAgainMs) {
      this.lostAtMs.set(replica, nowMs)
      tellLost(replica, (to, message) => this.host.send(to, message))
    }
    return "waits"
  }

  // ---- Messages

  received(from: NodeId, message: MergeMessage): void {
    const replica = this.host.replicas.get(message.range)
    if (replica === undefined || replica.isEmpty) return
    this.host.rouse(replica)
    switch (message.kind) {
      case "prepare":
        return this.prepareAsked(replica, from, message)
      case "fence":
        return this.fenceAsked(replica, from, message)
      case "waiting":
      case "prepared":
        return this.heard(replica, message)
      case "fenced":
        return this.fenced(replica, message)
      case "asked":
        return this.send(from, {
          ...{ ...message, kind: "applied", replica: replica.machine.replica },
          ...{ index: replica.machine.appliedIndex },
        })
      case "applied":
        this.progress.get(replica.range)?.set(message.replica, message.index)
        return
      default:
        message.kind satisfies never
    }
  }

  private prepareAsked(replica: Replica, from: NodeId, message: MergeMessage): void {
    this.askers.set(replica.range, from)
    if (isPreparedFor(replica.machine.merge, message)) return this.tellPrepared(replica)
    const { target, merge, boundsVersion, membersVersion } = message
    const step = { _tag: "Prepare", target, merge, boundsVersion, membersVersion } as const
    const { machine } = replica
    if (replica.leadsNoticed && !replica.isUnsettled) {
      const isPossible =
        fits(machine.descriptor, step) &&
        machine.merge === undefined &&
        machine.absorbed.length < absorbedMax
      if (!isPossible) return this.answer(replica, message, "fenced")
      this.propose(replica, step)
    }
    this.answer(replica, message, "waiting")
  }

  private answer(replica: Replica, message: MergeMessage, kind: "waiting" | "fenced"): void {
    const to = this.askers.get(replica.range)
    const { target } = message
    const answer = { ...message, kind, range: target, replica: replica.machine.replica }
    if (to !== undefined) this.send(to, answer)
  }

  private tellPrepared({ machine, range }: Replica): void {
    const { merge, rangeTime, replica, descriptor } = machine
    const to = this.askers.get(range)
    if (to === undefined || merge?._tag !== "Source") return
    const { target, index, term } = merge
    const { boundsVersion, membersVersion } = descriptor
    this.send(to, {
      ...{ _tag: "Merge", kind: "prepared", range: target, source: range, target },
      ...{ merge: merge.merge, boundsVersion, membersVersion, replica, index, term, rangeTime },
    })
  }

  private heard(replica: Replica, message: MergeMessage): void {
    const attempt = this.attempts.get(replica.range)
    if (attempt?.merge !== message.merge) return
    attempt.heardAtMs.set(message.replica, this.host.clock.monotonicMs)
    if (message.kind !== "prepared") return
    const { index, term, rangeTime } = message
    attempt.confirmed.set(message.replica, { index, term, rangeTime })
  }

  /** The merge was aborted: whoever leads the source brings it back, or says that there is nothing to bring back. */
  private fenceAsked(replica: Replica, from: NodeId, message: MergeMessage): void {
    this.askers.set(replica.range, from)
    if (!replica.leadsNoticed || replica.isUnsettled) return
    const { target, merge, boundsVersion, membersVersion } = message
    const step = { _tag: "Fence", target, merge, boundsVersion, membersVersion } as const
    if (fits(replica.machine.descriptor, step)) this.propose(replica, step)
    else this.answer(replica, message, "fenced")
  }

  private tellFenced(replica: Replica, { target, merge }: SourceStep): void {
    const to = this.askers.get(replica.range)
    if (to === undefined || !replica.leadsNoticed) return
    const { boundsVersion, membersVersion } = replica.machine.descriptor
    this.send(to, {
      ...{ _tag: "Merge", kind: "fenced", range: target, source: replica.range, target, merge },
      ...{ boundsVersion, membersVersion, replica: replica.machine.replica },
      ...{ index: 0, term: 0, rangeTime: 0 },
    })
  }

  private fenced(replica: Replica, message: MergeMessage): void {
    const { merge } = replica.machine
    if (merge?._tag !== "Target" || merge.merge !== message.merge || !replica.leadsNoticed) return
    if (merge.phase === "frozen") {
      const attempt = this.attempts.get(replica.range)
      if (attempt?.merge === merge.merge) attempt.isRefused = true
    } else if (replica.mergeIndex <= replica.machine.appliedIndex) {
      this.propose(replica, { _tag: "Thaw", merge: merge.merge })
    }
  }

  // ---- What is left of a merge

  /** Once every member has applied so far that no replica of what was taken in is left beside it, that need not be known any more. */
  private settle(replica: Replica): void {
    const { range, machine } = replica
    const { descriptor, absorbed } = machine
    if (replica.mergeIndex > machine.appliedIndex) return
    const progress = this.progress.get(range) ?? new Map<ReplicaId, LogIndex>()
    this.progress.set(range, progress)
    progress.set(machine.replica, machine.appliedIndex)
    const least = Math.min(...descriptor.replicas.map((place) => progress.get(place.replica) ?? 0))
    const settled = absorbed.filter(({ since }) => since <= least)
    if (settled.length > 0) {
      const index = Math.max(...settled.map(({ since }) => since))
      this.propose(replica, { _tag: "Settle", index })
      return
    }
    const nowMs = this.host.clock.monotonicMs
    const askedAtMs = this.askedAtMs.get(range) ?? Number.NEGATIVE_INFINITY
    if (machine.merge !== undefined || nowMs - askedAtMs < settleAskMs) return
    this.askedAtMs.set(range, nowMs)
    for (const { node } of descriptor.replicas) {
      this.send(node, { ...blank(replica, 0, 0), kind: "asked" })
    }
  }

  /** The replica goes away. */
  abandon({ range }: Replica): void {
    this.attempts.delete(range)
    this.askers.delete(range)
    this.progress.delete(range)
    this.askedAtMs.delete(range)
  }
}

/** A message for the target. */
function blank(target: Replica, merge: LogIndex, source: RangeId): Omit<MergeMessage, "kind"> {
  const { range } = target
  const versions = { boundsVersion: 0, membersVersion: 0 }
  const nothing = { replica: 0, index: 0, term: 0, rangeTime: 0 }
  return { _tag: "Merge", range, source, target: range, merge, ...versions, ...nothing }
}
