import { actorOf } from "../../../src/dynamo/dot.ts"
import { sameSum } from "../../../src/dynamo/merkleMessages.ts"
import { digestOf } from "../../../src/dynamo/node/exchangeSource.ts"
import { putSibling } from "../../../src/dynamo/siblings.ts"
import { emptyVector } from "../../../src/dynamo/versionVector.ts"
import { utf8 } from "../../../src/lib/bytes.ts"
import { ByteWriter } from "../../../src/lib/byteWriter.ts"
import { Prng } from "../../../src/lib/prng.ts"
import { slotCount, slotOf } from "../../../src/lib/slot.ts"
import type { NodeId } from "../../../src/types.ts"
import { MemoryNode, StepRing } from "./exchangesNode.ts"

const namespace = 7
const out = new ByteWriter()

/** A ring in which all own everything. */
class FullRing extends StepRing {
  override isOwner(): boolean {
    return true
  }
}

/** Two owners of many keys, and what they say to each other. */
export class LargePair {
  readonly nodes: ReadonlyArray<MemoryNode>
  nowMs = 1000
  private readonly keys: ReadonlyArray<Uint8Array>

  constructor(
    keyCount: number,
    exchanges: ConstructorParameters<typeof MemoryNode>[0]["exchanges"],
  ) {
    const pair = this
    const clock = {
      get monotonicMs() {
        return pair.nowMs
      },
      get wallMs() {
        return 1_700_000_000_000 + pair.nowMs
      },
    }
    const levels = { copies: 2, write: "quorum", read: "quorum" } as const
    const namespaces = new Map([
      [namespace, { id: namespace, rule: "siblings", ...levels }],
    ] as const)
    const ring = new FullRing(1, new Map(), [1, 2])
    this.nodes = [1, 2].map((node: NodeId) => {
      const prng = new Prng(node)
      return new MemoryNode({ node, clock, namespaces, prng, ...(exchanges && { exchanges }) })
    })
    let epoch = 0
    for (const node of this.nodes) node.learn(ring, () => ++epoch)
    const bySlot = Array.from({ length: slotCount }, (): Array<string> => [])
    for (let i = 0; i < keyCount; i++) bySlot[slotOf(utf8(`key ${i}`))].push(`key ${i}`)
    this.keys = bySlot.flatMap((keys) => keys.sort().map(utf8))
    const counters = new Uint32Array(slotCount)
    for (const key of this.keys) {
      const slot = slotOf(key)
      const dot = { actor: actorOf(1, 1), counter: ++counters[slot] }
      putSibling(out, undefined, {
        ...dot,
        context: emptyVector,
        stamp: 0,
        expiryMs: 0,
        value: utf8("v"),
      })
      const state = out.take()
      for (const node of this.nodes) node.owner.merge(namespace, slot, key, state)
    }
    for (const node of this.nodes) node.store.sync()
  }

  /** Writes some keys at the second owner, spread over all. */
  rewrite(count: number): void {
    const [, second] = this.nodes
    for (let i = 0; i < count; i++) {
      const key = this.keys[Math.floor((i * this.keys.length) / count)]
      const slot = slotOf(key)
      second.owner.write({ namespace, slot, key }, (local, dot) => {
        putSibling(out, local, {
          ...dot,
          context: emptyVector,
          stamp: 0,
          expiryMs: 0,
          value: utf8("w"),
        })
        return out.take()
      })
    }
    second.store.sync()
  }

  /** Time passes, and messages arrive; returns the bytes of them. */
  run(timeMs: number): number {
    let bytes = 0
    for (const endMs = this.nowMs + timeMs; this.nowMs < endMs; ) {
      this.nowMs += 20
      for (const node of this.nodes) node.exchanges.tick()
      for (let isQuiet = false; !isQuiet; ) {
        isQuiet = true
        for (const node of this.nodes) {
          node.store.sync()
          for (const parcel of node.takeParcels()) {
            isQuiet = false
            bytes += parcel.bytes.length
            this.nodes[parcel.to - 1].receive(node.node, parcel.bytes)
          }
        }
      }
    }
    return bytes
  }

  get isEqual(): boolean {
    const slots = Array.from({ length: slotCount }, (_, slot) => slot)
    const [first, second] = this.nodes.map(({ owner }) => digestOf(owner, namespace, slots))
    return sameSum(first, second)
  }

  get differing(): number {
    return this.nodes.reduce((sum, node) => sum + node.exchanges.divergence()[0].keys, 0)
  }
}
