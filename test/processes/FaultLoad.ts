import { Effect, ManagedRuntime } from "effect"
import { Client, type ClientShape } from "../../src/client/Client.ts"
import type { KvorumError } from "../../src/Errors.ts"
import { compareBytes, text, utf8 } from "../../src/lib/bytes.ts"
import { hashPosition } from "../../src/lib/position.ts"
import { Prng } from "../../src/lib/prng.ts"
import type { RangeId } from "../../src/types.ts"
import type { RangeReport } from "../../src/wire/answers.ts"
import { conditionError, type HistoryValue, type Invocation, Recorder } from "../jepsen/history.ts"

/**
 * What clients do while a fault strikes, written down as a history: in each range one worker writes registers one after the other, without an end, so
 * that the time between two answers shows for how long nothing could be written there; others read (one of them at any replica), compare-and-set and
 * append to lists. One more has a session and a key of its own, and must find there what it wrote, at any replica, and nothing older than a bound allows.
 *
 * A call ends at its deadline at the latest; only `OutcomeUnknown` leaves open whether it had an effect.
 */
const keysPerRange = 24
const pauseMs = 4
/** Other than those that write without an end, one to a range. Every second reads at any replica. */
const readers = 2
const staleMsMax = 1500
const appenders = 1

interface Answered {
  readonly range: RangeId
  readonly atMs: number
}

export class FaultLoad {
  private readonly runtime: ManagedRuntime.ManagedRuntime<Client, unknown>
  private readonly prng: Prng
  private readonly name: string
  private readonly keys: ReadonlyMap<RangeId, ReadonlyArray<string>>
  readonly recorder: Recorder
  private readonly answered: Array<Answered> = []
  /** By name: how many calls ended so. */
  readonly errors = new Map<string, number>()
  /** Reads of a session, or with a bound, that showed too little. */
  readonly broken: Array<string> = []
  succeeded = 0
  private nextValue = 1
  private stopping = false
  private running: Promise<unknown> = Promise.resolve()

  constructor(options: {
    readonly endpoints: ReadonlyArray<string>
    readonly ranges: ReadonlyArray<RangeReport>
    readonly seed: number
    /** Begins the names of all its keys: each load begins with keys that are not there. */
    readonly name: string
    readonly deadlineMs: number
  }) {
    this.prng = new Prng(options.seed)
    this.name = options.name
    this.keys = keysOf(options.ranges, options.name)
    this.recorder = new Recorder({
      concurrency: this.keys.size + readers + appenders,
      nowNs: () => performance.now() * 1e6,
    })
    const { endpoints, deadlineMs } = options
    this.runtime = ManagedRuntime.make(Client.layer({ endpoints, deadlineMs }))
  }

  start(): void {
    const ranges = [...this.keys.keys()]
    const writers = ranges.map((range, worker) => this.write(worker, range))
    const others = Array.from({ length: readers }, (_, i) =>
      this.read(ranges.length + i, i % 2 === 1),
    )
    const last = [this.append(ranges.length + readers), this.readOwn()]
    this.running = Promise.all([...writers, ...others, ...last])
  }

  async stop(): Promise<void> {
    this.stopping = true
    await this.running
  }

  async dispose(): Promise<void> {
    await this.stop()
    await this.runtime.dispose()
  }

  private call<A>(use: (client: ClientShape) => Effect.Effect<A, KvorumError>) {
    return this.runtime.runPromise(
      Effect.flatMap(Client, use).pipe(
        Effect.match({
          onSuccess: (value) => ({ ok: true as const, value }),
          onFailure: (error) => ({ ok: false as const, error }),
        }),
      ),
    )
  }

  private failed(invocation: Invocation, error: KvorumError): void {
    this.errors.set(error._tag, (this.errors.get(error._tag) ?? 0) + 1)
    const type = error._tag === "OutcomeUnknown" ? "info" : "fail"
    this.recorder.complete(invocation, { type, error: error._tag })
  }

  private succeed(
    invocation: Invocation,
    outcome: { readonly isFalse?: boolean; readonly value?: HistoryValue } = {},
  ): void {
    this.succeeded++
    if (outcome.isFalse === true) {
      this.recorder.complete(invocation, { type: "fail", error: conditionError })
    } else if (outcome.value === undefined) this.recorder.complete(invocation, { type: "ok" })
    else this.recorder.complete(invocation, { type: "ok", value: outcome.value })
  }

  private async write(worker: number, range: RangeId): Promise<void> {
    const keys = this.keys.get(range) as ReadonlyArray<string>
    for (let i = 0; !this.stopping; i++) {
      const key = keys[i % keys.length] as string
      const value = this.nextValue++
      const invocation = this.recorder.invoke(worker, { f: "write", key, value })
      const result = await this.call((client) => client.put("default", key, `${value}`))
      if (result.ok) {
        this.succeed(invocation)
        this.answered.push({ range, atMs: performance.now() })
      } else {
        this.failed(invocation, result.error)
      }
      await Bun.sleep(pauseMs)
    }
  }

  private randomKey(): string {
    const ranges = [...this.keys.values()]
    const keys = ranges[this.prng.int(0, ranges.length - 1)] as ReadonlyArray<string>
    return keys[this.prng.int(0, keys.length - 1)] as string
  }

  /** Reads, and now and then sets what it has just read. */
  private async read(worker: number, anyReplica: boolean): Promise<void> {
    while (!this.stopping) {
      const key = this.randomKey()
      const reading = this.recorder.invoke(worker, { f: "read", key, value: null })
      const read = await this.call((client) => client.get("default", key, { anyReplica }))
      if (!read.ok) this.failed(reading, read.error)
      else {
        const found = read.value.found ? Number(text(read.value.value)) : null
        this.succeed(reading, { value: found })
        const version = read.value.found ? read.value.version : 0
        if (this.prng.chance(0.3)) await this.compareAndSet(worker, key, found, version)
      }
      await Bun.sleep(pauseMs)
    }
  }

  private async compareAndSet(
    worker: number,
    key: string,
    found: number | null,
    version: number,
  ): Promise<void> {
    const written = this.nextValue++
    const expect = found === null ? ({ absent: true } as const) : { version }
    const setting = this.recorder.invoke(worker, { f: "cas", key, value: [found, written] })
    const set = await this.call((client) =>
      client.compareAndSet("default", key, { expect, value: `${written}` }),
    )
    if (set.ok) this.succeed(setting, { isFalse: !set.value.swapped })
    else this.failed(setting, set.error)
  }

  /** Writes numbers that grow, and reads them where it may be stale: what counts is how stale. No part of the history. */
  private async readOwn(): Promise<void> {
    const key = `${this.name}-own`
    const session = await this.call((client) => client.session())
    if (!session.ok) throw session.error
    const acknowledged: Array<{ readonly value: number; readonly atMs: number }> = []
    const lastBefore = (ms: number) => acknowledged.findLast(({ atMs }) => atMs < ms)?.value ?? 0
    for (let value = 1; !this.stopping; value++) {
      const put = await this.call((client) =>
        client.put("default", key, `${value}`, { session: session.value }),
      )
      if (put.ok) acknowledged.push({ value, atMs: performance.now() })
      const askedMs = performance.now()
      const options =
        value % 2 === 0
          ? ({ level: "local", session: session.value } as const)
          : ({ level: "bounded", maxStalenessMs: staleMsMax } as const)
      const read = await this.call((client) => client.get("default", key, options))
      if (!read.ok) this.errors.set(read.error._tag, (this.errors.get(read.error._tag) ?? 0) + 1)
      else {
        const found = read.value.found ? Number(text(read.value.value)) : 0
        const least = lastBefore(askedMs - (options.level === "bounded" ? staleMsMax : 0))
        if (found < least) this.broken.push(`${options.level}: ${found}, not ${least} or later`)
      }
      await Bun.sleep(pauseMs)
    }
  }

  /** Appends to one list after the other, each time to what it has just read. */
  private async append(worker: number): Promise<void> {
    for (let i = 0; !this.stopping; i++) {
      const key = `${this.name}-list-${i % keysPerRange}`
      const reading = this.recorder.invoke(worker, { f: "txn", value: [["r", key, null]] })
      const read = await this.call((client) => client.get("default", key))
      if (!read.ok) this.failed(reading, read.error)
      else {
        const list = read.value.found ? text(read.value.value).split(" ").map(Number) : []
        this.succeed(reading, { value: [["r", key, list]] })
        const version = read.value.found ? read.value.version : 0
        await this.appendTo(worker, { key, list, version })
      }
      await Bun.sleep(pauseMs)
    }
  }

  private async appendTo(
    worker: number,
    to: { readonly key: string; readonly list: ReadonlyArray<number>; readonly version: number },
  ): Promise<void> {
    const { key, list, version } = to
    const element = this.nextValue++
    const value = [...list, element].join(" ")
    const expect = list.length === 0 ? ({ absent: true } as const) : { version }
    const appending = this.recorder.invoke(worker, {
      f: "txn",
      value: [
        ["r", key, list],
        ["append", key, element],
      ],
    })
    const set = await this.call((client) => client.compareAndSet("default", key, { expect, value }))
    if (set.ok) this.succeed(appending, { isFalse: !set.value.swapped })
    else this.failed(appending, set.error)
  }

  /** The longest time between two writes that succeeded in a range, of those that ended after `sinceMs`. */
  gapMs(range: RangeId, sinceMs: number): number {
    const times = this.answered.filter((each) => each.range === range).map(({ atMs }) => atMs)
    times.push(performance.now())
    let longest = 0
    for (let i = 1; i < times.length; i++) {
      const [before, after] = [times[i - 1] as number, times[i] as number]
      if (after > sinceMs) longest = Math.max(longest, after - before)
    }
    return longest
  }

  /** Writes that succeeded in a range since then. */
  writesSince(range: RangeId, sinceMs: number): number {
    return this.answered.filter((each) => each.range === range && each.atMs > sinceMs).length
  }
}

/** Names that lie in each range of namespace `default`. */
function keysOf(
  ranges: ReadonlyArray<RangeReport>,
  prefix: string,
): ReadonlyMap<RangeId, ReadonlyArray<string>> {
  const keys = new Map<RangeId, Array<string>>()
  for (const { descriptor } of ranges) if (descriptor.namespace === 1) keys.set(descriptor.id, [])
  for (let i = 0; [...keys.values()].some((each) => each.length < keysPerRange); i++) {
    const name = `${prefix}-${i}`
    const position = hashPosition(1, utf8(name))
    const range = ranges.find(
      ({ descriptor: { start, end } }) =>
        compareBytes(start, position) <= 0 && (end.length === 0 || compareBytes(position, end) < 0),
    )
    const names = keys.get(range?.descriptor.id as RangeId)
    if (names !== undefined && names.length < keysPerRange) names.push(name)
  }
  return keys
}
