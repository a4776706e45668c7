import { type KvorumError, QuorumUnavailable } from "../Errors.ts"
import type { MonotonicMs, NodeId, Version } from "../types.ts"
import type { Refusal } from "../wire/answers.ts"
import { Call, type Outcome } from "./Call.ts"
import type { Connection, Waiting } from "./Connection.ts"
import { Directory, type DirectorySettings, type NodeAnswer } from "./Directory.ts"
import { EventualCalls } from "./eventual/EventualCalls.ts"
import type { CallPlan, Identities } from "./plans.ts"
import { errorOf, failureOf } from "./Refusals.ts"
import { heardLeader, heardNotLeader, heardTime, type Route, timeOf } from "./routes.ts"
import { expiresAt, RangeSessions, Session } from "./session.ts"

const sweepMs = 20
const pauseMsMin = 5
const pauseMsMax = 200
/** While a range has no leader each pause is part of the time for which nobody can write, and asking costs a node next to nothing. */
const electionPauseMsMax = 40
/** Hints followed without a pause; two nodes that point at each other must not be asked in a loop. */
const hopsMax = 3
const renewalsMax = 3
/** Replicas asked for a range whose bytes are damaged on the first. */
const corruptPausesMax = 3

/**
 * The client without Effect: calls, routing, retries and connections, in callbacks, so that a call costs one object and no fiber
 * of its own. The only timers are a sweep while calls are open, pauses before a retry, and handshakes.
 *
 * All retrying happens here. A call is tried until an answer, a refusal that no retry helps, or its deadline.
 */
export class ClientCore implements Identities {
  private readonly settings: DirectorySettings
  readonly directory: Directory
  readonly eventual: EventualCalls
  private readonly sessions = new Map<number, RangeSessions>()
  private readonly active = new Set<Call<unknown>>()
  private sweeper: ReturnType<typeof setInterval> | undefined

  constructor(settings: DirectorySettings) {
    this.settings = settings
    this.directory = new Directory(settings)
    const { attemptTimeoutMs, random } = settings
    this.eventual = new EventualCalls({ directory: this.directory, attemptTimeoutMs, random })
  }

  session(route: Route): Session {
    const { id } = route.descriptor
    let own = this.sessions.get(id)
    if (own === undefined) {
      own = new RangeSessions()
      this.sessions.set(id, own)
    }
    return own.take(this.draw)
  }

  private readonly draw = (): Session =>
    new Session(1 + Math.floor(this.settings.random() * (2 ** 53 - 2)))

  expiresAt(route: Route, deadlineMs: number): Version {
    const known = timeOf(route, this.settings.nowMs())
    return expiresAt(known > 0 ? known : this.directory.time, deadlineMs)
  }

  /** Starts a call. `done` is called once, never before this returns unless the core is closed; not after `cancel`. */
  start<A>(options: {
    readonly plan: CallPlan<A>
    readonly deadlineMs: number
    readonly done: (outcome: Outcome<A>) => void
  }): Call<A> {
    const call = new Call<A>({
      ...options,
      nowMs: this.settings.nowMs(),
      rotation: Math.floor(this.settings.random() * 64),
    })
    this.active.add(call as Call<unknown>)
    this.sweeper ??= setInterval(() => this.sweep(), sweepMs)
    this.attempt(call)
    return call
  }

  cancel<A>(call: Call<A>): void {
    this.active.delete(call as Call<unknown>)
    call.release()
  }

  private sweep(): void {
    if (this.active.size === 0) {
      clearInterval(this.sweeper)
      this.sweeper = undefined
      return
    }
    const nowMs = this.settings.nowMs()
    for (const call of this.active) {
      if (call.finished) this.active.delete(call)
      else if (nowMs >= call.deadlineAt) {
        this.active.delete(call)
        call.expire()
      } else if (nowMs >= call.attemptDeadlineAt) this.giveUpAttempt(call)
    }
  }

  private giveUpAttempt(call: Call<unknown>): void {
    const attempt = call.current as Attempt<unknown> | undefined
    call.attemptDeadlineAt = Number.POSITIVE_INFINITY
    if (attempt === undefined) return
    call.current = undefined
    call.avoid = attempt.node
    call.trouble(`n${attempt.node} did not answer`)
    if (attempt.route.leader === attempt.node) attempt.route.leader = undefined
    // Not a byte since this copy left: the node hangs, and so would every other call on this connection.
    if (attempt.connection.heardAt < attempt.sentAt) attempt.connection.close("silent")
    this.attempt(call)
  }

  private attempt<A>(call: Call<A>): void {
    if (call.finished) return
    const route = this.directory.table.find(call.plan.position)
    if (route === undefined) return this.refreshThen(call)
    const node = this.choose(route, call)
    const link = node === undefined ? undefined : this.directory.link(node)
    if (node === undefined || link === undefined) return this.refreshThen(call)
    const problem = call.isUncertain ? undefined : call.plan.problem?.(route)
    if (problem !== undefined) return queueMicrotask(() => this.end(call, failureOf(problem)))
    const connection = link.pick()
    if (connection !== undefined) return this.send(call, { route, node, connection })
    link.want((opened) => {
      if (call.finished) return
      if (opened !== undefined) return this.send(call, { route, node, connection: opened })
      call.trouble(`n${node} at ${link.address}: ${link.lastReason}`)
      call.avoid = node
      if (route.leader === node) route.leader = undefined
      this.pause(call, electionPauseMsMax)
    })
  }

  /** The leader, if known and not the one that just failed; else the replicas in turn, those at rest last. A learner leads nothing. */
  private choose<A>(route: Route, call: Call<A>): NodeId | undefined {
    const { leader } = route
    const isAnywhere = call.plan.anyReplica && !call.wantsLeader
    if (leader !== undefined && leader !== call.avoid && !isAnywhere) return leader
    const { replicas } = route.descriptor
    for (let i = 0; i < replicas.length; i++) {
      const place = replicas[(call.rotation + i) % replicas.length]
      if (place === undefined || place.node === call.avoid) continue
      if (place.role === "learner" && !isAnywhere) continue
      if (this.directory.link(place.node)?.isDown === true) continue
      return place.node
    }
    return leader ?? replicas[call.rotation % replicas.length]?.node
  }

  private refreshThen<A>(call: Call<A>): void {
    this.directory.refresh((reached) => {
      if (call.finished) return
      if (reached && this.directory.table.find(call.plan.position) !== undefined)
        return this.attempt(call)
      call.trouble(reached ? "no range holds this key" : this.directory.reachability())
      this.pause(call)
    })
  }

  private send<A>(
    call: Call<A>,
    target: { readonly route: Route; readonly node: NodeId; readonly connection: Connection },
  ): void {
    const { route, node, connection } = target
    const sentAt = this.settings.nowMs()
    const remainingMs = Math.ceil(call.deadlineAt - sentAt)
    if (remainingMs <= 0) {
      this.active.delete(call as Call<unknown>)
      return call.expire()
    }
    const deadlineMs = Math.min(remainingMs, this.settings.attemptTimeoutMs)
    const attempt = new Attempt(this, { call, route, node, connection, sentAt })
    if (!connection.send(call.plan.request(route, deadlineMs), attempt)) {
      call.refusedWith(errorOf({ _tag: "Overloaded", what: "the connection's queue" }))
      return this.pause(call)
    }
    call.sends++
    call.current = attempt
    // The node answers at `deadlineMs` by itself; the rest is for an answer on its way.
    call.attemptDeadlineAt = sentAt + deadlineMs * 1.25
  }

  /** Tries again after a pause that doubles, with jitter. */
  private pause<A>(call: Call<A>, mostMs = pauseMsMax): void {
    call.current = undefined
    call.attemptDeadlineAt = Number.POSITIVE_INFINITY
    call.hops = 0
    call.rotation++
    const delayMs = Math.min(mostMs, pauseMsMin * 2 ** Math.min(call.pauses++, 10))
    call.timer = setTimeout(() => this.attempt(call), delayMs * (0.5 + this.settings.random() / 2))
  }

  /** A copy was answered. */
  answered<A>(attempt: Attempt<A>, answer: NodeAnswer): void {
    const { call, route, node } = attempt
    const { _tag } = answer
    if (_tag === "Routes" || _tag === "Status" || _tag === "Admin" || _tag === "Eventual") {
      return attempt.connection.close("an answer of another kind than asked for")
    }
    const fromLeader = answer._tag !== "Refused" && answer.receipt.role === "leader"
    const nowMs = this.settings.nowMs()
    heardTime(route, { rangeTime: answer.rangeTime, fromLeader, nowMs })
    if (fromLeader) heardLeader(route, answer.receipt.node, answer.receipt.term)
    if (call.finished) return
    const isCurrent = call.current === attempt
    // A late answer to a read belongs to another view of the range.
    if (!isCurrent && !call.plan.isMutation) return
    const verdict = call.plan.judge(answer)
    switch (verdict._tag) {
      case "Done":
        this.active.delete(call as Call<unknown>)
        if (answer._tag !== "Refused") {
          call.plan.floors?.saw(route.descriptor, answer.receipt.stateTime)
        }
        return call.succeed(verdict.answer)
      case "Failed":
        this.active.delete(call as Call<unknown>)
        return call.failForSure(failureOf(verdict.failure))
      case "Expired":
        call.refusals++
        if (isCurrent) call.current = undefined
        return this.expired(call)
      case "Refused":
        if (verdict.refusal._tag !== "OutcomeUnknown") call.refusals++
        if (!isCurrent) return
        call.current = undefined
        return this.refused(call, { route, node, refusal: verdict.refusal })
      default:
        return verdict satisfies never
    }
  }

  /** Too old for the range. With no copy uncertain it was never carried out, and is made anew by what is known now. */
  private expired<A>(call: Call<A>): void {
    const error = new QuorumUnavailable({ detail: "the command expired before it was taken" })
    call.refusedWith(error)
    if (call.isUncertain) return this.pause(call)
    if (call.renewals++ >= renewalsMax) return this.end(call, error)
    call.plan.renew()
    this.pause(call)
  }

  /**
   * No retry helps, so the call ends; unless an earlier copy may have been carried out, which only an answer can tell: then it goes on asking until its
   * deadline.
   */
  private end<A>(call: Call<A>, error: KvorumError): void {
    if (call.isUncertain) return this.pause(call)
    this.active.delete(call as Call<unknown>)
    call.fail(error)
  }

  private refused<A>(
    call: Call<A>,
    what: { readonly route: Route; readonly node: NodeId; readonly refusal: Refusal },
  ): void {
    const { route, node, refusal } = what
    const error = errorOf(refusal)
    call.refusedWith(error)
    call.avoid = node
    switch (refusal._tag) {
      case "NotLeader":
        // A replica that is too far behind for this read says so too.
        call.wantsLeader = true
        heardNotLeader(route, node, refusal.leader)
        if (refusal.leader !== undefined && refusal.leader !== node && call.hops++ < hopsMax) {
          return this.attempt(call)
        }
        return this.pause(call, electionPauseMsMax)
      case "RangeMoved": {
        call.avoid = undefined
        let learned = false
        for (const descriptor of refusal.descriptors) {
          learned = this.directory.table.learn(descriptor) || learned
        }
        if (learned && call.hops++ < hopsMax) return this.attempt(call)
        return this.directory.refresh(() => {
          if (!call.finished) this.pause(call)
        })
      }
      case "Overloaded":
      case "QuorumUnavailable":
      case "OutcomeUnknown":
        call.avoid = undefined
        return this.pause(call)
      case "StorageCorrupt":
        if (call.pauses < corruptPausesMax) return this.pause(call)
        return this.end(call, error)
      case "DiskFull":
      case "InvalidRequest":
      // Of orders only, which do not come here.
      case "Unfinished":
      case "NamespaceNotFound":
        return this.end(call, error)
      default:
        refusal satisfies never
    }
  }

  /** The connection broke before a copy was answered. */
  lost<A>(attempt: Attempt<A>, reason: string): void {
    const { call, route, node } = attempt
    if (route.leader === node) route.leader = undefined
    if (call.finished || call.current !== attempt) return
    call.trouble(`n${node}: ${reason}`)
    call.avoid = node
    this.pause(call, electionPauseMsMax)
  }

  close(): void {
    clearInterval(this.sweeper)
    for (const call of this.active) {
      this.active.delete(call)
      call.fail(new QuorumUnavailable({ detail: "the client was closed" }))
    }
    this.directory.close()
  }
}

/** One copy of a call's request, on its way over one connection. */
class Attempt<A> implements Waiting {
  private readonly core: ClientCore
  readonly call: Call<A>
  readonly route: Route
  readonly node: NodeId
  readonly connection: Connection
  readonly sentAt: MonotonicMs

  constructor(
    core: ClientCore,
    fields: {
      readonly call: Call<A>
      readonly route: Route
      readonly node: NodeId
      readonly connection: Connection
      readonly sentAt: MonotonicMs
    },
  ) {
    this.core = core
    this.call = fields.call
    this.route = fields.route
    this.node = fields.node
    this.connection = fields.connection
    this.sentAt = fields.sentAt
  }

  answered(answer: NodeAnswer): void {
    this.core.answered(this, answer)
  }

  lost(reason: string): void {
    this.core.lost(this, reason)
  }
}
