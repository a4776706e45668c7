import { Effect, ManagedRuntime } from "effect"
import { Client } from "../../src/client/Client.ts"
import { text } from "../../src/lib/bytes.ts"
import { until } from "./Cluster.ts"

const namespace = "eventual"

/** Writers of keys that are written once, at level `quorum`, in the eventual namespace of a real cluster. What was acknowledged must be read by every quorum ever after. */
export class EventualLoad {
  /** Errors by name. The node that took a write may be killed: whether it was carried out nobody knows then. */
  readonly errors = new Map<string, number>()
  readonly acknowledged = new Map<string, string>()
  private readonly runtime: ManagedRuntime.ManagedRuntime<Client, unknown>
  private isOver = false
  private next = 1
  private running: Promise<unknown> = Promise.resolve()

  constructor(endpoints: ReadonlyArray<string>) {
    this.runtime = ManagedRuntime.make(Client.layer({ endpoints, deadlineMs: 30_000 }))
  }

  /** Begins once the namespace is there: a cluster that has just been founded takes strong writes before. */
  async start(writers: number): Promise<void> {
    const first = Effect.flatMap(Client, ({ eventual }) => eventual.put(namespace, "first", "1"))
    await until("the eventual namespace is there", async () => {
      const result = await this.runtime.runPromise(Effect.result(first))
      return result._tag === "Success"
    })
    this.running = Promise.all(Array.from({ length: writers }, () => this.writer()))
  }

  private async writer(): Promise<void> {
    while (!this.isOver) {
      const number = this.next++
      const [key, value] = [`key:${number}`, `value ${number}`]
      const put = Effect.flatMap(Client, ({ eventual }) => eventual.put(namespace, key, value))
      const result = await this.runtime.runPromise(Effect.result(put))
      if (result._tag === "Success") this.acknowledged.set(key, value)
      else {
        const { _tag } = result.failure
        this.errors.set(_tag, (this.errors.get(_tag) ?? 0) + 1)
      }
    }
  }

  async stop(): Promise<void> {
    this.isOver = true
    await this.running
  }

  /** Acknowledged keys that a read by a quorum does not find with their value. */
  async missing(): Promise<ReadonlyArray<string>> {
    const keys = [...this.acknowledged.keys()]
    const problems: Array<string> = []
    let at = 0
    const reader = async () => {
      while (at < keys.length) {
        const key = keys[at++] as string
        const get = Effect.flatMap(Client, ({ eventual }) => eventual.get(namespace, key))
        const result = await this.runtime.runPromise(Effect.result(get))
        const found = result._tag === "Success" ? result.success.siblings.map(text) : []
        if (found.includes(this.acknowledged.get(key) as string)) continue
        problems.push(`${key}: ${result._tag === "Success" ? found.join() : result.failure._tag}`)
      }
    }
    await Promise.all(Array.from({ length: 32 }, reader))
    return problems
  }

  async dispose(): Promise<void> {
    await this.stop()
    await this.runtime.dispose()
  }
}
