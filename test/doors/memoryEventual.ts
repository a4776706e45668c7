import { decodeToken } from "../../src/dynamo/contextToken.ts"
import { actorOf } from "../../src/dynamo/dot.ts"
import type { ConflictRule } from "../../src/dynamo/elements.ts"
import { expireState, forEachLiveDot } from "../../src/dynamo/keyState.ts"
import { changedState, changeProblem } from "../../src/dynamo/node/changes.ts"
import type {
  EventualPage,
  EventualReceipt,
  EventualRefusal,
  EventualReply,
  EventualRequest,
  EventualWrite,
} from "../../src/dynamo/node/requests.ts"
import { viewOf } from "../../src/dynamo/valueView.ts"
import { compareBytes, toHex } from "../../src/lib/bytes.ts"
import { slotOf } from "../../src/lib/slot.ts"
import type { Ring } from "../../src/topology/ring.ts"
import { SlotOwners } from "../../src/topology/slotOwners.ts"
import type { NamespaceId, NodeId, Slot } from "../../src/types.ts"
import type { NamespaceInfo } from "../../src/wire/answers.ts"
import { ringOf } from "../topology/harness.ts"

/** Lets a test answer, delay or swallow a request before a coordinator sees it; true = it took the request. */
export type EventualIntercept = (options: {
  readonly node: NodeId
  readonly request: EventualRequest
  readonly reply: (reply: EventualReply) => void
  /** What the coordinator would answer. */
  readonly carryOut: () => EventualReply
}) => boolean

interface Held {
  readonly slot: Slot
  readonly key: Uint8Array
  state: Uint8Array
}

const rules: ReadonlyArray<ConflictRule> = ["siblings", "lww", "set", "counter", "flag", "register"]

/** One eventual namespace for each conflict rule, by the rule's name. */
export const eventualNamespaces = rules.map((conflict, i): NamespaceInfo => {
  const eventual = { conflict, copies: 2, write: "quorum", read: "quorum" } as const
  const id = 2 ** 31 + i
  return { id, name: conflict, mode: "eventual", partitioning: "hash", eventual }
})

/**
 * The eventual half of a small cluster in memory, as doors and clients see it: every node coordinates, over one shared state that stands for replicas which are always
 * equal. Values change by the code that ships (`changedState`). A node remembers the increments that it took until it is restarted.
 */
export class MemoryEventual {
  ring: Ring
  private readonly held = new Map<string, Held>()
  private readonly counters = new Map<NodeId, number>()
  private readonly taken = new Map<NodeId, Map<number, EventualReply>>()
  intercept: EventualIntercept = () => false
  /** Writes that were carried out, in order. */
  applied: Array<{ readonly node: NodeId; readonly request: EventualWrite }> = []
  wallMs = 1_700_000_000_000

  constructor(nodes: number) {
    this.ring = ringOf(nodes)
  }

  owners(key: Uint8Array, copies = 2): ReadonlyArray<NodeId> {
    const owners = new SlotOwners()
    this.ring.owners(slotOf(key), copies, owners)
    return [...owners.nodes.subarray(0, owners.count)]
  }

  /** The node's memory is gone. */
  restarted(node: NodeId): void {
    this.taken.delete(node)
  }

  serve(node: NodeId, request: EventualRequest, reply: (reply: EventualReply) => void): void {
    const carryOut = () => this.carriedOut(node, request)
    if (!this.intercept({ node, request, reply, carryOut })) reply(carryOut())
  }

  private receipt(node: NodeId, key: Uint8Array): EventualReceipt {
    const owners = this.owners(key)
    return {
      ...{ coordinator: node, asked: "quorum", achieved: "quorum" },
      ...{ answered: owners, owners, standIns: [], repairs: [] },
      ...{ sloppy: false, overlap: true },
    }
  }

  private carriedOut(node: NodeId, request: EventualRequest): EventualReply {
    const { token } = request
    const refused = (refusal: EventualRefusal): EventualReply => {
      return { _tag: "EventualRefused", token, refusal }
    }
    switch (request._tag) {
      case "EventualRead": {
        const { key, namespace } = request
        const state = this.stateOf(namespace, key)
        return { _tag: "EventualValue", token, state, receipt: this.receipt(node, key) }
      }
      case "EventualPage":
        return this.page(node, request)
      case "EventualWrite": {
        const known = this.taken.get(node)?.get(request.requestId)
        if (known !== undefined) return { ...known, token }
        if (request.isRetry === true) return refused({ _tag: "WriteUnknown", receipt: undefined })
        const written = this.write(node, request)
        if (written !== undefined) return refused(written)
        const state = this.held.get(nameOf(request.namespace, request.key))?.state
        const view = state === undefined ? undefined : viewOf(state)
        const counter = view?._tag === "Counter" ? (view.value ?? 0n) : undefined
        const receipt = this.receipt(node, request.key)
        const reply = { _tag: "EventualWritten", token, counter, receipt } as const
        if (request.requestId > 0) {
          const taken = this.taken.get(node) ?? new Map<number, EventualReply>()
          this.taken.set(node, taken.set(request.requestId, reply))
        }
        return reply
      }
      default:
        return request satisfies never
    }
  }

  private write(node: NodeId, request: EventualWrite): EventualRefusal | undefined {
    const { namespace, change, context, key } = request
    const rule = rules[namespace - 2 ** 31] as ConflictRule
    const problem = changeProblem(rule, change)
    if (problem !== undefined) return problem
    const token = context === undefined ? undefined : decodeToken(context, namespace, key)
    if (context !== undefined && token?.rule !== rule) {
      return { _tag: "BadContext", message: "the context is none of this key" }
    }
    const counter = (this.counters.get(node) ?? 0) + 1
    const dot = { actor: actorOf(node, 1), counter }
    const local = this.held.get(nameOf(namespace, key))?.state
    const stamp = rule === "lww" || rule === "register" ? this.applied.length + 1 : 0
    const target = { rule, local, dot, context: token?.seen, stamp, seen: undefined }
    const state = changedState({ ...target, wallMs: this.wallMs }, change)
    if (!(state instanceof Uint8Array)) return state
    this.counters.set(node, counter)
    const own = key.slice()
    this.held.set(nameOf(namespace, key), { slot: slotOf(own), key: own, state })
    this.applied.push({ node, request })
    return undefined
  }

  /** As if owners that were apart had taken it. */
  hold(namespace: NamespaceId, key: Uint8Array, state: Uint8Array): void {
    this.held.set(nameOf(namespace, key), { slot: slotOf(key), key, state })
  }

  /** What of it is live. */
  private stateOf(namespace: NamespaceId, key: Uint8Array): Uint8Array | undefined {
    const state = this.held.get(nameOf(namespace, key))?.state
    return state === undefined ? undefined : expireState(state.slice(), this.wallMs)
  }

  private page(node: NodeId, request: EventualPage): EventualReply {
    const { token, namespace, slots, prefix, after, limit } = request
    const isAsked = (slot: Slot) =>
      slots.some((start, i) => i % 2 === 0 && slot >= start && slot < start + (slots[i + 1] ?? 0))
    const owns = slots.every(
      (start, i) => i % 2 === 1 || this.ring.isOwner(start, 2, node) || start >= 2 ** 14,
    )
    if (!owns) {
      const refusal = { _tag: "RingMoved", ringVersion: this.ring.version } as const
      return { _tag: "EventualRefused", token, refusal }
    }
    const entries = [...this.held]
      .filter(([name]) => name.startsWith(`${namespace}/`))
      .map(([, { slot, key, state }]) => ({ slot, key, state }))
      .filter(({ slot }) => isAsked(slot))
      .filter(({ key }) => compareBytes(key.subarray(0, prefix.length), prefix) === 0)
      .filter((each) => after === undefined || comparePlaces(each, after) > 0)
      .filter(({ state }) => isLive(state, this.wallMs))
      .sort(comparePlaces)
    const last = entries.length > limit ? entries[limit - 1] : undefined
    const next = last === undefined ? undefined : { slot: last.slot, key: last.key }
    return { _tag: "EventualEntries", token, node, entries: entries.slice(0, limit), next }
  }
}

function nameOf(namespace: NamespaceId, key: Uint8Array): string {
  return `${namespace}/${toHex(key)}`
}

function isLive(state: Uint8Array, nowMs: number): boolean {
  let found = false
  forEachLiveDot(state, nowMs, () => {
    found = true
  })
  return found
}

interface Place {
  readonly slot: Slot
  readonly key: Uint8Array
}

function comparePlaces(left: Place, right: Place): number {
  return left.slot - right.slot || compareBytes(left.key, right.key)
}
