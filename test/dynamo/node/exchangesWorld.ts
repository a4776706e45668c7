import { keepCounterEntries } from "../../../src/dynamo/crdt/counter.ts"
import { describeDot, nodeOf } from "../../../src/dynamo/dot.ts"
import { digestOf } from "../../../src/dynamo/node/exchangeSource.ts"
import { pruneState, type Stability } from "../../../src/dynamo/pruning.ts"
import { SlotClock } from "../../../src/dynamo/slotClock.ts"
import { VersionVector } from "../../../src/dynamo/versionVector.ts"
import { toHex, utf8 } from "../../../src/lib/bytes.ts"
import { ByteWriter } from "../../../src/lib/byteWriter.ts"
import { slotOf } from "../../../src/lib/slot.ts"
import type { Slot } from "../../../src/types.ts"
import type { Draft, RuleModel, Seen } from "../rules.ts"
import { copies, ExchangesCluster, keys, namespaceId, nodes, slots } from "./exchangesCluster.ts"
import { Divergence } from "./exchangesHistory.ts"
import type { MemoryNode } from "./exchangesNode.ts"

const steps = 500

const usualWeights: ReadonlyArray<readonly [string, number]> = [
  ["write", 14],
  ["deliver", 60],
  ["time", 14],
  ["sync", 20],
  ["crash", 1],
  ["wipe", 0.4],
  ["move", 0.6],
  ["control", 3],
  ["learn", 6],
  ["reap", 3],
  ["hint", 10],
  ["forget", 4],
  ["calm", 1],
]

/**
 * A world of exchanges: five nodes, three owners a slot, with writes, late and doubled and lost messages, crashes that take what is not durable, nodes that lose everything, slots
 * that move, and deletes that are reaped. The oracle knows every write and what its client had seen. After every turn an owner must show exactly the writes that its clock
 * says it has seen, less those that they cover: so a clock that was adopted too early or of too much is a lie that shows. In the end all owners are equal byte by byte, and
 * nothing that was acknowledged is missing.
 */
export class ExchangesWorld extends ExchangesCluster {
  private nextOp = 0
  private readonly clients = Array.from({ length: 3 }, () => new Map<string, Seen>())
  private readonly weights: ReadonlyArray<readonly [string, number]>
  private readonly weightsSum: number

  constructor(seed: number, model: RuleModel) {
    super(seed, model)
    const { prng } = this
    this.weights = usualWeights.map(([step, weight]) => [step, weight * prng.logUniform(0.3, 3)])
    this.weightsSum = this.weights.reduce((sum, [, weight]) => sum + weight, 0)
  }

  run(): void {
    for (let i = 0; i < steps; i++) this.step()
    this.heal()
  }

  private step(): void {
    const { prng } = this
    const node = this.node(prng.pick(nodes))
    const draw = this.drawStep()
    if (draw === "write") this.writeSome(prng.pick(keys))
    else if (draw === "deliver") this.deliver()
    else if (draw === "time") this.time(prng.int(1, 40))
    else if (draw === "sync") this.sync(node)
    else if (draw === "crash") this.crash(node)
    else if (draw === "wipe") this.wipe(node)
    else if (draw === "move") this.move(prng.pick(slots))
    else if (draw === "control") this.control()
    else if (draw === "learn") this.learn(node)
    else if (draw === "reap") this.reap(node, prng.pick(slots))
    else if (draw === "hint") this.hint()
    else if (draw === "forget") this.forgetSlot(node, prng.pick(slots))
    else this.calm()
  }

  /** A while in which owners become equal, so that deletes are reaped; and then owners that know nothing of them. */
  private calm(): void {
    for (let i = 0; i < 12; i++) {
      for (const node of this.nodes.values()) this.learn(node)
      this.control()
      this.time(20)
      this.flush()
    }
    for (const slot of slots) for (const node of nodes) this.reap(this.node(node), slot)
    if (this.prng.chance(0.5)) this.wipe(this.node(this.prng.pick(nodes)))
    else for (const slot of slots) this.move(slot)
    for (let i = this.prng.int(0, 12); i > 0; i--) this.hint()
  }

  private drawStep(): string {
    let rest = this.prng.float() * this.weightsSum
    for (const [step, weight] of this.weights) {
      rest -= weight
      if (rest < 0) return step
    }
    return "time"
  }

  // ---- Clients

  private writeSome(key: string): void {
    this.write(this.node(this.prng.pick(this.ring.ownersOf(slotOf(utf8(key))))), key)
  }

  private write(node: MemoryNode, key: string): void {
    const { prng, model } = this
    const slot = slotOf(utf8(key))
    const ring = node.ring
    const step = ring?.steps.get(slot)
    if (ring === undefined || step === undefined || !ring.isOwner(slot, copies, node.node)) return
    const client = prng.pick(this.clients)
    if (prng.chance(0.7)) this.read(client, node, key)
    const past = prng.chance(0.8) ? client.get(key) : undefined
    const seen = past ?? { context: undefined, ops: new Set<number>() }
    const isDelete = past !== undefined && prng.chance(0.35)
    const id = this.nextOp++
    const partial = {
      ...({ id, kind: isDelete ? "delete" : "put", expiryMs: 0, stamp: prng.int(1, 20) } as const),
      value: isDelete && prng.chance(0.4) ? "all" : model.drawValue(prng, id),
    }
    const place = { namespace: namespaceId, slot, key: utf8(key) }
    const here = this.history.withCovered(this.knownAt(node, key))
    let draft: Draft | undefined
    const state = node.owner.write(place, (local, dot) => {
      draft = { ...partial, ...dot }
      const made = model.put(local, draft, seen, node.owner.seen(namespaceId, slot))
      if (typeof made === "string") return { refused: made }
      // The last writer wins: a coordinator refuses whoever is not the last.
      return model.rule === "lww" && toHex(made) === hexOf(local) ? { refused: "outranked" } : made
    })
    if (!(state instanceof Uint8Array) || draft === undefined) return
    const covered = model.covers(draft, this.history.of(seen.ops), here)
    this.counts.writes++
    const { mark } = node.store
    const { from, to } = step
    this.history.ops.push({
      ...{ ...draft, key, mark, coordinator: node.node },
      ...{ covers: new Set(covered.map((op) => op.id)), from, to, confirmed: new Set() },
      ...{ isOpen: true, isAcknowledged: false },
    })
    if (prng.chance(0.3)) client.delete(key)
    for (const owner of ring.ownersOf(slot)) {
      if (owner !== node.node) node.send(owner, { ...place, id, state })
    }
    if (prng.chance(0.3)) this.hints.push({ ...place, state, coordinator: node, mark })
    this.endTurn(node)
  }

  /** A state of long ago is brought to an owner, often to one that is new and knows little. Any number of times. */
  private hint(): void {
    const { prng } = this
    if (this.hints.length === 0) return
    const { slot, key, state, coordinator, mark } = prng.pick(this.hints)
    if (mark > coordinator.store.durableMark) return
    const owners = this.ring.ownersOf(slot)
    const pending = owners.filter((id) => !this.isFull(this.node(id), slot))
    const to = this.node(prng.pick(pending.length > 0 && prng.chance(0.7) ? pending : owners))
    if (to.owner.actorOf(namespaceId, slot) === undefined) return
    to.owner.merge(namespaceId, slot, key, state)
    this.endTurn(to)
  }

  /** Of what is durable at one owner: what is not has not left. */
  private read(client: Map<string, Seen>, node: MemoryNode, key: string): void {
    const slot = slotOf(utf8(key))
    this.sync(node)
    const state = node.owner.state(namespaceId, slot, utf8(key))
    if (state === undefined) return
    client.set(key, this.history.seenIn(state, key, node.owner.copyClock(namespaceId, slot)))
  }

  // ---- Reaping

  /** By the ring that the node knows. */
  private reap(node: MemoryNode, slot: Slot): void {
    // Under lww an unseen older write may follow a reaped delete: there the hint window counts.
    if (this.model.rule === "lww") return
    const owners = node.ring?.ownersOf(slot) ?? []
    if (!owners.includes(node.node)) return
    for (const owner of owners) this.sync(this.node(owner))
    const minted = new VersionVector()
    for (const owner of owners) {
      const actor = this.node(owner).owner.actorOf(namespaceId, slot)
      if (actor === undefined) return
      const base = this.node(owner).owner.copyClock(namespaceId, slot).baseOf(actor)
      if (base > 0) minted.add(actor, base)
    }
    const clocks = owners.map((owner) => this.node(owner).owner.copyClock(namespaceId, slot))
    this.prune(node, slot, { clock: SlotClock.meet(clocks), minted })
    this.endTurn(node)
  }

  private prune(node: MemoryNode, slot: Slot, stable: Stability): void {
    for (const [key, state] of this.held(node, slot)) {
      const left = pruneState(state, stable)
      if (left === state) continue
      node.owner.replace(namespaceId, slot, utf8(key), left)
      if (left === undefined) this.counts.reaped++
    }
  }

  private held(node: MemoryNode, slot: Slot): Map<string, Uint8Array> {
    const held = new Map<string, Uint8Array>()
    node.owner.forEachState(namespaceId, slot, (key, state) => {
      held.set(new TextDecoder().decode(key), state.slice())
      return true
    })
    return held
  }

  // ---- The end

  private heal(): void {
    this.converge()
    for (let round = 0; round < 2; round++) {
      for (const slot of slots) for (const node of nodes) this.reap(this.node(node), slot)
      this.converge()
    }
    this.mustBeEqual()
    this.mustHaveAll()
  }

  /** No more faults: slots arrive where they are going, and owners become equal. */
  private converge(): void {
    for (let round = 0; round < 400; round++) {
      for (const node of this.nodes.values()) this.learn(node)
      this.control()
      this.time(20)
      this.flush()
      if (this.isAtRest() && this.isEqual() && this.isQuiet()) return
    }
    throw new Divergence(this.isAtRest() ? "the owners stay apart" : "a slot is never filled")
  }

  private flush(): void {
    for (let i = 0; i < 5000; i++) {
      for (const node of this.nodes.values()) this.sync(node)
      const envelope = this.network.shift()
      if (envelope === undefined) return
      this.node(envelope.to).receive(envelope.from, envelope.bytes)
      this.endTurn(this.node(envelope.to))
    }
    throw new Divergence("messages without end")
  }

  private isEqual(): boolean {
    return slots.every((slot) => {
      const digests = this.ring.ownersOf(slot).map((node) => {
        const { low, high } = digestOf(this.node(node).owner, namespaceId, [slot])
        return `${low} ${high}`
      })
      return new Set(digests).size === 1
    })
  }

  /** Nobody knows of a difference. */
  private isQuiet(): boolean {
    return [...this.nodes.values()].every((node) =>
      node.exchanges.divergence().every(({ keys: count, oldestMs, runsUnknown }) => {
        return count + oldestMs + runsUnknown === 0
      }),
    )
  }

  private mustBeEqual(): void {
    for (const slot of slots) {
      const all = this.ring.ownersOf(slot).map((node) => {
        const held = [...this.held(this.node(node), slot)]
        const texts = held.map(([key, state]) => `${key}=${this.comparable(state)}`)
        return texts.filter((text) => !text.endsWith("=")).join()
      })
      if (new Set(all).size !== 1) throw new Divergence(`slot ${slot} is ${all.join(" | ")}`)
    }
  }

  /** What a counter keeps of an owner that has gone while all of it counts as deleted goes when its epoch has ended, which none does here. */
  private comparable(state: Uint8Array): string {
    if (this.model.rule !== "counter") return toHex(state)
    const out = new ByteWriter()
    keepCounterEntries(out, state, ({ counter, since }) => counter > since)
    return toHex(out.bytes())
  }

  private mustHaveAll(): void {
    for (const op of this.history.ops) {
      if (!op.isAcknowledged) continue
      const slot = slotOf(utf8(op.key))
      for (const node of this.ring.ownersOf(slot)) {
        if (this.knownAt(this.node(node), op.key).includes(op)) continue
        const dot = describeDot(op.actor, op.counter)
        throw new Divergence(`n${node} lacks ${dot} of n${nodeOf(op.actor)}, acknowledged`)
      }
    }
  }
}

function hexOf(state: Uint8Array | undefined): string {
  return state === undefined ? "" : toHex(state)
}
