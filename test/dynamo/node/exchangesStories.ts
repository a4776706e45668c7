import { ElementCursor } from "../../../src/dynamo/elements.ts"
import { contextOf } from "../../../src/dynamo/keyState.ts"
import type { Exchanges, exchangeDefaults } from "../../../src/dynamo/node/exchanges.ts"
import { pruneState } from "../../../src/dynamo/pruning.ts"
import { putSibling } from "../../../src/dynamo/siblings.ts"
import { SlotClock } from "../../../src/dynamo/slotClock.ts"
import { emptyVector, VersionVector } from "../../../src/dynamo/versionVector.ts"
import { text, utf8 } from "../../../src/lib/bytes.ts"
import { ByteWriter } from "../../../src/lib/byteWriter.ts"
import { Prng } from "../../../src/lib/prng.ts"
import { slotOf } from "../../../src/lib/slot.ts"
import type { NodeId, Slot } from "../../../src/types.ts"
import { MemoryNode, type Parts, type SlotStep, StepRing } from "./exchangesNode.ts"

const out = new ByteWriter()
export const namespace = 7

export interface StoryOptions {
  readonly nodes: number
  readonly exchanges?: Partial<typeof exchangeDefaults>
  readonly make?: (parts: Parts) => Exchanges
}

/** What is on its way from one node to another. */
export interface Envelope {
  readonly from: NodeId
  readonly to: NodeId
  readonly bytes: Uint8Array
}

/** A few nodes for tests that tell a story, message by message. Every node owns every slot named, unless the ring is another. */
export class Story {
  readonly nodes: ReadonlyArray<MemoryNode>
  readonly network: Array<Envelope> = []
  nowMs = 1000
  /** Whether turns end with what they put being durable. */
  isDurable = true
  private epoch = 0

  constructor({ nodes, exchanges, make }: StoryOptions) {
    const story = this
    const clock = {
      get monotonicMs() {
        return story.nowMs
      },
      get wallMs() {
        return 1_700_000_000_000 + story.nowMs
      },
    }
    const levels = { copies: 7, write: "quorum", read: "quorum" } as const
    this.nodes = Array.from({ length: nodes }, (_, i) => {
      return new MemoryNode({
        ...{ node: i + 1, clock, prng: new Prng(i + 1) },
        namespaces: new Map([[namespace, { id: namespace, rule: "siblings", ...levels }]]),
        exchanges: {
          passMs: 50,
          messageBytes: 0,
          quietMs: 100,
          patienceMs: 100,
          restMs: 40,
          ...exchanges,
        },
        ...(make === undefined ? {} : { make }),
      })
    })
  }

  node(id: NodeId): MemoryNode {
    return this.nodes[id - 1]
  }

  /** `undefined`: all nodes own the slots. */
  learn(ids: ReadonlyArray<NodeId>, version: number, steps: ReadonlyMap<Slot, SlotStep>): void {
    const ring = new StepRing(
      version,
      steps,
      this.nodes.map(({ node }) => node),
    )
    for (const id of ids) this.node(id).learn(ring, () => ++this.epoch)
    for (const id of ids) this.endTurn(this.node(id))
  }

  write(id: NodeId, key: string, value: string | undefined): void {
    const node = this.node(id)
    const place = { namespace, slot: slotOf(utf8(key)), key: utf8(key) }
    const held = node.owner.state(namespace, place.slot, place.key)
    node.owner.write(place, (local, dot) => {
      putSibling(out, local, {
        ...{ ...dot, stamp: 0, expiryMs: 0 },
        context: held === undefined ? emptyVector : contextOf(held),
        value: value === undefined ? undefined : utf8(value),
      })
      return out.take()
    })
    this.endTurn(node)
  }

  stateOf(id: NodeId, key: string): Uint8Array | undefined {
    return this.node(id)
      .owner.state(namespace, slotOf(utf8(key)), utf8(key))
      ?.slice()
  }

  /** A hint or a repair arrives. */
  bring(id: NodeId, key: string, state: Uint8Array): void {
    this.node(id).owner.merge(namespace, slotOf(utf8(key)), utf8(key), state)
    this.endTurn(this.node(id))
  }

  values(id: NodeId, key: string): ReadonlyArray<string> {
    const state = this.stateOf(id, key)
    if (state === undefined) return []
    const cursor = new ElementCursor().open(state)
    const values: Array<string> = []
    while (cursor.next()) if (cursor.liveAt(0)) values.push(text(cursor.value))
    return values
  }

  /** At these owners of a slot. */
  reap(ids: ReadonlyArray<NodeId>, key: string): void {
    const slot = slotOf(utf8(key))
    const clock = SlotClock.meet(ids.map((id) => this.node(id).owner.copyClock(namespace, slot)))
    for (const id of ids) {
      const state = this.stateOf(id, key)
      if (state === undefined) continue
      const left = pruneState(state, { clock, minted: new VersionVector() })
      this.node(id).owner.replace(namespace, slot, utf8(key), left)
      this.endTurn(this.node(id))
    }
  }

  endTurn(node: MemoryNode): void {
    if (this.isDurable) node.store.sync()
    for (const { to, bytes } of node.takeParcels()) {
      this.network.push({ from: node.node, to, bytes })
    }
  }

  /** Delivers the oldest message, and returns it. */
  deliver(): Envelope | undefined {
    const envelope = this.network.shift()
    if (envelope === undefined) return undefined
    this.node(envelope.to).receive(envelope.from, envelope.bytes)
    this.endTurn(this.node(envelope.to))
    return envelope
  }

  tick(passedMs: number, ids = this.nodes.map(({ node }) => node)): void {
    this.nowMs += passedMs
    for (const id of ids) {
      this.node(id).exchanges.tick()
      this.endTurn(this.node(id))
    }
  }

  /** Time passes, and all messages arrive. Returns the bytes that were sent. */
  settle(rounds = 30): number {
    let bytes = 0
    for (let i = 0; i < rounds; i++) {
      this.tick(20)
      for (;;) {
        const envelope = this.deliver()
        if (envelope === undefined) break
        bytes += envelope.bytes.length
      }
    }
    return bytes
  }
}

export function owned(slots: ReadonlyArray<Slot>, owners: ReadonlyArray<NodeId>, since = 1) {
  return new Map(
    slots.map((slot) => [slot, { from: owners, to: owners, since, state: "owned" } as const]),
  )
}

export function pending(
  slots: ReadonlyArray<Slot>,
  { from, to, since }: Omit<SlotStep, "state">,
): ReadonlyMap<Slot, SlotStep> {
  return new Map(slots.map((slot) => [slot, { from, to, since, state: "pending" } as const]))
}
