import { assert } from "../../src/lib/assert.ts"
import { equalBytes } from "../../src/lib/bytes.ts"
import type { Prng } from "../../src/lib/prng.ts"
import { defaultNamespace } from "../../src/server/bootstrap.ts"
import type { Reply, Request } from "../../src/server/requests.ts"
import type { NodeId, RangeDescriptor, Version } from "../../src/types.ts"
import { commandStatuses } from "../../src/wire/command.ts"
import { History, type RecordedOperation } from "./history.ts"
import { type KeyPlace, Keys } from "./keys.ts"
import type { RegisterOperation, RegisterValue } from "./linearizability.ts"
import { encodeMutation, type Identity } from "./mutation.ts"
import type { WorkloadParameters } from "./parameters.ts"
import type { Trace } from "./trace.ts"
import { type Seen, Values } from "./values.ts"
import { Violation } from "./violation.ts"

/** What clients need of the world. */
export interface WorkloadWorld {
  readonly now: number
  readonly trace: Trace
  readonly descriptors: ReadonlyArray<RangeDescriptor>
  readonly nodeIds: ReadonlyArray<NodeId>
  schedule(time: number, run: () => void): void
  /** False when the node is down: nothing was sent. The answer comes through `Workload.answer`. */
  request(node: NodeId, request: Request): boolean
  /** A clock of the client's in the unit of versions, before it has heard of a range's time. */
  clientTime(): Version
}

interface Call {
  readonly identity: Identity
  readonly key: KeyPlace
  readonly record: RecordedOperation
  readonly deadline: number
  /** Encoded once: every retry sends the same bytes. `undefined` for a read. */
  readonly command: Uint8Array | undefined
  readonly sequence: number
  /** A read of the key by a scan instead of a get. */
  readonly scans: boolean
  /** Attempts that may still take effect, or have. */
  uncertain: number
  attempts: number
  finished: boolean
  readonly done: () => void
}

interface Attempt {
  readonly call: Call
  readonly node: NodeId
  answered: boolean
}

/**
 * Closed-loop clients on few keys. Each write has its own value, so that a read tells which write it saw. A mutation keeps its identity over all of
 * its attempts; attempts go to the node believed to lead, or to any.
 *
 * What an attempt leaves behind is told apart: a refusal says "no trace", silence says nothing. An operation whose every attempt was refused
 * has failed; one with a silent attempt may have happened.
 */
export class Workload {
  readonly history = new History()
  retries = 0
  unknownOutcomes = 0
  private readonly world: WorkloadWorld
  private readonly parameters: WorkloadParameters
  private readonly prng: Prng
  private readonly keys: Keys
  private readonly attempts = new Map<number, Attempt>()
  private readonly leaders = new Map<number, NodeId>()
  private readonly rangeTimes = new Map<number, Version>()
  private readonly values: Values
  private nextToken = 1
  private nextProcess: number
  private stopped = false

  constructor(options: { world: WorkloadWorld; parameters: WorkloadParameters; prng: Prng }) {
    const { world, parameters, prng } = options
    this.world = world
    this.parameters = parameters
    this.prng = prng
    this.values = new Values(prng, parameters.valueBytesMax)
    this.nextProcess = parameters.clients * parameters.processesPerClient
    const ranges = world.descriptors.filter(({ namespace }) => namespace === defaultNamespace)
    this.keys = new Keys(ranges, parameters.keys)
  }

  /** Begins; every process goes on until `stop`. */
  start(): void {
    const { clients, processesPerClient } = this.parameters
    for (let c = 0; c < clients; c++) {
      const identity = { id: this.newClientId(), nextSequence: 1, unanswered: new Set<number>() }
      for (let p = 0; p < processesPerClient; p++) {
        this.think(identity, c * processesPerClient + p)
      }
    }
  }

  private newClientId(): number {
    return this.prng.uint32() * 1024 + this.prng.int(1, 1023)
  }

  stop(): void {
    this.stopped = true
  }

  /** Operations that no answer has come for, of those begun before `stop`. */
  get underWay(): number {
    return this.attempts.size
  }

  private think(identity: Identity, process: number): void {
    const { thinkMinUs, thinkMaxUs } = this.parameters
    const pause = this.isBehind ? 1_000 : this.prng.logUniform(thinkMinUs, thinkMaxUs)
    this.world.schedule(this.world.now + Math.round(pause), () => {
      if (!this.stopped) this.begin(identity, process)
    })
  }

  /** Fewer operations so far than a seed should have: then clients hurry. */
  private get isBehind(): boolean {
    return this.history.invoked < (this.world.now / 1e6) * 24
  }

  private begin(identity: Identity, process: number): void {
    const { prng, parameters } = this
    const key = this.keys.draw(prng)
    const known = this.values.seenOf(key)
    const isRead = prng.chance(parameters.readShare)
    const draw = prng.float()
    const kind = isRead ? "get" : draw < 0.5 ? "put" : draw < 0.85 ? "compareAndSet" : "delete"
    // Mostly what was seen last, so that conditions often hold; sometimes something older.
    const seen = prng.chance(0.8) ? known[known.length - 1] : prng.pick([undefined, ...known])
    const drawn = prng.logUniform(parameters.deadlineMinUs, parameters.deadlineMaxUs)
    const deadline = this.isBehind ? parameters.deadlineMinUs : drawn
    const isInfo = (call: Call) => call.record.outcome === "info"
    const call = this.call({
      identity,
      process,
      key,
      kind,
      seen,
      deadlineUs: deadline,
      done: () => this.think(identity, isInfo(call) ? this.nextProcess++ : process),
    })
  }

  /** Begins one operation; `done` is called when it has ended in whatever way. */
  private call(options: {
    identity: Identity
    process: number
    key: KeyPlace
    kind: RegisterOperation["kind"]
    seen: Seen | undefined
    deadlineUs: number
    done: () => void
  }): Call {
    const { identity, key, kind, seen } = options
    const { world, prng } = this
    const isRead = kind === "get"
    const value = kind === "put" || kind === "compareAndSet" ? this.values.draw() : 0
    const record: RecordedOperation = {
      process: options.process,
      key: key.number,
      kind,
      value,
      expected: kind === "compareAndSet" ? (seen?.value ?? 0) : 0,
      callTime: world.now,
      returnTime: 0,
      outcome: undefined,
      found: undefined,
    }
    const sequence = isRead ? 0 : identity.nextSequence++
    const deadline = Math.round(world.now + options.deadlineUs)
    const command = isRead
      ? undefined
      : encodeMutation({
          identity,
          sequence,
          key,
          kind,
          seen,
          value,
          expiresAt:
            (this.rangeTimes.get(key.range.id) ?? world.clientTime()) +
            Math.round(options.deadlineUs) +
            10_000_000,
          values: this.values,
          prng,
        })
    if (!isRead) identity.unanswered.add(sequence)
    const call: Call = {
      identity,
      key,
      record,
      deadline,
      command,
      sequence,
      scans: isRead && prng.chance(0.15),
      uncertain: 0,
      attempts: 0,
      finished: false,
      done: options.done,
    }
    this.history.invoke(record)
    world.trace.record("invoke", world.now, key.number, value, sequence)
    world.schedule(deadline, () => this.giveUp(call))
    this.attempt(call)
    return call
  }

  private attempt(call: Call): void {
    if (call.finished) return
    const { world, prng, parameters } = this
    const voters = call.key.range.replicas
    const believed = this.leaders.get(call.key.range.id)
    const node = believed !== undefined && !prng.chance(0.1) ? believed : prng.pick(voters).node
    call.attempts++
    if (call.attempts > 1) this.retries++
    this.send(call, node)
    if (prng.chance(parameters.doubleSendRate)) this.send(call, prng.pick(voters).node)
    const patience = prng.logUniform(parameters.attemptMinUs, parameters.attemptMaxUs)
    const attempts = call.attempts
    world.schedule(world.now + Math.round(patience), () => {
      if (call.finished || call.attempts !== attempts) return
      this.leaders.delete(call.key.range.id)
      this.attempt(call)
    })
  }

  private send(call: Call, node: NodeId): void {
    const { world, prng } = this
    const token = this.nextToken++
    call.uncertain++
    const attempt: Attempt = { call, node, answered: false }
    this.attempts.set(token, attempt)
    world.schedule(world.now + prng.int(20, 1_500), () => {
      if (!call.finished && world.request(node, this.requestOf(call, token))) return
      // Nothing left the client: no connection, or no more need.
      this.attempts.delete(token)
      call.uncertain--
      if (!call.finished) {
        if (this.leaders.get(call.key.range.id) === node) this.leaders.delete(call.key.range.id)
        this.retrySoon(call)
      }
    })
  }

  private requestOf(call: Call, token: number): Request {
    const { range, position } = call.key
    const deadlineMs = Math.max(1, (call.deadline - this.world.now) / 1000)
    const base = { token, range: range.id, deadlineMs }
    if (call.command !== undefined) return { _tag: "Mutate", ...base, command: call.command }
    const read = { level: "linearizable", boundsVersion: range.boundsVersion } as const
    if (!call.scans) return { _tag: "Get", ...base, ...read, position }
    // From the key on; the page's first entry tells whether the key is there.
    return { _tag: "Scan", ...base, ...read, lower: position, upper: range.end, limit: 3 }
  }

  private retrySoon(call: Call): void {
    const attempts = call.attempts
    this.world.schedule(this.world.now + this.prng.int(1_000, 40_000), () => {
      if (!call.finished && call.attempts === attempts) this.attempt(call)
    })
  }

  /** A node has answered; the answer takes a while to come back. */
  answer(reply: Reply): void {
    const { world, prng } = this
    world.schedule(world.now + prng.int(20, 1_500), () => this.answered(reply))
  }

  private answered(reply: Reply): void {
    const attempt = this.attempts.get(reply.token)
    if (attempt === undefined) return
    assert(!attempt.answered, "a request is answered once")
    attempt.answered = true
    this.attempts.delete(reply.token)
    const { call, node } = attempt
    this.world.trace.record("complete", this.world.now, reply.token, reply._tag.length)
    const range = call.key.range.id
    // A leader's word is taken even when it is earlier: the last leader's clock may have been far ahead.
    const fromLeader = reply._tag !== "Refused"
    if (fromLeader || reply.rangeTime > (this.rangeTimes.get(range) ?? 0)) {
      this.rangeTimes.set(range, reply.rangeTime)
    }
    switch (reply._tag) {
      case "Mutated":
        this.mutated(call, node, reply)
        return
      case "Value":
        this.leaders.set(range, node)
        this.readDone(call, reply.value, reply.version)
        return
      case "Page": {
        const entry = reply.entries[0]
        const present = entry !== undefined && equalBytes(entry.position, call.key.position)
        this.readDone(call, present ? entry.value : undefined, present ? entry.version : 0)
        return
      }
      case "Refused":
        this.refused(call, node, reply)
        return
      default:
        reply satisfies never
    }
  }

  private mutated(call: Call, node: NodeId, reply: Extract<Reply, { _tag: "Mutated" }>): void {
    this.leaders.set(call.key.range.id, node)
    const { record } = call
    switch (reply.status) {
      case commandStatuses.done: {
        const value = record.kind === "delete" ? 0 : record.value
        this.values.learn(call.key, value, reply.version)
        this.finish(call, { outcome: "ok", found: undefined })
        return
      }
      case commandStatuses.conditionFalse: {
        const found = this.values.valueAt(call.key, reply.version)
        this.finish(call, { outcome: "no", found })
        return
      }
      case commandStatuses.absent:
        this.values.learn(call.key, 0, 0)
        this.finish(call, { outcome: "no", found: undefined })
        return
      default:
        // Refused at apply, without a trace; it would be again.
        call.uncertain--
        if (call.uncertain === 0) this.finish(call, { outcome: "fail", found: undefined })
        return
    }
  }

  private readDone(call: Call, bytes: Uint8Array | undefined, version: Version): void {
    const value = bytes === undefined ? 0 : this.values.valueOf(bytes)
    this.values.learn(call.key, value, version)
    this.finish(call, { outcome: "ok", found: undefined, value })
  }

  private refused(call: Call, node: NodeId, reply: Extract<Reply, { _tag: "Refused" }>): void {
    const { refusal } = reply
    const range = call.key.range.id
    if (refusal._tag === "InvalidRequest" || refusal._tag === "StorageCorrupt") {
      throw new Violation("assertion", `${refusal._tag}: ${refusal.message}`)
    }
    if (refusal._tag === "RangeMoved") throw new Violation("assertion", "a range moved by itself")
    if (refusal._tag !== "OutcomeUnknown") call.uncertain--
    if (call.finished) return
    if (refusal._tag === "NotLeader" && refusal.leader !== undefined && refusal.leader !== node) {
      this.leaders.set(range, refusal.leader)
    } else if (this.leaders.get(range) === node) {
      this.leaders.delete(range)
    }
    this.retrySoon(call)
  }

  private giveUp(call: Call): void {
    if (call.finished) return
    const isRead = call.record.kind === "get"
    const failed = isRead || call.uncertain === 0
    if (!failed) {
      this.unknownOutcomes++
      this.keys.noteUnknown(call.key)
    }
    this.finish(call, { outcome: failed ? "fail" : "info", found: undefined })
  }

  private finish(
    call: Call,
    result: Pick<RecordedOperation, "outcome" | "found"> & { value?: RegisterValue },
  ): void {
    if (call.finished) return
    call.finished = true
    // The caller was told, so that no retry follows: a sequence may be acknowledged whatever became of it.
    call.identity.unanswered.delete(call.sequence)
    this.history.complete(call.record, this.world.now, result)
    this.world.trace.record("complete", this.world.now, call.key.number, call.record.value)
    call.done()
  }

  /** One write into every range of the namespace; `done` is called when all have answered. */
  writeEverywhere(done: () => void): void {
    const identity = { id: this.newClientId(), nextSequence: 1, unanswered: new Set<number>() }
    const ranges = new Map(this.keys.all.map((key) => [key.range.id, key]))
    let open = ranges.size
    for (const key of ranges.values()) {
      this.untilDone(identity, key, "put", () => {
        open--
        if (open === 0) done()
      })
    }
  }

  /** Reads every key, for the end of the history. */
  readEverything(done: () => void): void {
    const identity = { id: this.newClientId(), nextSequence: 1, unanswered: new Set<number>() }
    let open = this.keys.all.length
    for (const key of this.keys.all) {
      this.untilDone(identity, key, "get", () => {
        open--
        if (open === 0) done()
      })
    }
  }

  private untilDone(
    identity: Identity,
    key: KeyPlace,
    kind: "put" | "get",
    done: () => void,
  ): void {
    const call = this.call({
      identity,
      process: this.nextProcess++,
      key,
      kind,
      seen: undefined,
      deadlineUs: 2_000_000,
      done: () => {
        if (call.record.outcome === "ok") done()
        else
          this.world.schedule(this.world.now + 1_000, () =>
            this.untilDone(identity, key, kind, done),
          )
      },
    })
  }
}
