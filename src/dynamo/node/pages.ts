import { slotCount } from "../../lib/slot.ts"
import type { Slot } from "../../types.ts"
import { expireState, forEachLiveDot } from "../keyState.ts"
import type { Owner } from "./owner.ts"
import type { NodeHost } from "./ports.ts"
import type { EventualEntries, EventualPage, EventualRefused, EventualReply } from "./requests.ts"

type PageReply = EventualEntries | EventualRefused

/** Keys looked at for one page, shown or not; beyond, the page ends where it is. */
const keysPerPage = 20_000

/** A node's part of a scan: what it alone holds of slots that it owns, a page at a time. */
export class Pages {
  private readonly host: NodeHost
  private readonly owner: Owner
  private readonly limits: { readonly pageEntries: number; readonly pageBytes: number }
  private held: Array<{ readonly mark: number; readonly reply: PageReply }> = []

  constructor(
    host: NodeHost,
    owner: Owner,
    limits: { readonly pageEntries: number; readonly pageBytes: number },
  ) {
    this.host = host
    this.owner = owner
    this.limits = limits
  }

  serve(request: EventualPage): void {
    this.held.push(this.page(request))
  }

  private page(request: EventualPage): { readonly mark: number; readonly reply: PageReply } {
    const { host, owner, limits } = this
    const { token, prefix, after } = request
    const namespace = host.namespaces.get(request.namespace)
    const { ring } = host
    if (namespace === undefined || ring === undefined) {
      const message = `there is no eventual namespace ${request.namespace} here`
      const refusal = { _tag: "InvalidRequest", message } as const
      return { mark: 0, reply: { _tag: "EventualRefused", token, refusal } }
    }
    const entries: Array<{ key: Uint8Array; state: Uint8Array }> = []
    let [bytes, looked, mark] = [0, 0, 0]
    let next: { slot: Slot; key: Uint8Array } | undefined
    const limit = Math.min(Math.max(1, request.limit), limits.pageEntries)
    for (const run of runsFrom(request.slots, after?.slot ?? 0)) {
      for (let slot = run.start; slot < run.start + run.slots; slot++) {
        if (!ring.isOwner(slot, namespace.copies, host.node)) {
          const refusal = { _tag: "RingMoved", ringVersion: ring.version } as const
          return { mark: 0, reply: { _tag: "EventualRefused", token, refusal } }
        }
        if (host.isRefilling(slot)) {
          const message = `n${host.node} has lost data of slot ${slot} and refills it`
          const refusal = { _tag: "StorageCorrupt", message } as const
          return { mark: 0, reply: { _tag: "EventualRefused", token, refusal } }
        }
        mark = Math.max(mark, owner.markOf(namespace.id, slot))
      }
      const isFirst = after !== undefined && run.start === after.slot
      const slots = isFirst ? { ...run, after: after.key } : run
      owner.forEachWithin(namespace.id, slots, (slot, key, state) => {
        looked++
        const shown = startsWith(key, prefix) ? this.shown(state) : undefined
        if (shown !== undefined) {
          entries.push({ key: key.slice(), state: shown })
          bytes += key.length + shown.length
        }
        const isCut = entries.length >= limit || bytes >= limits.pageBytes
        if (isCut || looked >= keysPerPage) next = { slot, key: key.slice() }
        return next === undefined
      })
      if (next !== undefined) break
    }
    return { mark, reply: { _tag: "EventualEntries", token, node: host.node, entries, next } }
  }

  /** A copy, unless nothing of it is live. */
  private shown(state: Uint8Array): Uint8Array | undefined {
    const nowMs = this.host.clock.wallMs
    let isLive = false
    forEachLiveDot(state, nowMs, () => {
      isLive = true
    })
    return isLive ? expireState(state.slice(), nowMs) : undefined
  }

  abandon(refusal: EventualRefused["refusal"]): ReadonlyArray<EventualReply> {
    const replies = this.held.map(({ reply: { token } }): EventualReply => {
      return { _tag: "EventualRefused", token, refusal }
    })
    this.held = []
    return replies
  }

  takeReplies(): ReadonlyArray<EventualReply> {
    if (this.held.length === 0) return none
    const { durableMark } = this.host.store
    const ready = this.held.filter(({ mark }) => mark <= durableMark)
    this.held = this.held.filter(({ mark }) => mark > durableMark)
    return ready.map(({ reply }) => reply)
  }
}

const none: ReadonlyArray<EventualReply> = []

/** What is left of some runs of slots, from one slot on. */
function runsFrom(
  runs: ReadonlyArray<number>,
  from: Slot,
): ReadonlyArray<{ readonly start: Slot; readonly slots: number }> {
  const left: Array<{ start: Slot; slots: number }> = []
  for (let i = 0; i + 1 < runs.length; i += 2) {
    const start = Math.max(runs[i], from)
    const end = Math.min(slotCount, runs[i] + runs[i + 1])
    if (start < end) left.push({ start, slots: end - start })
  }
  return left
}

function startsWith(key: Uint8Array, prefix: Uint8Array): boolean {
  if (key.length < prefix.length) return false
  for (let i = 0; i < prefix.length; i++) if (key[i] !== prefix[i]) return false
  return true
}
