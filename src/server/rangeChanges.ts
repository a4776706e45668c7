import { assert } from "../lib/assert.ts"
import { compareBytes } from "../lib/bytes.ts"
import { entryKinds } from "../raft/message.ts"
import type {
  LogIndex,
  MembersVersion,
  MonotonicMs,
  NodeId,
  Position,
  RangeDescriptor,
  RangeId,
  ReplicaId,
  ReplicaPlace,
  Term,
  WallMs,
} from "../types.ts"
import type { AppliedEntry } from "./apply.ts"
import { metaRange } from "./bootstrap.ts"
import { isBefore, isJoint, lists } from "./descriptors.ts"
import { dataEnd, dataKey, dataPrefixBytes } from "./engineKeys.ts"
import { leftPlaces, nextPlaces } from "./memberSteps.ts"
import { membershipOf } from "./membershipOf.ts"
import { freezeProblem } from "./merge/state.ts"
import { encodeClear, encodeMembersChange, encodeSplit } from "./rangeEntries.ts"
import {
  invalid,
  merging,
  moved,
  notLeader,
  notTaken,
  pending,
  refusalOfMembers,
  refusalOfMemory,
  refusalOfTransfer,
  unsafe,
} from "./rangeRefusals.ts"
import type { Replica } from "./replica.ts"
import type {
  ChangedReply,
  ChangeMembersRequest,
  ClearRequest,
  MergeRequest,
  RangeRequest,
  Receipt,
  Refusal,
  SplitRequest,
  TransferRequest,
} from "./requests.ts"
import type { StoreSettings } from "./settings.ts"
import type { Storage } from "./storage.ts"
import type { ClockReading } from "./storeLoop.ts"

/** What this room needs of the loop. */
export interface ChangeHost {
  readonly node: NodeId
  readonly storage: Storage
  readonly replicas: ReadonlyMap<RangeId, Replica>
  readonly descriptors: ReadonlyMap<RangeId, RangeDescriptor>
  readonly settings: StoreSettings
  readonly clock: ClockReading
  /** What entries are stamped by. */
  readonly stampMs: WallMs
  /** Something is wanted of the replica: it is awake from here on. */
  rouse(replica: Replica): void
  refuse(token: number, replica: Replica | undefined, refusal: Refusal): void
  answer(reply: ChangedReply): void
  /** A range without a replica here, as far as this node knows. */
  whereIs(range: RangeId): ReadonlyArray<RangeDescriptor>
  receiptOf(replica: Replica, entry: { readonly index: LogIndex; readonly term: Term }): Receipt
}

/** A request under way. One range has one at a time. */
interface Change {
  readonly request: RangeRequest
  readonly replica: Replica
  readonly deadlineMs: MonotonicMs
  /** That of the leader that took it: under another the outcome is not known here. */
  readonly term: Term
  /** Its entry proposed last; 0 = none was yet. */
  index: LogIndex
  /** Of a change of members: the version that it began with, then that of its own last entry. Under another it goes no further. */
  membersVersion: MembersVersion
  /** Of a transfer: who is to lead. */
  heir: ReplicaId | undefined
  /** Why it does not go on, if it does not. */
  obstacle: Refusal | undefined
}

/**
 * Requests that change a range itself. A leader turns each into entries, and answers when the last of them is applied: a split and a clear by one, a
 * change of members by as many as it takes (memberSteps.ts), with joint entered and left on the way, a merge by those of merge/merges.ts. A transfer is no entry at all.
 *
 * Versions are compared twice: here with the state applied, and again at apply, so that an entry proposed for a range that was another by then does nothing.
 * Whoever leads a joint group leaves joint, whether it knows of a request or not.
 */
export class RangeChanges {
  private readonly host: ChangeHost
  private readonly underWay = new Map<RangeId, Change>()

  constructor(host: ChangeHost) {
    this.host = host
  }

  isUnderWay(range: RangeId): boolean {
    return this.underWay.has(range)
  }

  begin(request: RangeRequest): void {
    const replica = this.host.replicas.get(request.range)
    if (replica !== undefined) this.host.rouse(replica)
    const refusal = this.refusalOf(request, replica)
    if (refusal !== undefined) return this.host.refuse(request.token, replica, refusal)
    const change: Change = {
      request,
      replica: replica as Replica,
      deadlineMs: this.host.clock.monotonicMs + request.deadlineMs,
      term: (replica as Replica).raft.term,
      index: 0,
      membersVersion: (replica as Replica).machine.descriptor.membersVersion,
      heir: undefined,
      obstacle: undefined,
    }
    this.underWay.set(request.range, change)
    this.start(change)
  }

  private refusalOf(request: RangeRequest, replica: Replica | undefined): Refusal | undefined {
    const { range } = request
    if (replica === undefined || replica.isEmpty) {
      return { _tag: "RangeMoved", descriptors: this.host.whereIs(range) }
    }
    if (!replica.leadsNoticed) return { _tag: "NotLeader", range, leader: replica.leaderNode }
    if (this.underWay.has(range)) return pending(`another change of range ${range} is under way`)
    const { descriptor } = replica.machine
    switch (request._tag) {
      case "Split":
        if (replica.machine.merge !== undefined || replica.isHeld) return merging(range)
        return this.refusalOfSplit(request, descriptor)
      case "Clear":
        if (range === metaRange) return invalid("the range of the system is never emptied")
        if (replica.isHeld) return merging(range)
        return request.boundsVersion === descriptor.boundsVersion ? undefined : moved(descriptor)
      case "Merge":
        return this.refusalOfMerge(request, replica)
      case "ChangeMembers":
        if (request.membersVersion !== descriptor.membersVersion) return moved(descriptor)
        if (replica.machine.merge !== undefined || replica.isHeld) return merging(range)
        return refusalOfMembers(replica, request)
      case "Transfer":
        return refusalOfTransfer(request, descriptor)
      default:
        return request satisfies never
    }
  }

  private refusalOfSplit(request: SplitRequest, descriptor: RangeDescriptor): Refusal | undefined {
    const { boundsVersion, at, child } = request
    if (boundsVersion !== descriptor.boundsVersion) return moved(descriptor)
    if (descriptor.id === metaRange) return invalid("the range of the system is never split")
    if (isJoint(descriptor.replicas)) return pending("its replicas are being changed")
    if (!(Number.isSafeInteger(child) && child > 0)) return invalid(`${child} is no range id`)
    if (this.host.descriptors.has(child)) return invalid(`there is a range ${child} already`)
    const { replicas, settings, node } = this.host
    const tooMany = refusalOfMemory(node, replicas.size, settings.replicaMemoryBytes)
    if (tooMany !== undefined) return tooMany
    if (at === undefined) return undefined
    const isInside = compareBytes(descriptor.start, at) < 0 && isBefore(at, descriptor.end)
    return isInside ? undefined : invalid("a range is split at a position inside it")
  }

  private refusalOfMerge({ boundsVersion, source }: MergeRequest, target: Replica) {
    const { machine } = target
    if (boundsVersion !== machine.descriptor.boundsVersion) return moved(machine.descriptor)
    const taken = this.host.replicas.get(source)
    if (taken === undefined || taken.isEmpty) {
      return invalid(
        `range ${source} has no replica on node ${this.host.node}, where range ${machine.descriptor.id} is led`,
      )
    }
    if (machine.merge !== undefined || target.isUnsettled) return merging(machine.descriptor.id)
    const problem = freezeProblem(machine.descriptor, taken.machine.descriptor, machine)
    return problem === undefined ? undefined : invalid(problem)
  }

  // ---- Proposing

  private start(change: Change): void {
    const { request } = change
    switch (request._tag) {
      case "Split":
        return this.startSplit(change, request)
      case "Clear":
        return this.startClear(change, request)
      case "Merge":
        return this.startMerge(change, request)
      case "ChangeMembers":
        return this.advanceMembers(change, request)
      case "Transfer":
        return this.startTransfer(change, request)
      default:
        return request satisfies never
    }
  }

  private startSplit(change: Change, { boundsVersion, child, at }: SplitRequest): void {
    const { replica } = change
    const { descriptor } = replica.machine
    const { membersVersion } = descriptor
    const middle = at ?? this.middleOf(descriptor)
    if (middle === undefined) {
      return this.refuse(change, invalid(`range ${descriptor.id} has no key to split at`))
    }
    const order = { boundsVersion, membersVersion, child, at: middle }
    this.propose(change, entryKinds.split, (base) => encodeSplit(base, order))
  }

  /** The position of a key that leaves about half of the data on either side. */
  private middleOf({ start, end }: RangeDescriptor): Position | undefined {
    const key = this.host.storage.engine.splitKey({ lower: dataKey(start), upper: dataEnd(end) })
    const position = key?.slice(dataPrefixBytes)
    if (position === undefined || compareBytes(position, start) <= 0) return undefined
    return isBefore(position, end) ? position : undefined
  }

  private startClear(change: Change, { boundsVersion }: ClearRequest): void {
    this.propose(change, entryKinds.clear, (base) => encodeClear(base, { boundsVersion }))
  }

  private startMerge(change: Change, { boundsVersion, source }: MergeRequest): void {
    const { replica } = change
    const taken = this.host.replicas.get(source) as Replica
    const { membersVersion } = replica.machine.descriptor
    const versions = { boundsVersion, membersVersion }
    const freeze = { _tag: "Freeze", ...versions, source: taken.machine.descriptor } as const
    const index = replica.proposeMerge(this.host.stampMs, freeze)
    if (index === undefined) this.refuse(change, notTaken(replica, "overloaded"))
    else change.index = index
  }

  private propose(
    change: Change,
    kind: typeof entryKinds.split | typeof entryKinds.clear,
    make: (base: number) => Uint8Array,
  ): void {
    const { replica } = change
    const { stampMs } = this.host
    const index = replica.proposeEntry(stampMs, make, (data) => replica.raft.propose(data, kind))
    if (typeof index === "number") change.index = index
    else this.refuse(change, notTaken(replica, index))
  }

  private startTransfer(change: Change, { to }: TransferRequest): void {
    const { replica } = change
    const place = replica.machine.descriptor.replicas.find(({ node }) => node === to)
    if (place?.replica === replica.machine.replica) return this.done(change)
    change.heir = place?.replica
    if (place === undefined || !replica.raft.transferLeadership(place.replica)) {
      this.refuse(change, invalid(`the voter on node ${to} was not heard of lately`))
    }
  }

  // ---- Members

  /** Proposes the next step, if it is time for one. */
  private advanceMembers(change: Change, request: ChangeMembersRequest): void {
    const { replica } = change
    const { descriptor } = replica.machine
    const { replicas } = descriptor
    if (replica.isUnsettled) return
    if (replica.machine.merge !== undefined || replica.isHeld) {
      change.obstacle = merging(replica.range)
      return
    }
    // Another change came between: what this one was reckoned from is no more.
    if (descriptor.membersVersion !== change.membersVersion) {
      return this.refuse(change, moved(descriptor))
    }
    const next = nextPlaces(replicas, request.replicas)
    if (next === undefined) {
      if (!isJoint(replicas)) this.done(change)
      return
    }
    const answer = this.proposePlaces(replica, next)
    if (typeof answer === "number") {
      change.index = answer
      change.membersVersion++
      change.obstacle = undefined
    } else {
      change.obstacle = answer === "unsafe" ? unsafe(replica.range) : notTaken(replica, answer)
    }
  }

  private proposePlaces(replica: Replica, replicas: ReadonlyArray<ReplicaPlace>) {
    const { raft, machine } = replica
    const { descriptor, lastReplica } = machine
    for (const place of replicas) {
      const isKnown = lists(descriptor, place.replica)
      assert(isKnown || place.replica > lastReplica, () => `replica ${place.replica} is gone`)
    }
    const membership = membershipOf(replicas)
    const membersVersion = descriptor.membersVersion + 1
    const answer = replica.proposeEntry(
      this.host.stampMs,
      (base) => encodeMembersChange(base, membership, { membersVersion, replicas }),
      (data) => raft.proposeMembership(membership, data),
    )
    if (typeof answer === "number") replica.learnPlaces(replicas)
    return answer
  }

  /** The core says that its joint group may go on. */
  leaveJoint(replica: Replica): void {
    const { replicas } = replica.machine.descriptor
    // Without an answer the core asks again.
    const isUnapplied = replica.raft.membershipIndex > replica.machine.appliedIndex
    if (!replica.leadsNoticed || !isJoint(replicas) || isUnapplied) return
    const index = this.proposePlaces(replica, leftPlaces(replicas))
    const change = this.underWay.get(replica.range)
    // With it the change is through, even if it makes this leader step down.
    if (typeof index !== "number" || change?.request._tag !== "ChangeMembers") return
    change.index = index
    change.membersVersion++
  }

  // ---- Ends

  /** An entry was applied by this replica. */
  applied(replica: Replica, entry: AppliedEntry): void {
    const change = this.underWay.get(replica.range)
    if (change === undefined || change.replica !== replica) return
    const { changed, descriptor } = replica.machine
    const isMine = change.index === entry.index
    if (isMine && entry.term !== change.term) {
      return this.refuse(change, notLeader(replica))
    }
    if (change.request._tag === "ChangeMembers") {
      const isThere = nextPlaces(descriptor.replicas, change.request.replicas) === undefined
      if (changed === "members" && isThere && !isJoint(descriptor.replicas)) this.done(change)
    } else if (change.request._tag === "Merge") {
      this.mergeApplied(change, isMine)
    } else if (isMine) {
      if (changed === "refused") this.refuse(change, moved(descriptor))
      else this.done(change)
    }
  }

  /** It is frozen by this entry, or was before: then the outcome is in a later one. */
  private mergeApplied(change: Change, isMine: boolean): void {
    const { machine } = change.replica
    if (isMine && machine.changed === "refused")
      return this.refuse(change, moved(machine.descriptor))
    if (isMine || change.index === 0 || machine.appliedIndex < change.index) return
    if (machine.taken !== undefined) return this.done(change)
    const isOver = machine.merge?._tag !== "Target" || machine.merge.phase === "aborted"
    if (!isOver) return
    const { source } = change.request as MergeRequest
    const what = `range ${source} could not be taken in now: a replica of it did not answer in time, or it is being changed`
    this.refuse(change, pending(what))
  }

  /** Call once a turn. */
  advance(): void {
    for (const change of this.underWay.values()) {
      const { replica, request } = change
      const leads = replica.leadsNoticed && replica.raft.term === change.term
      if (request._tag === "Transfer") this.advanceTransfer(change)
      else if (!leads) this.hasLost(change)
      else if (request._tag === "ChangeMembers" && change.index <= replica.machine.appliedIndex) {
        this.advanceMembers(change, request)
      }
    }
  }

  private advanceTransfer(change: Change): void {
    const { replica, heir } = change
    const { raft } = replica
    if (raft.role === "leader") {
      if (raft.term === change.term && raft.transferee === undefined) {
        this.refuse(change, invalid(`replica ${heir} did not take over in time`))
      }
    } else if (raft.leader !== undefined) {
      if (raft.leader === heir) this.done(change)
      else if (raft.term > change.term) this.refuse(change, notLeader(replica))
    }
  }

  /** What was proposed may come to be applied all the same, or be on its way to it: by this replica's own hand, if it removed itself. */
  private hasLost(change: Change): void {
    const { replica, index } = change
    if (index > replica.machine.appliedIndex && index <= replica.applyLimit) return
    const isTouched = index > 0
    this.refuse(
      change,
      isTouched ? { _tag: "OutcomeUnknown", range: replica.range } : notLeader(replica),
    )
  }

  /** Answers what has waited past its deadline. */
  expire(): void {
    const nowMs = this.host.clock.monotonicMs
    for (const change of this.underWay.values()) {
      if (change.deadlineMs > nowMs) continue
      const unknown: Refusal = { _tag: "OutcomeUnknown", range: change.replica.range }
      this.refuse(change, change.obstacle ?? unknown)
    }
  }

  /** The replica goes away. */
  abandon(replica: Replica): void {
    const change = this.underWay.get(replica.range)
    if (change === undefined || change.replica !== replica) return
    this.refuse(change, { _tag: "OutcomeUnknown", range: replica.range })
  }

  private refuse(change: Change, refusal: Refusal): void {
    this.underWay.delete(change.request.range)
    this.host.refuse(change.request.token, change.replica, refusal)
  }

  private done(change: Change): void {
    const { request, replica } = change
    const { machine } = replica
    this.underWay.delete(request.range)
    const at = { index: machine.appliedIndex, term: machine.appliedTerm }
    this.host.answer({
      _tag: "Changed",
      token: request.token,
      rangeTime: replica.rangeTime(this.host.stampMs),
      descriptor: machine.descriptor,
      receipt: this.host.receiptOf(replica, at),
    })
  }
}
