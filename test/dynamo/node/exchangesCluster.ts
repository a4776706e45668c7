import { describeDot } from "../../../src/dynamo/dot.ts"
import { digestOf } from "../../../src/dynamo/node/exchangeSource.ts"
import { Exchanges } from "../../../src/dynamo/node/exchanges.ts"
import type { EventualNamespace } from "../../../src/dynamo/node/ports.ts"
import { utf8 } from "../../../src/lib/bytes.ts"
import { Prng } from "../../../src/lib/prng.ts"
import { slotOf } from "../../../src/lib/slot.ts"
import type { NodeId, Slot } from "../../../src/types.ts"
import type { RuleModel } from "../rules.ts"
import { Divergence, ExchangesHistory, type KeyOp, quorum } from "./exchangesHistory.ts"
import { MemoryNode, type Parts, StepRing } from "./exchangesNode.ts"

export const nodes: ReadonlyArray<NodeId> = [1, 2, 3, 4, 5]
export const copies = 3
export const namespaceId = 7
/** Two slots of one run, and one of another. */
export const slots: ReadonlyArray<Slot> = [130, 131, 9000]
export const keys = slots.flatMap((slot) => keysOf(slot, 3))

function keysOf(slot: Slot, count: number): ReadonlyArray<string> {
  const found: Array<string> = []
  for (let i = 0; found.length < count; i++) if (slotOf(utf8(`k${i}`)) === slot) found.push(`k${i}`)
  return found
}

/** What a stand-in keeps of a write. */
interface Hint {
  readonly slot: Slot
  readonly key: Uint8Array
  readonly state: Uint8Array
  readonly coordinator: MemoryNode
  mark: number
}

interface Envelope {
  readonly from: NodeId
  readonly to: NodeId
  readonly bytes: Uint8Array
}

/** Nodes that exchange over a network that loses, doubles and delays, and what may befall them. After each turn the oracle looks at what it has changed. */
export class ExchangesCluster {
  readonly prng: Prng
  readonly model: RuleModel
  readonly nodes = new Map<NodeId, MemoryNode>()
  readonly counts = {
    writes: 0,
    crashes: 0,
    wiped: 0,
    moves: 0,
    filled: 0,
    forgotten: 0,
    reaped: 0,
  }
  nowMs = 1000
  ring: StepRing
  readonly history: ExchangesHistory
  protected network: Array<Envelope> = []
  protected hints: Array<Hint> = []
  private readonly loss: number
  private lastEpoch = 0
  private readonly nextEpoch = () => ++this.lastEpoch

  constructor(seed: number, model: RuleModel) {
    this.prng = new Prng(seed)
    this.model = model
    this.history = new ExchangesHistory(model)
    const { prng } = this
    this.loss = prng.pick([0, 0.02, 0.1, 0.25])
    const world = this
    const clock = {
      get monotonicMs() {
        return world.nowMs
      },
      get wallMs() {
        return 1_700_000_000_000 + world.nowMs
      },
    }
    const namespace: EventualNamespace = {
      ...{ id: namespaceId, rule: model.rule, copies },
      ...{ write: "quorum", read: "quorum" },
    }
    for (const node of nodes) {
      const memory = new MemoryNode({
        ...{ node, clock, prng: prng.fork(), namespaces: new Map([[namespaceId, namespace]]) },
        exchanges: {
          ...{
            passMs: 200,
            messageBytes: 0,
            quietMs: 100,
            patienceMs: 100,
            restMs: 40,
            pageBytes: prng.pick([1, 64, 4096]),
          },
          ...{ servedMax: prng.pick([1, 4]), bytesPerSecond: prng.pick([20_000, 1e6]) },
        },
        make: (parts) => this.newExchanges(parts),
      })
      this.nodes.set(node, memory)
    }
    const first = { from: [1, 2, 3], to: [1, 2, 3], state: "owned", since: 1 } as const
    this.ring = new StepRing(1, new Map(slots.map((slot) => [slot, first])), nodes)
    for (const node of this.nodes.values()) node.learn(this.ring, this.nextEpoch)
  }

  protected newExchanges(parts: Parts): Exchanges {
    return new Exchanges(parts)
  }

  node(id: NodeId): MemoryNode {
    return this.nodes.get(id) as MemoryNode
  }

  /** The end of a node's turn. */
  protected endTurn(node: MemoryNode): void {
    for (const { to, bytes } of node.takeParcels()) {
      this.network.push({ from: node.node, to, bytes })
    }
    for (const { from, id } of node.stored) this.history.confirm(from, id)
    node.stored = []
    for (const slot of slots) this.check(node, slot)
  }

  // ---- Network, time, faults

  protected deliver(): void {
    if (this.network.length === 0) return
    const at = this.prng.int(0, Math.min(this.network.length - 1, 12))
    const { from, to, bytes } = this.network[at]
    if (!this.prng.chance(0.05)) this.network.splice(at, 1)
    if (this.prng.chance(this.loss)) return
    this.node(to).receive(from, bytes)
    this.endTurn(this.node(to))
  }

  protected time(passedMs: number): void {
    this.nowMs += passedMs
    for (const node of this.nodes.values()) {
      node.exchanges.tick()
      this.endTurn(node)
    }
  }

  protected sync(node: MemoryNode): void {
    node.store.sync()
    this.endTurn(node)
  }

  protected crash(node: MemoryNode): void {
    const before = this.stateOf(node)
    const wasDurable = node.store.mark === node.store.durableMark
    this.forget(node)
    node.crash(this.nextEpoch)
    this.counts.crashes++
    if (wasDurable && this.stateOf(node) !== before) {
      throw new Divergence(`n${node.node} forgets in a crash: ${before} | ${this.stateOf(node)}`)
    }
    this.endTurn(node)
  }

  private stateOf(node: MemoryNode): string {
    const { low, high } = digestOf(node.owner, namespaceId, slots)
    const clocks = slots.map((slot) => node.owner.copyClock(namespaceId, slot).describe())
    return `${low} ${high} ${clocks.join("; ")}`
  }

  /** What was not durable never happened. */
  private forget(node: MemoryNode): void {
    const { durableMark } = node.store
    this.history.crashed(node.node, durableMark)
    this.hints = this.hints.filter((hint) => hint.coordinator !== node || hint.mark <= durableMark)
  }

  /** One node at a time, and no slot in between: it begins again as a new owner. */
  protected wipe(node: MemoryNode): void {
    if (!this.isAtRest()) return
    this.forget(node)
    const isOnItsWay =
      this.network.some(({ from }) => from === node.node) ||
      this.hints.some(({ coordinator }) => coordinator === node)
    const others = [...this.nodes.values()].filter((other) => other !== node)
    this.history.wiped(node.node, (op) => {
      return isOnItsWay || others.some((other) => this.knownAt(other, op.key).includes(op))
    })
    for (const hint of this.hints) if (hint.coordinator === node) hint.mark = 0
    node.wipe(this.nextEpoch)
    this.counts.wiped++
    for (const [slot, { from }] of this.ring.steps) {
      if (!from.includes(node.node)) continue
      const rest = from.filter((other) => other !== node.node)
      this.ring = this.ring.with(slot, { from: rest, to: from, state: "pending" })
    }
    this.learn(node)
  }

  // ---- Ring

  protected isAtRest(): boolean {
    return [...this.ring.steps.values()].every(({ state }) => state === "owned")
  }

  protected move(slot: Slot): void {
    const step = this.ring.steps.get(slot)
    if (step === undefined || step.state !== "owned") return
    const other = this.prng.pick(nodes.filter((node) => !step.from.includes(node)))
    const place = this.prng.int(0, step.from.length - 1)
    const to = step.from.map((node, i) => (i === place ? other : node))
    this.ring = this.ring.with(slot, { from: step.from, to, state: "pending" })
    this.counts.moves++
  }

  /** Steps that are due. */
  protected control(): void {
    for (const [slot, { from, to, state, since }] of this.ring.steps) {
      if (state === "pending") {
        const reporters = to.filter((node) => !from.includes(node))
        const isFilled = reporters.every((node) =>
          this.node(node)
            .exchanges.filled()
            .some((filled) => filled.slot === slot && filled.since === since),
        )
        if (!isFilled) continue
        this.ring = this.ring.with(slot, { from, to, state: "filled" })
        this.counts.filled++
        for (const node of this.nodes.values()) this.check(node, slot)
      } else if (state === "filled") {
        const owners = this.ring.ownersOf(slot)
        if (!owners.every((node) => (this.node(node).ring?.version ?? 0) >= since)) continue
        this.ring = this.ring.with(slot, { from: to, to, state: "owned" })
      }
    }
    for (const op of this.history.ops) if (op.isAcknowledged) this.mustBeRead(op)
  }

  /** A read asks a quorum of the present owners, and of a filled slot one of the new ones too: each has somebody in it who has the write. */
  private mustBeRead(op: KeyOp): void {
    const slot = slotOf(utf8(op.key))
    const step = this.ring.steps.get(slot)
    if (step === undefined) return
    for (const owners of step.state === "filled" ? [step.from, step.to] : [step.from]) {
      const without = owners.filter((id) => !this.knownAt(this.node(id), op.key).includes(op))
      if (without.length < quorum) continue
      const dot = describeDot(op.actor, op.counter)
      throw new Divergence(`${dot} was acknowledged, and n${without.join(", n")} lack it`)
    }
  }

  /** A node forgets a slot that it has given away, when every present owner has seen all that it has seen. */
  protected forgetSlot(node: MemoryNode, slot: Slot): void {
    const { owner, ring } = node
    if (ring === undefined || ring.isOwner(slot, copies, node.node)) return
    if (!owner.leftOver(namespaceId).includes(slot)) return
    const own = owner.copyClock(namespaceId, slot)
    for (const id of ring.ownersOf(slot)) {
      const other = this.node(id)
      this.sync(other)
      const clock = other.owner.copyClock(namespaceId, slot)
      const before = clock.describe()
      clock.adopt(own)
      if (clock.describe() !== before) return
    }
    owner.dropSlot(namespaceId, slot)
    this.counts.forgotten++
    this.endTurn(node)
  }

  protected learn(node: MemoryNode): void {
    if (node.ring === this.ring) return
    node.learn(this.ring, this.nextEpoch)
    this.endTurn(node)
  }

  // ---- The oracle

  /** The writes of a key that an owner has seen, by its clock. */
  protected knownAt(node: MemoryNode, key: string): ReadonlyArray<KeyOp> {
    return this.history.knownBy(node.owner.copyClock(namespaceId, slotOf(utf8(key))), key)
  }

  /** An owner that counts: in the present list, or new and filled. */
  protected isFull(node: MemoryNode, slot: Slot): boolean {
    const step = this.ring.steps.get(slot)
    if (step === undefined) return false
    if (step.from.includes(node.node)) return true
    return step.state === "filled" && step.to.includes(node.node)
  }

  protected check(node: MemoryNode, slot: Slot): void {
    if (!this.isFull(node, slot)) return
    for (const key of keys) if (slotOf(utf8(key)) === slot) this.checkKey(node, slot, key)
  }

  private checkKey(node: MemoryNode, slot: Slot, key: string): void {
    const expected = this.history.expected(this.knownAt(node, key))
    const shown = this.model.shown(node.owner.state(namespaceId, slot, utf8(key)), 0)
    if (shown === expected) return
    const clock = node.owner.copyClock(namespaceId, slot).describe()
    throw new Divergence(
      `n${node.node} shows [${shown}] for ${key} in place of [${expected}], clock ${clock}`,
    )
  }
}
