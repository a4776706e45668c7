import type { Effect } from "effect"
import type { ClientSession, ClientShape, Found } from "../../../src/client/Client.ts"
import type { KvorumError } from "../../../src/Errors.ts"
import { text, utf8 } from "../../../src/lib/bytes.ts"
import { hashPosition, keyIn } from "../../../src/lib/position.ts"
import type { Prng } from "../../../src/lib/prng.ts"
import { bootstrapDescriptors, defaultNamespace } from "../../../src/server/bootstrap.ts"
import type { NodeId, Position, Version } from "../../../src/types.ts"
import { Counters } from "../counters.ts"
import { History, type RecordedOperation } from "../history.ts"
import { type KeyPlace, Keys } from "../keys.ts"
import type { RegisterValue } from "../linearizability.ts"
import type { WorkloadParameters } from "../parameters.ts"
import type { Trace } from "../trace.ts"
import { type Seen, Values } from "../values.ts"
import { Violation } from "../violation.ts"
import { ClientProgram } from "./ClientProgram.ts"
import type { Machine } from "./machine.ts"

export interface WorkloadWorld {
  readonly now: number
  readonly trace: Trace
  readonly founders: ReadonlyArray<NodeId>
  schedule(time: number, run: () => void): void
  violated(violation: Violation): void
}

const namespace = "default"
const counterCount = 3
/** A node's clock may be so much slower than the recorder's. */
const slowestClock = 0.98
/** A call costs more here than in the world simulator: there are fewer of them, in more of simulated time. */
const thinkTimes = 2
/** How long a call of the liveness phase may take before it is made again. */
const patientMs = 5000

/** One sequence of calls, each after the last. */
interface Thread {
  readonly program: ClientProgram
  process: number
  readonly session: ClientSession | undefined
  /** What the thread's session has shown of each key. */
  readonly shown: Map<number, Version>
}

/**
 * Programs that use the client library on few keys, as in the world simulator: each write has its own value, and counters must end at the sum of the
 * distinct adds. Retries, routing and sessions are the library's.
 */
export class ServerWorkload {
  readonly history = new History()
  readonly counters = new Counters()
  unknownOutcomes = 0
  /** Calls that did not succeed, by what they ended with. */
  readonly errors: Record<string, number> = {}
  private readonly world: WorkloadWorld
  private readonly parameters: WorkloadParameters
  private readonly prng: Prng
  private readonly programs: ReadonlyArray<ClientProgram>
  private readonly keys: Keys
  private readonly values: Values
  private readonly readValues = new Set<RegisterValue>()
  private readonly finals = new Map<number, { readonly value: number; readonly readAt: number }>()
  private readonly attemptMs: number
  private nextProcess: number
  private stopped = false
  private underWay = 0

  constructor(options: {
    readonly world: WorkloadWorld
    readonly parameters: WorkloadParameters
    readonly prng: Prng
    readonly machines: ReadonlyArray<Machine>
  }) {
    const { world, parameters, prng, machines } = options
    this.world = world
    this.parameters = parameters
    this.prng = prng
    this.attemptMs = Math.round(prng.pick([1000, 1000, 300, 100]))
    this.programs = machines.map(
      (machine) => new ClientProgram(machine, world.founders, this.attemptMs),
    )
    const ranges = bootstrapDescriptors(world.founders).filter(
      (range) => range.namespace === defaultNamespace,
    )
    this.keys = new Keys(ranges, parameters.keys)
    this.values = new Values(prng, parameters.valueBytesMax)
    this.nextProcess = machines.length * parameters.processesPerClient
  }

  /** Of every key and counter. */
  get positions(): ReadonlyArray<Position> {
    return [...this.keys.all.map(({ position }) => position), ...counterPositions]
  }

  get isIdle(): boolean {
    return this.underWay === 0
  }

  start(): void {
    const { parameters, programs } = this
    for (const [c, program] of programs.entries()) {
      for (let p = 0; p < parameters.processesPerClient; p++) this.begin(program, c, p)
    }
  }

  stop(): void {
    this.stopped = true
  }

  private begin(program: ClientProgram, c: number, p: number): void {
    const process = c * this.parameters.processesPerClient + p
    const go = (session: ClientSession | undefined) =>
      this.think({ program, process, session, shown: new Map() })
    if (!this.prng.chance(0.5)) return go(undefined)
    program.call(
      (client) => client.session(),
      (ended) => go("answer" in ended ? ended.answer : undefined),
    )
  }

  private think(thread: Thread): void {
    const { world, prng, parameters } = this
    const pause = thinkTimes * prng.logUniform(parameters.thinkMinUs, parameters.thinkMaxUs)
    world.schedule(world.now + Math.round(pause), () => {
      if (!this.stopped) this.operate(thread)
    })
  }

  private options(thread: Thread) {
    const { prng } = this
    const deadlineMs = Math.round(prng.logUniform(200, 8000))
    return thread.session === undefined ? { deadlineMs } : { deadlineMs, session: thread.session }
  }

  private operate(thread: Thread): void {
    const { prng, parameters } = this
    if (prng.chance(Math.max(0.05, parameters.addShare))) return this.add(thread)
    const key = this.keys.draw(prng)
    if (prng.chance(parameters.readShare)) return this.read(thread, key)
    const draw = prng.float()
    if (draw < 0.5) this.put(thread, key)
    else if (draw < 0.85) this.compareAndSet(thread, key)
    else this.delete(thread, key)
  }

  private record(
    fields: Pick<RecordedOperation, "process" | "key" | "kind"> & Partial<RecordedOperation>,
  ): RecordedOperation {
    const record: RecordedOperation = {
      staleUs: 0,
      value: 0,
      expected: 0,
      callTime: this.world.now,
      returnTime: 0,
      outcome: undefined,
      found: undefined,
      ...fields,
    }
    this.history.invoke(record)
    this.world.trace.record("invoke", this.world.now, record.process, record.key, record.value)
    return record
  }

  /** Makes a call of a thread, notes what came of it, and has the thread go on. */
  private call<A>(
    thread: Thread,
    record: RecordedOperation,
    what: (client: ClientShape) => Effect.Effect<A, KvorumError>,
    succeeded: (answer: A) => Pick<RecordedOperation, "outcome" | "found"> & { value?: number },
  ): void {
    const { world, history } = this
    this.underWay++
    thread.program.call(what, (ended) => {
      this.underWay--
      const result = "answer" in ended ? succeeded(ended.answer) : this.failed(record, ended.error)
      history.complete(record, world.now, result)
      world.trace.record("complete", world.now, record.process, record.key, record.value)
      if (record.outcome === "info") thread.process = this.nextProcess++
      this.think(thread)
    })
  }

  private failed(record: { readonly kind: string; readonly key: number }, error: KvorumError) {
    this.errors[error._tag] = (this.errors[error._tag] ?? 0) + 1
    const isUnknown = error._tag === "OutcomeUnknown" && record.kind !== "get"
    if (isUnknown) {
      this.unknownOutcomes++
      const key = this.keys.all[record.key]
      if (key !== undefined) this.keys.noteUnknown(key)
    }
    return { outcome: isUnknown ? "info" : "fail", found: undefined } as const
  }

  private showed(thread: Thread, key: KeyPlace, version: Version): void {
    if (thread.session === undefined) return
    thread.shown.set(key.number, Math.max(version, thread.shown.get(key.number) ?? 0))
  }

  private put(thread: Thread, key: KeyPlace): void {
    const value = this.values.draw()
    const record = this.record({ process: thread.process, key: key.number, kind: "put", value })
    const [name, bytes] = [keyOf(key), this.values.bytesOf(value)]
    this.call(
      thread,
      record,
      (client) => client.put(namespace, name, bytes, this.options(thread)),
      ({ version }) => {
        this.values.learn(key, value, version)
        this.showed(thread, key, version)
        return { outcome: "ok", found: undefined }
      },
    )
  }

  private compareAndSet(thread: Thread, key: KeyPlace): void {
    const { prng, values } = this
    const known = values.seenOf(key)
    const seen: Seen | undefined = prng.chance(0.8) ? known[known.length - 1] : known[0]
    const value = values.draw()
    const expected = seen?.value ?? 0
    const kind = "compareAndSet"
    const record = this.record({ process: thread.process, key: key.number, kind, value, expected })
    const expect =
      seen === undefined || seen.value === 0
        ? ({ absent: true } as const)
        : prng.chance(0.5)
          ? { version: seen.version }
          : { value: values.bytesOf(expected) }
    const options = { ...this.options(thread), expect, value: values.bytesOf(value) }
    this.call(
      thread,
      record,
      (client) => client.compareAndSet(namespace, keyOf(key), options),
      ({ swapped, version }) => {
        if (!swapped) return { outcome: "no", found: values.valueAt(key, version) }
        values.learn(key, value, version)
        this.showed(thread, key, version)
        return { outcome: "ok", found: undefined }
      },
    )
  }

  private delete(thread: Thread, key: KeyPlace): void {
    const record = this.record({ process: thread.process, key: key.number, kind: "delete" })
    this.call(
      thread,
      record,
      (client) => client.delete(namespace, keyOf(key), this.options(thread)),
      ({ existed }) => {
        this.values.learn(key, 0, 0)
        return { outcome: existed ? "ok" : "no", found: undefined }
      },
    )
  }

  private read(thread: Thread, key: KeyPlace): void {
    const { prng, parameters } = this
    const isStale = prng.chance(parameters.staleShare)
    const maxStalenessMs = Math.round(prng.logUniform(50, 2000))
    const isBounded = isStale && prng.chance(parameters.boundedShare)
    const level = isBounded
      ? ({ level: "bounded", maxStalenessMs } as const)
      : isStale
        ? ({ level: "local" } as const)
        : { anyReplica: prng.chance(parameters.anyReplicaShare) }
    const staleUs = isBounded
      ? (maxStalenessMs * 1000) / slowestClock
      : isStale
        ? Number.POSITIVE_INFINITY
        : 0
    const record = this.record({ process: thread.process, key: key.number, kind: "get", staleUs })
    const options = { ...this.options(thread), ...level }
    const floor = thread.shown.get(key.number) ?? 0
    this.call(
      thread,
      record,
      (client) => client.get(namespace, keyOf(key), options),
      (found) => {
        const value = this.seen(key, found)
        if (found.found && thread.session !== undefined) {
          if (found.version < floor) {
            const what = `a session that has seen version ${floor} of key ${key.number} is shown ${found.version}`
            this.world.violated(new Violation("staleRead", what))
          }
          this.showed(thread, key, found.version)
        }
        return { outcome: "ok", found: undefined, value }
      },
    )
  }

  private seen(key: KeyPlace, found: Found): RegisterValue {
    if (!found.found) {
      this.values.learn(key, 0, 0)
      return 0
    }
    const value = this.values.valueOf(found.value)
    this.values.learn(key, value, found.version)
    this.readValues.add(value)
    return value
  }

  private add(thread: Thread): void {
    const { world, prng, counters } = this
    const counter = prng.int(0, counterCount - 1)
    const delta = prng.int(1, 9)
    const add = counters.begin(counter, delta, world.now)
    this.history.invoked++
    this.underWay++
    world.trace.record("invoke", world.now, thread.process, counter, delta)
    thread.program.call(
      (client) => client.add(namespace, `c${counter}`, delta, this.options(thread)),
      (ended) => {
        this.underWay--
        add.returnTime = world.now
        if ("answer" in ended) {
          add.outcome = "ok"
          add.sum = Number(ended.answer.value)
          this.history.succeeded++
        } else add.outcome = this.failed({ kind: "add", key: -1 }, ended.error).outcome
        world.trace.record("complete", world.now, thread.process, counter, add.sum ?? 0)
        this.think(thread)
      },
    )
  }

  // Liveness

  /** A write to every range as it was at first, each until it succeeds. */
  writeEverywhere(done: () => void): void {
    let open = 0
    const keys = this.keys.all.slice(-Math.max(8, this.parameters.keys))
    for (const key of keys) {
      const value = this.values.draw()
      const record = this.record({
        process: this.nextProcess++,
        key: key.number,
        kind: "put",
        value,
      })
      open++
      const succeeded = () => {
        this.history.complete(record, this.world.now, { outcome: "ok", found: undefined })
        if (--open === 0) done()
      }
      this.insist(
        (client) =>
          client.put(namespace, keyOf(key), this.values.bytesOf(value), { deadlineMs: patientMs }),
        succeeded,
        () => {
          // It may have been carried out, or may yet be: a second one is another operation.
          this.history.complete(record, this.world.now, { outcome: "info", found: undefined })
          if (--open === 0) done()
        },
      )
    }
  }

  /** Every key and counter once more, each until it succeeds. */
  readEverything(done: () => void): void {
    let open = this.keys.all.length + counterCount
    const one = () => {
      if (--open === 0) done()
    }
    const options = { deadlineMs: patientMs }
    for (const key of this.keys.all) {
      const record = this.record({ process: this.nextProcess++, key: key.number, kind: "get" })
      this.insist(
        (client) => client.get(namespace, keyOf(key), options),
        (found) => {
          const value = this.seen(key, found)
          this.history.complete(record, this.world.now, { outcome: "ok", found: undefined, value })
          one()
        },
      )
    }
    for (let counter = 0; counter < counterCount; counter++) {
      const readAt = this.world.now
      this.insist(
        (client) => client.get(namespace, `c${counter}`, options),
        (found) => {
          const value = found.found ? Number(text(found.value)) : 0
          this.finals.set(counter, { value, readAt })
          one()
        },
      )
    }
  }

  /** Calls again while it fails. `unknown` ends it where the outcome is unknown, so that a write is not made twice. */
  private insist<A>(
    what: (client: ClientShape) => Effect.Effect<A, KvorumError>,
    done: (answer: A) => void,
    unknown?: () => void,
  ): void {
    const program = this.prng.pick(this.programs)
    program.call(what, (ended) => {
      if ("answer" in ended) return done(ended.answer)
      if (ended.error._tag === "OutcomeUnknown" && unknown !== undefined) return unknown()
      this.world.schedule(this.world.now + 100_000, () => this.insist(what, done, unknown))
    })
  }

  check(): void {
    this.history.check()
    for (const value of this.history.failedValues()) {
      if (this.readValues.has(value)) {
        throw new Violation("value", `a read returned ${value}, whose write had no effect`)
      }
    }
    for (const [counter, { value, readAt }] of this.finals) {
      this.counters.check(counter, value, readAt)
    }
  }
}

function keyOf({ position }: KeyPlace): Uint8Array {
  return keyIn("hash", position)
}

const counterPositions = Array.from({ length: counterCount }, (_, i) =>
  hashPosition(defaultNamespace, utf8(`c${i}`)),
)
