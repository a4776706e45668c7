import { Effect, ManagedRuntime } from "effect"
import { Client, type ClientShape } from "../../src/client/Client.ts"
import type { KvorumError } from "../../src/Errors.ts"
import { text } from "../../src/lib/bytes.ts"
import { Prng } from "../../src/lib/prng.ts"
import { checkRegister, type RegisterOperation } from "../sim/linearizability.ts"

/**
 * Writers against a real cluster, and what they saw. Two kinds of keys:
 *
 * - *Registers*, a few dozen for each round, that all writers put, read, compare-and-set and delete: their histories are checked for
 *   linearizability, one key at a time.
 * - *Once* keys, written by one put and never again: every acknowledged one must be found with its value, on every node.
 *
 * A call that ends in `OutcomeUnknown` stays open to the end of the history; any other error means that nothing was done.
 */
const registersPerRound = 48

export interface LoadOptions {
  readonly endpoints: ReadonlyArray<string>
  readonly writers: number
  readonly seed: number
  readonly deadlineMs: number
}

interface Recorded extends RegisterOperation {
  readonly key: string
}

export class Load {
  private readonly runtime: ManagedRuntime.ManagedRuntime<Client, unknown>
  private readonly prngs: ReadonlyArray<Prng>
  private running: Promise<unknown> = Promise.resolve()
  private stopping = true
  private nextValue = 1
  private round = 0
  private readonly operations: Array<Recorded> = []
  /** Version of the value that a register was last seen with, for compare-and-set. */
  private readonly seen = new Map<string, { readonly version: number; readonly value: number }>()
  /** Acknowledged once keys and their values. */
  readonly acknowledged = new Map<string, string>()
  readonly counts = { ok: 0, unknown: 0, refused: 0 }
  readonly errors = new Map<string, number>()

  constructor(options: LoadOptions) {
    const prng = new Prng(options.seed)
    this.prngs = Array.from({ length: options.writers }, () => prng.fork())
    this.runtime = ManagedRuntime.make(
      Client.layer({
        endpoints: options.endpoints,
        deadlineMs: options.deadlineMs,
        attemptTimeoutMs: 500,
      }),
    )
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

  /** How many nodes say that they are ready. */
  async readyNodes(): Promise<number> {
    const result = await this.call((client) => client.status())
    return result.ok ? result.value.nodes.filter(({ state }) => state === "ready").length : 0
  }

  /** Starts the writers on the registers of a new round. */
  start(round: number): void {
    this.round = round
    this.stopping = false
    this.running = Promise.all(this.prngs.map((prng) => this.writer(prng)))
  }

  /** Resolves when the last call of every writer has ended. */
  async stop(): Promise<void> {
    this.stopping = true
    await this.running
  }

  private async writer(prng: Prng): Promise<void> {
    while (!this.stopping) {
      const draw = prng.float()
      if (draw < 0.35) await this.putOnce()
      else await this.register(prng, this.registerName(prng.int(0, registersPerRound - 1)))
    }
  }

  private registerName(index: number): string {
    return `register-${this.round}-${index}`
  }

  private async putOnce(): Promise<void> {
    const value = `value-${this.nextValue++}`
    const key = `once-${value}`
    const result = await this.call((client) => client.put("default", key, value))
    this.count(result)
    if (result.ok) this.acknowledged.set(key, value)
  }

  private count(
    result: { ok: true } | { ok: false; error: KvorumError },
  ): RegisterOperation["outcome"] | "fail" {
    if (result.ok) {
      this.counts.ok++
      return "ok"
    }
    const name = result.error._tag
    this.errors.set(name, (this.errors.get(name) ?? 0) + 1)
    if (name === "OutcomeUnknown") {
      this.counts.unknown++
      return "info"
    }
    this.counts.refused++
    return "fail"
  }

  private record(
    operation: Omit<Recorded, "outcome" | "returnTime" | "found">,
    outcome: RegisterOperation["outcome"] | "fail",
    found?: number,
  ): void {
    if (outcome === "fail") return
    this.operations.push({ ...operation, outcome, found, returnTime: performance.now() })
  }

  private async register(prng: Prng, key: string): Promise<void> {
    const draw = prng.float()
    if (draw < 0.45) return this.put(key)
    if (draw < 0.75) return this.get(key)
    if (draw < 0.92) return this.compareAndSet(key)
    return this.delete(key)
  }

  private async put(key: string): Promise<void> {
    const value = this.nextValue++
    const callTime = performance.now()
    const result = await this.call((client) => client.put("default", key, `${value}`))
    this.record({ key, kind: "put", value, expected: 0, callTime }, this.count(result))
    if (result.ok) this.seen.set(key, { version: result.value.version, value })
  }

  private async get(key: string): Promise<void> {
    const callTime = performance.now()
    const result = await this.call((client) => client.get("default", key))
    const outcome = this.count(result)
    if (!result.ok) return
    const found = result.value
    const value = found.found ? Number(text(found.value)) : 0
    this.record({ key, kind: "get", value, expected: 0, callTime }, outcome)
    if (found.found) this.seen.set(key, { version: found.version, value })
  }

  private async compareAndSet(key: string): Promise<void> {
    const known = this.seen.get(key)
    const value = this.nextValue++
    const expect = known === undefined ? ({ absent: true } as const) : { version: known.version }
    const callTime = performance.now()
    const result = await this.call((client) =>
      client.compareAndSet("default", key, { expect, value: `${value}` }),
    )
    const counted = this.count(result)
    const outcome = result.ok && !result.value.swapped ? "no" : counted
    const found = outcome === "no" && result.ok && result.value.version === 0 ? 0 : undefined
    this.record(
      { key, kind: "compareAndSet", value, expected: known?.value ?? 0, callTime },
      outcome,
      found,
    )
    if (outcome === "ok" && result.ok) this.seen.set(key, { version: result.value.version, value })
    else this.seen.delete(key)
  }

  private async delete(key: string): Promise<void> {
    const callTime = performance.now()
    const result = await this.call((client) => client.delete("default", key))
    const counted = this.count(result)
    const outcome = result.ok && !result.value.existed ? "no" : counted
    this.record({ key, kind: "delete", value: 0, expected: 0, callTime }, outcome)
    this.seen.delete(key)
  }

  /** One linearizable read of every register of this round, by eight callers; they end the histories. */
  async readRegisters(): Promise<void> {
    const names = Array.from({ length: registersPerRound }, (_, i) => this.registerName(i))
    await Promise.all(names.map((name) => this.get(name)))
  }

  /** What is not linearizable, or not decided, in words; empty when all is well. */
  violations(): ReadonlyArray<string> {
    const byKey = new Map<string, Array<Recorded>>()
    for (const operation of this.operations) {
      const list = byKey.get(operation.key)
      if (list === undefined) byKey.set(operation.key, [operation])
      else list.push(operation)
    }
    const problems: Array<string> = []
    for (const [key, operations] of byKey) {
      const verdict = checkRegister(operations)
      if (verdict._tag === "Undecided") problems.push(`${key}: not decided`)
      if (verdict._tag === "Violation") {
        problems.push(`${key}: no place for ${JSON.stringify(verdict.stuckAt)}`)
      }
    }
    return problems
  }

  get registerOperations(): number {
    return this.operations.length
  }

  /** Once keys that were acknowledged but that a linearizable read does not find with their value, of those not yet checked. */
  async missing(keys: ReadonlyArray<string>): Promise<ReadonlyArray<string>> {
    const problems: Array<string> = []
    let next = 0
    const reader = async () => {
      while (next < keys.length) {
        const key = keys[next++] as string
        const result = await this.call((client) => client.get("default", key))
        const found = result.ok && result.value.found ? text(result.value.value) : undefined
        if (found !== this.acknowledged.get(key)) {
          problems.push(`${key}: ${result.ok ? found : result.error._tag}`)
        }
      }
    }
    await Promise.all(Array.from({ length: 64 }, reader))
    return problems
  }

  async dispose(): Promise<void> {
    await this.stop()
    await this.runtime.dispose()
  }
}
