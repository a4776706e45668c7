import { StorageCorruption } from "../disk/disk.ts"
import type { RangeDescriptor, RangeId, Version } from "../types.ts"
import { type CommandStatus, operations } from "../wire/command.ts"
import { refusalOf } from "./admission.ts"
import type { AppliedEntry } from "./apply.ts"
import { serveRead } from "./reading.ts"
import type { GivenUp, Replica, TimedRead, Waiter } from "./replica.ts"
import type { Receipt, Refusal, Reply, Request } from "./requests.ts"
import type { StoreSettings } from "./settings.ts"
import type { Storage } from "./storage.ts"
import type { ClockReading } from "./storeLoop.ts"

function isPut(request: Request): boolean {
  return request._tag === "Mutate" && request.command[0] === operations.put
}

/** What requests need of the loop that they came to. */
export interface RequestHost {
  readonly node: number
  readonly storage: Storage
  readonly settings: StoreSettings
  readonly replicas: ReadonlyMap<RangeId, Replica>
  readonly descriptors: ReadonlyMap<RangeId, RangeDescriptor>
  readonly clock: ClockReading
}

/**
 * Requests from the doors on their way through the node: admitted or refused once a turn, then queued at their replica, at last answered. Every request is
 * answered exactly once: by its result, by a refusal, or when its deadline has passed.
 */
export class RequestQueue {
  private readonly host: RequestHost
  private incoming: Array<Request> = []
  private replies: Array<Reply> = []
  /** Reads that may be served, in the order in which they came to be. */
  private servable: Array<{ readonly replica: Replica; readonly request: TimedRead["request"] }> =
    []

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
      const replica = this.host.replicas.get(request.range)
      const refusal = this.refusal(request, replica)
      if (refusal !== undefined) this.refuse(request.token, replica, refusal)
      else if (replica !== undefined) this.enqueue(request, replica)
    }
  }

  private refusal(request: Request, replica: Replica | undefined): Refusal | undefined {
    const { host } = this
    if (replica === undefined) {
      const known = host.descriptors.get(request.range)
      return { _tag: "RangeMoved", descriptors: known === undefined ? [] : [known] }
    }
    const refusal = refusalOf(request, replica.machine.descriptor)
    if (refusal !== undefined) return refusal
    if (request._tag === "Mutate" && replica.damage !== undefined) {
      return { _tag: "StorageCorrupt", message: replica.damage.message }
    }
    if (host.storage.isFull && isPut(request)) return { _tag: "DiskFull", node: host.node }
    const isLocal = request._tag !== "Mutate" && request.level === "local"
    if (!isLocal && !replica.isLeader) {
      return { _tag: "NotLeader", range: replica.range, leader: replica.leaderNode }
    }
    const waiting = isLocal ? this.servable.length : replica.waiting
    return waiting >= this.host.settings.requestsPerRange
      ? { _tag: "Overloaded", what: `range ${replica.range} has too many requests under way` }
      : undefined
  }

  private enqueue(request: Request, replica: Replica): void {
    const deadlineMs = this.host.clock.monotonicMs + request.deadlineMs
    if (request._tag === "Mutate") {
      const { token, command } = request
      replica.queueMutation({ token, deadlineMs, command })
    } else if (request.level === "local") {
      this.servable.push({ replica, request })
    } else {
      replica.queueRead({ request, deadlineMs })
    }
  }

  /** A leader proposes what is queued. */
  propose(replica: Replica): void {
    for (const waiter of replica.propose(this.host.clock.wallMs)) {
      this.refuse(waiter.token, replica, {
        _tag: "Overloaded",
        what: `range ${replica.range} has too much data that is not applied yet`,
      })
    }
  }

  /** Applies an entry and answers those who wait for it. */
  applyEntry(replica: Replica, entry: AppliedEntry): void {
    // One receipt serves all commands of the entry.
    let receipt: Receipt | undefined
    let rangeTime: Version = 0
    replica.applyEntry(
      entry,
      (waiter, place) => {
        if (receipt === undefined) {
          receipt = this.receiptOf(replica, entry)
          rangeTime = replica.rangeTime(this.host.clock.wallMs)
        }
        const { statuses, versions } = replica.machine.outcomes
        this.replies.push({
          _tag: "Mutated",
          token: waiter.token,
          rangeTime,
          status: statuses[place] as CommandStatus,
          version: versions[place] as Version,
          receipt,
        })
      },
      this.giveUp(replica),
    )
  }

  private receiptOf(replica: Replica, { index, term }: AppliedEntry): Receipt {
    const role = replica.isLeader ? "leader" : "follower"
    const { node } = this.host
    return { level: "linearizable", node, role, range: replica.range, term, index }
  }

  /** Takes over the reads whose leadership is confirmed and whose index is applied. */
  takeConfirmed(replica: Replica): void {
    for (const batch of replica.takeServable()) {
      for (const { request } of batch.requests) this.servable.push({ replica, request })
    }
  }

  /**
   * Serves reads within the turn's budget; true when more are left. A read served in a later turn sees a later state, which is as
   * linearizable.
   */
  serveReads(): boolean {
    const { servable } = this
    if (servable.length === 0) return false
    let budget = this.host.settings.readBytesPerTurn
    let served = 0
    while (served < servable.length && budget > 0) {
      const { replica, request } = servable[served++] as (typeof servable)[number]
      this.serve(replica, request)
      budget -= 256 + replyBytes(this.replies[this.replies.length - 1])
    }
    this.servable = served === servable.length ? [] : servable.slice(served)
    return this.servable.length > 0
  }

  private serve(replica: Replica, request: TimedRead["request"]): void {
    const { node, settings, storage, clock } = this.host
    const rangeTime = replica.rangeTime(clock.wallMs)
    try {
      const context = { engine: storage.engine, node, replica, rangeTime, settings }
      this.replies.push(serveRead(context, request))
    } catch (error) {
      if (!(error instanceof StorageCorruption)) throw error
      storage.report(error)
      this.refuse(request.token, replica, { _tag: "StorageCorrupt", message: error.message })
    }
  }

  /** Reads of this context can no longer be confirmed. */
  loseReads(replica: Replica, context: number): void {
    for (const read of replica.takeLost(context)) this.refuseRead(replica)(read)
  }

  /** The replica no longer leads. */
  loseLeadership(replica: Replica): void {
    replica.dropLeadership(this.giveUp(replica), this.refuseRead(replica))
  }

  /** Answers whatever has waited past its deadline. */
  expire(replica: Replica): void {
    if (replica.waiting === 0) return
    replica.expire(this.host.clock.monotonicMs, this.giveUp(replica), this.refuseRead(replica))
  }

  private giveUp(replica: Replica) {
    return (waiter: Waiter, why: GivenUp) =>
      this.refuse(
        waiter.token,
        replica,
        why === "unknown"
          ? { _tag: "OutcomeUnknown", range: replica.range }
          : { _tag: "NotLeader", range: replica.range, leader: replica.leaderNode },
      )
  }

  private refuseRead(replica: Replica) {
    return (read: TimedRead) =>
      this.refuse(
        read.request.token,
        replica,
        replica.isLeader
          ? { _tag: "QuorumUnavailable", range: replica.range }
          : { _tag: "NotLeader", range: replica.range, leader: replica.leaderNode },
      )
  }

  private refuse(token: number, replica: Replica | undefined, refusal: Refusal): void {
    const rangeTime = replica?.rangeTime(this.host.clock.wallMs) ?? 0
    this.replies.push({ _tag: "Refused", token, rangeTime, refusal })
  }
}

/** About what an answer's values take. */
function replyBytes(reply: Reply | undefined): number {
  if (reply?._tag === "Value") return reply.value?.length ?? 0
  if (reply?._tag !== "Page") return 0
  let bytes = 0
  for (const entry of reply.entries) bytes += entry.value.length
  return bytes
}
