import type { MonotonicMs } from "../../types.ts"
import type { EventualReply } from "./requests.ts"

interface Remembered {
  readonly atMs: MonotonicMs
  reply: EventualReply | undefined
  /** Retries that came before the answer. */
  readonly tokens: Array<number>
}

/** An increment is remembered for so long; a client retries for no longer. */
const keptMs = 60_000
/** Some 300 MB at worst; above this increments are refused. */
const rememberedMax = 1_000_000

/**
 * Increments by their request ids, for a minute: a retry gets the answer of the first, so that it counts once (DESIGN section 4, "Conflict rule"). Kept in
 * memory alone: after a restart of its coordinator a client is told that nobody knows.
 */
export class CounterRetries {
  private readonly byId = new Map<number, Remembered>()
  private readonly idOfToken = new Map<number, number>()

  get isFull(): boolean {
    return this.byId.size >= rememberedMax
  }

  /** True when the increment was taken before: `replies` of the first one then answer this token too. A known answer is returned at once. */
  isRetry(requestId: number, token: number): EventualReply | boolean {
    const known = this.byId.get(requestId)
    if (known === undefined) return false
    if (known.reply !== undefined) return { ...known.reply, token }
    known.tokens.push(token)
    return true
  }

  begin(requestId: number, token: number, nowMs: MonotonicMs): void {
    this.byId.set(requestId, { atMs: nowMs, reply: undefined, tokens: [] })
    this.idOfToken.set(token, requestId)
  }

  /** The answer to a token; returns those of its retries. One that was refused before it was written is forgotten: a retry tries anew. */
  answered(reply: EventualReply, wasWritten: boolean): ReadonlyArray<EventualReply> {
    const id = this.idOfToken.get(reply.token)
    if (id === undefined) return none
    this.idOfToken.delete(reply.token)
    const known = this.byId.get(id)
    if (known === undefined) return none
    if (wasWritten) known.reply = reply
    else this.byId.delete(id)
    return known.tokens.splice(0).map((token) => ({ ...reply, token }))
  }

  forget(nowMs: MonotonicMs): void {
    for (const [id, { atMs, reply }] of this.byId) {
      if (nowMs - atMs < keptMs) return
      if (reply !== undefined) this.byId.delete(id)
    }
  }
}

const none: ReadonlyArray<EventualReply> = []
