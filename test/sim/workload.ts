import { compareBytes, utf8 } from "../../src/lib/bytes.ts"
import { hashPosition } from "../../src/lib/position.ts"
import type { Prng } from "../../src/lib/prng.ts"
import { defaultNamespace } from "../../src/server/bootstrap.ts"
import { contains } from "../../src/server/descriptors.ts"
import type { Reply } from "../../src/server/requests.ts"
import type { NodeId, Position } from "../../src/types.ts"
import { Caller, type CallerWorld } from "./caller.ts"
import { Counters } from "./counters.ts"
import { History, type RecordedOperation } from "./history.ts"
import { AddCall, plainStyle, ReadCall, type ReadStyle, type Result, WriteCall } from "./keyCall.ts"
import { type KeyPlace, Keys } from "./keys.ts"
import type { RegisterOperation } from "./linearizability.ts"
import { addMutation, type Identity, registerMutation } from "./mutation.ts"
import type { WorkloadParameters } from "./parameters.ts"
import { PassingKeys } from "./passingKeys.ts"
import type { CurrentRead } from "./readFloors.ts"
import { type ServedRead, ServedReads } from "./servedReads.ts"
import { type Seen, Values } from "./values.ts"
import { Violation } from "./violation.ts"

export interface WorkloadWorld extends CallerWorld {
  /** A read was answered that promises to hold all that was there at `since`. */
  readServed(read: CurrentRead & { readonly position: Position }): void
  /** Which life of its process a node is in. */
  lifeOf(node: NodeId): number
}

/** Counters that clients add to. */
const counterCount = 3
/** Numbers of counters, apart from those of keys. */
const firstCounter = 1_000_000
/** A node's clock may be so much slower than the recorder's. */
const slowestClock = 0.98

/**
 * Closed-loop clients on few keys. Each write has its own value, so that a read tells which write it saw. Besides, they add to counters, which must end at the
 * sum of the distinct adds.
 *
 * Reads are of every level. A linearizable one has its place in the history of its key, whoever served it; a bounded one too, as if it had begun by its bound
 * earlier; a local one must only be of a write that happened, and not go backwards at its replica (servedReads.ts).
 */
export class Workload {
  readonly history = new History()
  readonly served = new ServedReads()
  readonly counters = new Counters()
  readonly caller: Caller
  readonly passing: PassingKeys
  unknownOutcomes = 0
  private readonly world: WorkloadWorld
  private readonly parameters: WorkloadParameters
  private readonly prng: Prng
  private readonly keys: Keys
  private readonly values: Values
  private readonly counterPlaces: ReadonlyArray<KeyPlace>
  private readonly finals = new Map<number, { readonly value: number; readonly readAt: number }>()
  private nextProcess: number
  private stopped = false

  constructor(options: { world: WorkloadWorld; parameters: WorkloadParameters; prng: Prng }) {
    const { world, parameters, prng } = options
    this.world = world
    this.parameters = parameters
    this.prng = prng
    this.caller = new Caller(options)
    this.passing = new PassingKeys({ world, caller: this.caller, prng: prng.fork() })
    this.values = new Values(prng, parameters.valueBytesMax)
    this.nextProcess = parameters.clients * parameters.processesPerClient
    const ranges = world.descriptors.filter(({ namespace }) => namespace === defaultNamespace)
    this.keys = new Keys(ranges, parameters.keys)
    this.counterPlaces = Array.from({ length: counterCount }, (_, i) => ({
      number: firstCounter + i,
      position: hashPosition(defaultNamespace, utf8(`c${i}`)),
      home: ranges[0] as KeyPlace["home"],
    }))
  }

  /** Every key used so far in the interval, in order. */
  keysWithin(start: Position, end: Position): ReadonlyArray<Position> {
    return this.keys.all
      .map(({ position }) => position)
      .filter((position) => contains({ start, end }, position))
      .sort(compareBytes)
  }

  /** Throws `Violation` for bytes that no client has written. */
  checkValue(bytes: Uint8Array): void {
    this.values.valueOf(bytes)
  }

  get retries(): number {
    return this.caller.retries
  }

  answer(reply: Reply): void {
    this.caller.answer(reply)
  }

  /** Begins; every process goes on until `stop`. */
  start(): void {
    const { clients, processesPerClient } = this.parameters
    for (let c = 0; c < clients; c++) {
      const identity = this.newIdentity()
      for (let p = 0; p < processesPerClient; p++) {
        this.think(identity, c * processesPerClient + p)
      }
    }
    this.passing.start()
  }

  private newIdentity(): Identity {
    const id = this.prng.uint32() * 1024 + this.prng.int(1, 1023)
    return { id, nextSequence: 1, unanswered: new Set<number>() }
  }

  stop(): void {
    this.caller.heal()
    this.stopped = true
    this.passing.stop()
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
    const drawn = prng.logUniform(parameters.deadlineMinUs, parameters.deadlineMaxUs)
    const deadlineUs = this.isBehind ? parameters.deadlineMinUs : drawn
    if (prng.chance(parameters.addShare)) {
      this.add(identity, deadlineUs, () => this.think(identity, process))
      return
    }
    const key = this.keys.draw(prng)
    const again = (record: RecordedOperation) => () =>
      this.think(identity, record.outcome === "info" ? this.nextProcess++ : process)
    if (prng.chance(parameters.readShare)) {
      const style = this.drawStyle(key)
      const record = this.record({ process, key, kind: "get", staleUs: staleUsOf(style) })
      this.read({ key, style, record, deadlineUs, done: again(record) })
      return
    }
    const draw = prng.float()
    const kind = draw < 0.5 ? "put" : draw < 0.85 ? "compareAndSet" : "delete"
    const known = this.values.seenOf(key)
    // Mostly what was seen last, so that conditions often hold; sometimes something older.
    const seen = prng.chance(0.8) ? known[known.length - 1] : prng.pick([undefined, ...known])
    const record = this.record({ process, key, kind, seen })
    this.write({ identity, key, seen, record, deadlineUs, done: again(record) })
  }

  private drawStyle(key: KeyPlace): ReadStyle {
    const { prng, parameters } = this
    const scans = prng.chance(0.15)
    if (!prng.chance(parameters.staleShare)) {
      const anyReplica = prng.chance(parameters.anyReplicaShare)
      return { ...plainStyle, anyReplica, scans }
    }
    const seen = this.values.seenOf(key)
    const latest = seen[seen.length - 1]?.version ?? 0
    const atLeast = prng.chance(parameters.floorShare) ? latest : 0
    if (!prng.chance(parameters.boundedShare)) {
      return { ...plainStyle, level: "local", atLeast, scans }
    }
    const maxStalenessMs = Math.round(prng.logUniform(5, 1_000))
    return { ...plainStyle, level: "bounded", maxStalenessMs, atLeast, scans }
  }

  private record(options: {
    process: number
    key: KeyPlace
    kind: RegisterOperation["kind"]
    seen?: Seen | undefined
    staleUs?: number
  }): RecordedOperation {
    const { kind, seen, key } = options
    const record: RecordedOperation = {
      process: options.process,
      key: key.number,
      kind,
      value: kind === "put" || kind === "compareAndSet" ? this.values.draw() : 0,
      expected: kind === "compareAndSet" ? (seen?.value ?? 0) : 0,
      staleUs: options.staleUs ?? 0,
      callTime: this.world.now,
      returnTime: 0,
      outcome: undefined,
      found: undefined,
    }
    this.history.invoke(record)
    this.world.trace.record("invoke", this.world.now, key.number, record.value)
    return record
  }

  private read(options: {
    key: KeyPlace
    style: ReadStyle
    record: RecordedOperation
    deadlineUs: number
    done: () => void
  }): void {
    const { key, style, record, done } = options
    this.caller.begin(
      new ReadCall({
        key,
        style,
        deadline: this.deadlineAfter(options.deadlineUs),
        valueOf: (bytes) => this.values.valueOf(bytes),
        noteServed: (read) => this.noteServed(read),
        readServed: ({ sentAt, ...read }) => {
          this.world.readServed({ ...read, since: sentAt - record.staleUs })
        },
        learn: (value, version) => this.values.learn(key, value, version),
        finish: (result) => this.finish(key, record, result, done),
      }),
    )
  }

  private noteServed(read: Omit<ServedRead, "life">): void {
    this.served.note({ ...read, life: this.world.lifeOf(read.node) })
  }

  private deadlineAfter(us: number): number {
    return Math.round(this.world.now + us)
  }

  private write(options: {
    identity: Identity
    key: KeyPlace
    seen: Seen | undefined
    record: RecordedOperation
    deadlineUs: number
    done: () => void
  }): void {
    const { identity, key, seen, record, deadlineUs, done } = options
    const { kind, value } = record
    const { values, prng } = this
    const head = this.mutationHead(identity, key, deadlineUs)
    this.caller.begin(
      new WriteCall({
        identity,
        key,
        mutation: registerMutation({ ...head, kind, seen, value, values, prng }),
        deadline: this.deadlineAfter(deadlineUs),
        record,
        values,
        finish: (result) => this.finish(key, record, result, done),
      }),
    )
  }

  private mutationHead(identity: Identity, key: KeyPlace, deadlineUs: number) {
    const expiresAt = this.caller.timeAt(key.position) + Math.round(deadlineUs) + 10_000_000
    return { identity, sequence: identity.nextSequence++, key, expiresAt }
  }

  private add(identity: Identity, deadlineUs: number, done: () => void): void {
    const { prng, world } = this
    const key = prng.pick(this.counterPlaces)
    const delta = prng.int(1, 5)
    const add = this.counters.begin(key.number, delta, world.now)
    this.history.invoked++
    this.caller.begin(
      new AddCall({
        identity,
        key,
        mutation: addMutation({ ...this.mutationHead(identity, key, deadlineUs), delta }),
        deadline: this.deadlineAfter(deadlineUs),
        finish: ({ outcome, sum }) => {
          add.outcome = outcome
          add.sum = sum
          add.returnTime = world.now
          if (outcome === "ok") this.history.succeeded++
          world.trace.record("complete", world.now, key.number, sum ?? 0)
          done()
        },
      }),
    )
  }

  private finish(key: KeyPlace, record: RecordedOperation, result: Result, done: () => void): void {
    if (result.outcome === "info") {
      this.unknownOutcomes++
      this.keys.noteUnknown(key)
    }
    this.history.complete(record, this.world.now, result)
    this.world.trace.record("complete", this.world.now, key.number, record.value)
    done()
  }

  // The end of a run

  /** One write into every range of the namespace that holds a key; `done` is called when all have answered. */
  writeEverywhere(done: () => void): void {
    const { routes } = this.caller
    const ranges = new Map(
      this.keys.all.map((key) => [routes.find(key.position)?.descriptor.id, key]),
    )
    const identity = this.newIdentity()
    this.all([...ranges.values()], done, (key, next) => {
      const record = this.record({ process: this.nextProcess++, key, kind: "put" })
      const end = () => next(record.outcome === "ok")
      this.write({ identity, key, seen: undefined, record, deadlineUs: 2_000_000, done: end })
    })
  }

  /** Reads every key and counter, for the end of the history. */
  readEverything(done: () => void): void {
    const deadlineUs = 2_000_000
    this.all([...this.keys.all, ...this.counterPlaces], done, (key, next) => {
      if (key.number >= firstCounter) {
        this.readCounter(key, next)
        return
      }
      const record = this.record({ process: this.nextProcess++, key, kind: "get" })
      const end = () => next(record.outcome === "ok")
      this.read({ key, style: plainStyle, record, deadlineUs, done: end })
    })
  }

  private readCounter(key: KeyPlace, next: (isDone: boolean) => void): void {
    const readAt = this.world.now
    this.caller.begin(
      new ReadCall({
        key,
        style: plainStyle,
        deadline: this.deadlineAfter(2_000_000),
        valueOf: (bytes) => Number(new TextDecoder().decode(bytes)),
        noteServed: () => {},
        readServed: () => {},
        learn: (value) => void this.finals.set(key.number, { value, readAt }),
        finish: ({ outcome }) => next(outcome === "ok"),
      }),
    )
  }

  /** Does `begin` with every key, again and again until it is done with each. */
  private all(
    keys: ReadonlyArray<KeyPlace>,
    done: () => void,
    begin: (key: KeyPlace, next: (isDone: boolean) => void) => void,
  ): void {
    let open = keys.length
    const attempt = (key: KeyPlace): void =>
      begin(key, (isDone) => {
        if (!isDone) {
          this.world.schedule(this.world.now + 1_000, () => attempt(key))
          return
        }
        open--
        if (open === 0) done()
      })
    for (const key of keys) attempt(key)
  }

  /** Throws `Violation` unless all that clients saw can have been. */
  check(): void {
    for (const [counter, { value, readAt }] of this.finals) {
      this.counters.check(counter, value, readAt)
    }
    this.history.check()
    const failed = this.history.failedValues()
    for (const value of this.served.values) {
      if (!failed.has(value)) continue
      throw new Violation("value", `a read returned ${value}, whose write had no effect`)
    }
  }
}

function staleUsOf({ level, maxStalenessMs }: ReadStyle): number {
  if (level === "linearizable") return 0
  if (level === "local") return Number.POSITIVE_INFINITY
  return Math.ceil((maxStalenessMs * 1000) / slowestClock)
}
