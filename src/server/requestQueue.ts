import { StorageCorruption } from "../disk/disk.ts"
import type { LogIndex, RangeDescriptor, RangeId, Term, Version, WallMs } from "../types.ts"
import { type CommandStatus, commandStatuses, operations } from "../wire/command.ts"
import { refusalOf } from "./admission.ts"
import type { AppliedEntry, RangeMachine } from "./apply.ts"
import { needsLeader, type ReadProgress, type TimedRead, timedRead } from "./pendingReads.ts"
import { serveRead } from "./reading.ts"
import type { GivenUp, Replica, Waiter } from "./replica.ts"
import type {
  DataRequest,
  PageReply,
  RangeRequest,
  Receipt,
  Refusal,
  Reply,
  Request,
  ValueReply,
} from "./requests.ts"
import { type PlacedRead, ServableReads } from "./servableReads.ts"
import type { StoreSettings } from "./settings.ts"
import type { Storage } from "./storage.ts"
import type { ClockReading } from "./storeLoop.ts"
import { versionOfWall } from "./versionClock.ts"

/** Only deletes are taken when the disk is full. */
function takesSpace(request: DataRequest): boolean {
  return request._tag === "Mutate" && request.command[0] !== operations.delete
}

/** What requests need of the loop that they came to. */
export interface RequestHost {
  readonly node: number
  readonly storage: Storage
  readonly settings: StoreSettings
  readonly replicas: ReadonlyMap<RangeId, Replica>
  readonly clock: ClockReading
  /** What ranges' times go by. */
  readonly stampMs: WallMs
  /** Begins what a request about the range itself asks for, or refuses it. */
  changeRange(request: RangeRequest): void
  /** Something is wanted of the replica: it is awake from here on. */
  rouse(replica: Replica): void
  /** Reads of the replica wait for range time to reach an expiry. */
  wantTick(replica: Replica): void
  /** Where a replica's range is now, and what it was split into, as far as this node knows. */
  movedTo(replica: Replica): ReadonlyArray<RangeDescriptor>
  /** The same of a range without a replica here. */
  whereIs(range: RangeId): ReadonlyArray<RangeDescriptor>
}

function isRangeRequest(request: Request): request is RangeRequest {
  const { _tag } = request
  return !(_tag === "Mutate" || _tag === "Get" || _tag === "Scan")
}

/** An answer that is true only as long as a clock says so. */
interface HeldReply extends PlacedRead {
  readonly reply: ReadReply
}

type ReadReply = ValueReply | PageReply

/**
 * Requests from the doors on their way through the node: admitted or refused once a turn, then queued at their replica, at last answered. Every request is
 * answered exactly once: by its result, by a refusal, or when its deadline has passed.
 *
 * A read is served from the state of the turn in which it is served, and its bounds are compared with that very state's: one that was confirmed before a
 * split, and comes up after it, is refused as moved. Where confirmation came from a lease, or freshness from this node's clock, the answer is held until
 * `release`: with a reading of the clocks taken after the state was read, the lease must still hold, and the state still be young enough; else the read
 * begins anew. So a node that was paused anywhere between two readings gives out nothing by the first of them alone.
 */
export class RequestQueue {
  private readonly host: RequestHost
  private incoming: Array<Request> = []
  private replies: Array<Reply> = []
  private readonly servable = new ServableReads()
  private held: Array<HeldReply> = []
  /** Reads of these have begun in this turn to wait for range time. */
  private readonly early = new Set<Replica>()

  constructor(host: RequestHost) {
    this.host = host
  }

  push(request: Request): void {
    this.incoming.push(request)
  }

  /** The answers since the last call. */
  takeReplies(): ReadonlyArray<Reply> {
    const replies = this.replies
    if (replies.length > 0) this.replies = []
    return replies
  }

  /** Refuses or queues what has come in. */
  admit(): void {
    if (this.incoming.length === 0) return
    const requests = this.incoming
    this.incoming = []
    for (const request of requests) {
      if (isRangeRequest(request)) {
        this.host.changeRange(request)
        continue
      }
      const replica = this.host.replicas.get(request.range)
      const refusal = this.refusal(request, replica)
      if (refusal !== undefined) this.refuse(request.token, replica, refusal)
      else if (replica !== undefined) this.enqueue(request, replica)
    }
  }

  private refusal(request: DataRequest, replica: Replica | undefined): Refusal | undefined {
    const { host } = this
    if (replica === undefined || replica.isEmpty) {
      return { _tag: "RangeMoved", descriptors: host.whereIs(request.range) }
    }
    const refusal = refusalOf(request, replica.machine.descriptor)
    if (refusal !== undefined) return refusal
    if (request._tag === "Mutate" && replica.damage !== undefined) {
      return { _tag: "StorageCorrupt", message: replica.damage.message }
    }
    if (host.storage.isFull && takesSpace(request)) return { _tag: "DiskFull", node: host.node }
    const isMutation = request._tag === "Mutate"
    if ((isMutation || needsLeader(request)) && !replica.isLeader) {
      return { _tag: "NotLeader", range: replica.range, leader: replica.leaderNode }
    }
    if (replica.differs !== undefined) return { _tag: "StorageCorrupt", message: replica.differs }
    if (!isMutation && request.level === "bounded" && !(request.maxStalenessMs > 0)) {
      return { _tag: "InvalidRequest", message: "a bounded read states a bound above 0 ms" }
    }
    const waiting = replica.waiting + (isMutation ? 0 : replica.servableReads)
    return waiting >= this.host.settings.requestsPerRange
      ? { _tag: "Overloaded", what: `range ${replica.range} has too many requests under way` }
      : undefined
  }

  private enqueue(request: DataRequest, replica: Replica): void {
    const { monotonicMs } = this.host.clock
    replica.load.note(request)
    if (request._tag === "Mutate") {
      this.host.rouse(replica)
      const { token, command } = request
      replica.queueMutation({ token, deadlineMs: monotonicMs + request.deadlineMs, command })
      return
    }
    const read = timedRead(request, monotonicMs)
    this.queueRead(replica, read)
  }

  private queueRead(replica: Replica, read: TimedRead): void {
    const mayBeServable = read.request.level !== "linearizable"
    if (mayBeServable && replica.reads.isServable(read, this.progressOf(replica))) {
      this.servable.push(replica, read)
    } else this.wait(replica, read)
  }

  /** The read waits for what only its group can tell. One that the state alone answers lets the group sleep. */
  private wait(replica: Replica, read: TimedRead): void {
    this.host.rouse(replica)
    replica.reads.add(read)
  }

  private progressOf({ machine }: Replica): ReadProgress {
    const { appliedIndex, rangeTime } = machine
    return { clock: this.host.clock, appliedIndex, rangeTime }
  }

  /** A leader proposes what is queued. */
  propose(replica: Replica): void {
    for (const waiter of replica.propose(this.host.stampMs)) {
      const { range } = replica
      const heir = replica.raft.transferee
      const what = `range ${range} has too much data that is not applied yet`
      const refusal: Refusal =
        heir === undefined
          ? { _tag: "Overloaded", what }
          : { _tag: "NotLeader", range, leader: replica.nodeOf(heir) }
      this.refuse(waiter.token, replica, refusal)
    }
  }

  /** Nothing is to become of the range's merge: what has waited for that goes on. */
  resume(replica: Replica): void {
    for (const read of replica.takeHeld()) {
      if (needsLeader(read.request) && !replica.isLeader) this.refuseRead(replica)(read)
      else this.queueRead(replica, read)
    }
  }

  /** Applies an entry and answers those who wait for it. */
  applyEntry(replica: Replica, entry: AppliedEntry, source?: RangeMachine): void {
    // One receipt serves all commands of the entry.
    let receipt: Receipt | undefined
    let rangeTime: Version = 0
    replica.applyEntry(
      entry,
      (waiter, place) => {
        if (receipt === undefined) {
          receipt = this.receiptOf(replica, entry)
          rangeTime = replica.rangeTime(this.host.stampMs)
        }
        const { statuses, versions, values } = replica.machine.outcomes
        if (statuses[place] === commandStatuses.rangeMoved) {
          // It was proposed before the range changed, and did nothing.
          const refusal: Refusal = { _tag: "RangeMoved", descriptors: [] }
          return this.refuse(waiter.token, replica, refusal)
        }
        this.replies.push({
          _tag: "Mutated",
          token: waiter.token,
          rangeTime,
          status: statuses[place] as CommandStatus,
          version: versions[place] as Version,
          value: values[place],
          receipt,
        })
      },
      this.giveUp(replica),
      source,
    )
  }

  receiptOf(
    replica: Replica,
    { index, term }: { readonly index: LogIndex; readonly term: Term },
  ): Receipt {
    const role = replica.isLeader ? "leader" : "follower"
    const { node } = this.host
    const place = { node, role, range: replica.range, replica: replica.machine.replica } as const
    return {
      level: "linearizable",
      ...place,
      term,
      index,
      staleBoundMs: 0,
      stateTime: replica.machine.rangeTime,
    }
  }

  /** Takes over the reads that may be served from the state as it is now. */
  takeConfirmed(replica: Replica): void {
    if (replica.reads.count === 0) return
    replica.reads.take(this.progressOf(replica), (read) => this.servable.push(replica, read))
  }

  /**
   * Serves reads within the turn's budget; true when more are left. A read served in a later turn sees a later state, which is as
   * linearizable.
   */
  serveReads(): boolean {
    const areLeft = this.servable.serve(this.host.settings.readBytesPerTurn, this.serveOne)
    for (const replica of this.early) this.host.wantTick(replica)
    this.early.clear()
    return areLeft
  }

  private readonly serveOne = ({ replica, read }: PlacedRead): number =>
    256 + this.serve(replica, read)

  /** Serves one read, and returns about how many bytes of values its answer holds. */
  private serve(replica: Replica, read: TimedRead): number {
    const { node, settings, storage, clock } = this.host
    const { request } = read
    // It may have waited here for turns.
    if (read.deadlineMs <= clock.monotonicMs) {
      const what = `reads of range ${replica.range} wait longer than they may`
      this.refuse(request.token, replica, { _tag: "Overloaded", what })
      return 0
    }
    if (this.isClosed(replica)) {
      replica.hold(read)
      return 0
    }
    const isBounded = request.level === "bounded"
    if (isBounded && !replica.reads.isFresh(read, clock)) {
      this.wait(replica, read)
      return 0
    }
    const rangeTime = replica.rangeTime(this.host.stampMs)
    if (read.triedAt === 0) read.triedAt = versionOfWall(this.host.stampMs)
    try {
      const { engine } = storage
      const context = { engine, node, replica, rangeTime, settings, clock: read.triedAt }
      const reply = serveRead(context, request)
      if (reply._tag === "Unripe") {
        this.waitForTick(replica, read, reply.expiry)
        return 0
      }
      if (reply._tag === "Refused") this.refuse(request.token, replica, reply.refusal)
      else if (!(isBounded || read.byLease)) this.replies.push(reply)
      else this.held.push({ replica, read, reply })
      return replyBytes(reply)
    } catch (error) {
      if (!(error instanceof StorageCorruption)) throw error
      storage.report(error)
      if (replica.isLeader) {
        replica.metDamage = true
        this.host.rouse(replica)
      }
      this.refuse(request.token, replica, { _tag: "StorageCorrupt", message: error.message })
      return 0
    }
  }

  /** Another range may have its keys by now, or soon. */
  private isClosed(replica: Replica): boolean {
    return replica.isHeld
  }

  /** Whether a key has expired is for the log to say. */
  private waitForTick(replica: Replica, read: TimedRead, expiry: Version): void {
    if (needsLeader(read.request) && !replica.isLeader) {
      this.refuse(read.request.token, replica, refusalFor("notLeader", replica))
      return
    }
    this.host.rouse(replica)
    replica.reads.addEarly(read, expiry)
    this.early.add(replica)
  }

  /** The answers that were held, as far as they still hold at a reading taken after they were made. Reads of the others begin anew. */
  release(clock: ClockReading): ReadonlyArray<Reply> {
    if (this.held.length === 0) return this.takeReplies()
    const held = this.held
    this.held = []
    for (const { replica, read, reply } of held) {
      if (read.request.level !== "bounded") {
        if (replica.raft.leaseHolds(clock.monotonicMs, clock.wallMs)) this.replies.push(reply)
        else this.wait(replica, read)
      } else if (replica.reads.isFresh(read, clock)) {
        const staleBoundMs = Math.ceil(replica.reads.ageMs(clock))
        this.replies.push({ ...reply, receipt: { ...reply.receipt, staleBoundMs } })
      } else {
        this.wait(replica, read)
      }
    }
    return this.takeReplies()
  }

  /** Reads of this context can no longer be confirmed. */
  loseReads(replica: Replica, context: number): void {
    replica.reads.lost(context, this.refuseRead(replica))
  }

  /** The replica no longer leads. */
  loseLeadership(replica: Replica): void {
    replica.dropLeadership(this.giveUp(replica), this.refuseRead(replica))
  }

  /** Answers whatever has waited past its deadline. */
  expire(replica: Replica): void {
    if (replica.waiting === 0) return
    // The tick that they wait for may have found no room, or nobody to ask for it.
    if (replica.reads.hasEarly) this.host.wantTick(replica)
    replica.expire(this.host.clock.monotonicMs, this.giveUp(replica), this.refuseRead(replica))
  }

  private giveUp(replica: Replica) {
    return (waiter: Waiter, why: GivenUp) =>
      this.refuse(waiter.token, replica, refusalFor(why, replica))
  }

  private refuseRead(replica: Replica) {
    return ({ request }: TimedRead) => {
      const elsewhere = needsLeader(request) && !replica.isLeader
      this.refuse(request.token, replica, refusalFor(elsewhere ? "notLeader" : "late", replica))
    }
  }

  /** The replica is no longer here: answers all that waited for it. */
  abandon(replica: Replica): void {
    replica.dropLeadership(this.giveUp(replica), this.refuseRead(replica))
    replica.reads.clear(({ request }) => {
      const { descriptor } = replica.machine
      this.refuse(request.token, replica, { _tag: "RangeMoved", descriptors: [descriptor] })
    })
    // Nothing of it may be read any more.
    for (const { request } of this.servable.remove(replica)) {
      this.refuse(request.token, replica, refusalFor("notLeader", replica))
    }
  }

  /** Another range has taken this one in. Nothing that waited has had an effect: all of it goes there. */
  takenIn(replica: Replica): void {
    const refusal: Refusal = { _tag: "RangeMoved", descriptors: this.host.movedTo(replica) }
    const rangeTime = replica.rangeTime(this.host.stampMs)
    const moved = (token: number) =>
      this.replies.push({ _tag: "Refused", token, rangeTime, refusal })
    replica.dropAll(moved)
    for (const { request } of this.servable.remove(replica)) moved(request.token)
    this.held = this.held.filter((held) => {
      if (held.replica !== replica) return true
      moved(held.read.request.token)
      return false
    })
  }

  answer(reply: Reply): void {
    this.replies.push(reply)
  }

  refuse(token: number, replica: Replica | undefined, reason: Refusal): void {
    const rangeTime = replica?.rangeTime(this.host.stampMs) ?? 0
    const isMoved = reason._tag === "RangeMoved" && replica !== undefined
    const refusal = isMoved ? { ...reason, descriptors: this.host.movedTo(replica) } : reason
    this.replies.push({ _tag: "Refused", token, rangeTime, refusal })
  }
}

/** What a key takes that is only counted, as if it were of a page. */
const countedBytes = 64

/** About what an answer's values take. */
function replyBytes(reply: Reply | undefined): number {
  if (reply?._tag === "Value") return reply.value?.length ?? 0
  if (reply?._tag !== "Page") return 0
  if (reply.entries.length < reply.count) return reply.count * countedBytes
  let bytes = 0
  for (const entry of reply.entries) bytes += entry.value.length
  return bytes
}

function refusalFor(why: GivenUp, { range, leaderNode }: Replica): Refusal {
  switch (why) {
    case "notLeader":
      return { _tag: "NotLeader", range, leader: leaderNode }
    case "unknown":
      return { _tag: "OutcomeUnknown", range }
    case "late":
      return { _tag: "QuorumUnavailable", range }
    default:
      return why satisfies never
  }
}
