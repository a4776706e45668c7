import {
  heardLeader,
  heardNotLeader,
  heardTime,
  type Route,
  RoutingTable,
  timeOf,
} from "../../src/client/routes.ts"
import { assert } from "../../src/lib/assert.ts"
import type { Prng } from "../../src/lib/prng.ts"
import type { RangeReport, Reply, Request } from "../../src/server/requests.ts"
import type { NodeId, Position, RangeDescriptor, Version } from "../../src/types.ts"
import type { WorkloadParameters } from "./parameters.ts"
import type { Trace } from "./trace.ts"
import { Violation } from "./violation.ts"

/** What clients need of the world. */
export interface CallerWorld {
  readonly now: number
  readonly trace: Trace
  readonly descriptors: ReadonlyArray<RangeDescriptor>
  readonly nodeIds: ReadonlyArray<NodeId>
  schedule(time: number, run: () => void): void
  /** False when the node is down: nothing was sent. The answer comes through `Caller.answer`. */
  request(node: NodeId, request: Request): boolean
  /** What the node would tell of all ranges; `undefined` when it is down. */
  rangesOf(node: NodeId): ReadonlyArray<RangeReport> | undefined
  /** Bits of the node's disk may have been flipped. */
  mayBeDamaged(node: NodeId): boolean
  /** A clock of the client's in the unit of versions, before it has heard of a range's time. */
  clientTime(): Version
}

type Refused = Extract<Reply, { _tag: "Refused" }>
export type Answer = Exclude<Reply, Refused>

/** What became of an answer: it ends the call, or says that this attempt left no trace. */
export type Verdict = "finished" | "retry" | "refusedForEver"

/** One operation of a client, over all its attempts. */
export abstract class Call {
  readonly position: Position
  readonly deadline: number
  /** Any replica may be asked, not only the leader. */
  readonly anyReplica: boolean
  /** A split may make it impossible: then it is refused as invalid. */
  readonly mayBeCut: boolean = false
  /** Attempts that may still take effect, or have. */
  uncertain = 0
  attempts = 0
  finished = false

  constructor(options: { position: Position; deadline: number; anyReplica: boolean }) {
    this.position = options.position
    this.deadline = options.deadline
    this.anyReplica = options.anyReplica
  }

  abstract request(
    descriptor: RangeDescriptor,
    base: { readonly token: number; readonly deadlineMs: number },
  ): Request
  /** The very moment in which a node answers; the client hears of it later. */
  served(_node: NodeId, _reply: Answer, _sentAt: number): void {}
  /** An answer has come back. */
  abstract answered(reply: Answer): Verdict
  /** No answer came in time, or every attempt was refused for ever. */
  abstract gaveUp(): void
}

interface Attempt {
  readonly call: Call
  readonly node: NodeId
  readonly descriptor: RangeDescriptor
  /** When the request reached its node. */
  sentAt: number
  answered: boolean
}

/**
 * How clients reach a range: like the real client, by its own routing table. Attempts go to the node believed to lead, or to any; a node that knows better
 * says so, and the table learns.
 *
 * What an attempt leaves behind is told apart: a refusal says "no trace", silence says nothing. An operation whose every attempt was refused
 * has failed; one with a silent attempt may have happened.
 */
export class Caller {
  retries = 0
  readonly routes = new RoutingTable()
  private readonly world: CallerWorld
  private readonly parameters: WorkloadParameters
  private readonly prng: Prng
  private readonly attempts = new Map<number, Attempt>()
  private nextToken = 1
  private isHealed = false
  private losesAnswersUntil = 0

  constructor(options: { world: CallerWorld; parameters: WorkloadParameters; prng: Prng }) {
    this.world = options.world
    this.parameters = options.parameters
    this.prng = options.prng
    for (const descriptor of options.world.descriptors) this.routes.learn(descriptor)
  }

  private get nowMs(): number {
    return this.world.now / 1000
  }

  /** `undefined` in a gap: one half of a split is known, and the other is not yet. */
  private routeOf(position: Position): Route | undefined {
    return this.routes.find(position)
  }

  /** Whoever was believed to lead the range at `position` may not. */
  private forgetLeader(position: Position, node?: NodeId): void {
    const route = this.routeOf(position)
    if (route !== undefined && (node === undefined || route.leader === node)) {
      route.leader = undefined
    }
  }

  /** The time of the range at `position`, as clients know it. */
  timeAt(position: Position): Version {
    const route = this.routeOf(position)
    return (route && timeOf(route, this.nowMs)) || this.world.clientTime()
  }

  begin(call: Call): void {
    this.world.schedule(call.deadline, () => {
      if (!call.finished) this.end(call)
    })
    this.attempt(call)
  }

  private end(call: Call): void {
    call.finished = true
    call.gaveUp()
  }

  private attempt(call: Call): void {
    if (call.finished) return
    const { world, prng, parameters } = this
    const route = this.routeOf(call.position)
    if (route === undefined) {
      call.attempts++
      this.refresh()
      this.retrySoon(call)
      return
    }
    const { replicas } = route.descriptor
    const { leader } = route
    const toLeader = leader !== undefined && !call.anyReplica && !prng.chance(0.1)
    const node = toLeader ? leader : prng.pick(replicas).node
    call.attempts++
    if (call.attempts > 1) this.retries++
    this.send(call, route.descriptor, node)
    if (prng.chance(parameters.doubleSendRate)) {
      this.send(call, route.descriptor, prng.pick(replicas).node)
    }
    const patience = prng.logUniform(parameters.attemptMinUs, parameters.attemptMaxUs)
    const attempts = call.attempts
    world.schedule(world.now + Math.round(patience), () => {
      if (call.finished || call.attempts !== attempts) return
      this.forgetLeader(call.position)
      // Nobody answers: maybe the range has moved away altogether.
      if (attempts % 4 === 3) this.refresh()
      this.attempt(call)
    })
  }

  private send(call: Call, descriptor: RangeDescriptor, node: NodeId): void {
    const { world, prng } = this
    const token = this.nextToken++
    call.uncertain++
    const attempt: Attempt = { call, node, descriptor, sentAt: 0, answered: false }
    this.attempts.set(token, attempt)
    world.schedule(world.now + prng.int(20, 1_500), () => {
      attempt.sentAt = world.now
      const deadlineMs = Math.max(1, (call.deadline - world.now) / 1000)
      const request = call.request(descriptor, { token, deadlineMs })
      if (!call.finished && world.request(node, request)) return
      // Nothing left the client: no connection, or no more need.
      this.attempts.delete(token)
      call.uncertain--
      if (call.finished) return
      this.forgetLeader(call.position, node)
      this.retrySoon(call)
    })
  }

  private retrySoon(call: Call): void {
    const attempts = call.attempts
    this.world.schedule(this.world.now + this.prng.int(1_000, 40_000), () => {
      if (!call.finished && call.attempts === attempts) this.attempt(call)
    })
  }

  /** For a while many answers are lost, so that commands are retried across what happens meanwhile. */
  loseAnswers(durationUs: number): void {
    this.losesAnswersUntil = this.world.now + durationUs
  }

  /** From now on no answer is lost. */
  heal(): void {
    this.isHealed = true
  }

  /** A node has answered; the answer takes a while to come back. */
  answer(reply: Reply): void {
    const { world, prng } = this
    const attempt = this.attempts.get(reply.token)
    if (attempt !== undefined && reply._tag !== "Refused") {
      attempt.call.served(attempt.node, reply, attempt.sentAt)
    }
    const isLossy = world.now < this.losesAnswersUntil
    const lossRate = isLossy ? 0.5 : this.parameters.answerLossRate
    if (!this.isHealed && prng.chance(lossRate)) return
    world.schedule(world.now + prng.int(20, 1_500), () => this.answered(reply))
  }

  private answered(reply: Reply): void {
    const attempt = this.attempts.get(reply.token)
    if (attempt === undefined) return
    assert(!attempt.answered, "a request is answered once")
    attempt.answered = true
    this.attempts.delete(reply.token)
    const { call, node, descriptor } = attempt
    const { world, nowMs } = this
    world.trace.record("complete", world.now, reply.token, reply._tag.length)
    const route = this.routeOf(call.position)
    const isSameRange = route?.descriptor.id === descriptor.id
    if (route !== undefined && isSameRange) {
      const fromLeader = reply._tag !== "Refused" && reply.receipt.role === "leader"
      heardTime(route, { rangeTime: reply.rangeTime, fromLeader, nowMs })
    }
    if (reply._tag === "Refused") return this.refused(attempt, reply)
    const { role, term } = reply.receipt
    if (route !== undefined && role === "leader" && isSameRange) heardLeader(route, node, term)
    if (call.finished) return
    const verdict = call.answered(reply)
    if (verdict === "finished") {
      call.finished = true
      return
    }
    call.uncertain--
    if (verdict === "refusedForEver") {
      if (call.uncertain === 0) this.end(call)
      return
    }
    this.refresh()
    this.retrySoon(call)
  }

  private refused({ call, node }: Attempt, { refusal }: Refused): void {
    const { _tag } = refusal
    if (_tag === "StorageCorrupt" && !this.world.mayBeDamaged(node)) {
      throw new Violation("assertion", `${_tag}: ${refusal.message}`)
    }
    if (_tag === "InvalidRequest" && !call.mayBeCut) {
      throw new Violation("assertion", `${_tag}: ${refusal.message}`)
    }
    if (_tag !== "OutcomeUnknown") call.uncertain--
    if (call.finished) return
    if (_tag === "InvalidRequest") {
      if (call.uncertain === 0) this.end(call)
      return
    }
    const route = this.routeOf(call.position)
    if (_tag === "NotLeader") {
      if (route !== undefined && refusal.range === route.descriptor.id) {
        heardNotLeader(route, node, refusal.leader)
      }
    } else if (_tag === "RangeMoved") {
      const learned = refusal.descriptors.map((descriptor) => this.routes.learn(descriptor))
      if (!learned.includes(true)) this.refresh()
    } else this.forgetLeader(call.position, node)
    this.retrySoon(call)
  }

  /** Asks some node what it knows of all ranges. */
  private refresh(): void {
    const { world, prng } = this
    const reports = world.rangesOf(prng.pick(world.nodeIds))
    for (const report of reports ?? []) this.routes.report(report)
  }
}
