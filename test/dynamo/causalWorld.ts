import { actorOf, describeDot, nodeOf } from "../../src/dynamo/dot.ts"
import { checkState, contextOf, forEachDot } from "../../src/dynamo/keyState.ts"
import type { SlotClock } from "../../src/dynamo/slotClock.ts"
import { VersionVector } from "../../src/dynamo/versionVector.ts"
import { toHex } from "../../src/lib/bytes.ts"
import { CausalRules, copyOf, keys, owners, type Replica, standIns } from "./causalRules.ts"
import type { Draft, Op, RuleModel, Seen } from "./rules.ts"

/**
 * An oracle of true causality. A small world keeps one slot of three keys on three owners, with two stand-ins that have
 * tenures, messages that are lost, doubled and late, owners that lose everything, exchanges that break off, values that
 * expire, deletes that are reaped and epochs that end. Beside each state it carries the set of writes that went into it,
 * and each write knows which writes its client had truly seen. After every step what the bytes show must be what the
 * history says: the writes known that no known write covers, no more and no fewer. In the end all owners exchange, and must
 * be equal byte by byte; then everything is pruned, and deleted keys and ended epochs must be gone.
 */
export class Divergence extends Error {}

const usualWeights: ReadonlyArray<readonly [string, number]> = [
  ["write", 20],
  ["sloppyWrite", 8],
  ["read", 16],
  ["deliver", 30],
  ["repair", 6],
  ["exchange", 7],
  ["brokenExchange", 3],
  ["handOver", 5],
  ["prune", 6],
  ["time", 2],
  ["wipe", 0.7],
  ["endEpochs", 2],
]

export interface Held {
  readonly state: Uint8Array
  readonly ops: ReadonlySet<number>
}

interface Message {
  readonly to: number
  readonly key: string
  readonly held: Held
}

export class CausalWorld extends CausalRules {
  readonly ops: Array<Op> = []
  /** What each of three clients read last, by key. */
  private readonly clients = Array.from({ length: 3 }, () => new Map<string, Seen>())
  private messages: Array<Message> = []
  /** Actors of tenures that ended, with their last counters. */
  private readonly finals = new Map<number, number>()
  /** Actors whose node lost data. */
  private readonly lost = new Set<number>()
  /** How often each step is taken, different in every world. */
  private readonly weights: ReadonlyArray<readonly [string, number]>
  private readonly weightsSum: number
  private pending: { readonly node: number; readonly missing: Set<number> } | undefined
  readonly counts = { writes: 0, refused: 0, reaped: 0, pruned: 0, wiped: 0, ended: 0, adopted: 0 }

  constructor(seed: number, model: RuleModel) {
    super(seed, model)
    this.weights = usualWeights.map(([step, weight]) => [
      step,
      weight * this.prng.logUniform(0.2, 5),
    ])
    this.weightsSum = this.weights.reduce((sum, [, weight]) => sum + weight, 0)
  }

  run(steps: number): void {
    for (let i = 0; i < steps; i++) this.step()
    this.heal()
  }

  private step(): void {
    const { prng } = this
    const owner = this.replica(prng.pick(owners))
    const other = this.replica(prng.pick(owners))
    const key = prng.pick(keys)
    const draw = this.drawStep()
    if (draw === "write") this.write(owner, key)
    else if (draw === "sloppyWrite") this.write(this.replica(prng.pick(standIns)), key)
    else if (draw === "read") this.read(key)
    else if (draw === "deliver") this.deliver()
    else if (draw === "repair") this.send(other.node, key, owner)
    else if (draw === "exchange") this.exchange(owner, other)
    else if (draw === "brokenExchange") this.brokenExchange(owner, other)
    else if (draw === "handOver") this.handOver(this.replica(prng.pick(standIns)))
    else if (draw === "prune") this.prune(owner)
    else if (draw === "time") this.nowMs += prng.int(1, 400)
    else if (draw === "wipe") this.wipe(owner)
    else this.endEpochs()
    this.expire(owner)
  }

  private drawStep(): string {
    let rest = this.prng.float() * this.weightsSum
    for (const [step, weight] of this.weights) {
      rest -= weight
      if (rest < 0) return step
    }
    return "endEpochs"
  }

  private opsAt(replica: Replica, key: string): Set<number> {
    let ops = replica.ops.get(key)
    if (ops === undefined) {
      ops = new Set()
      replica.ops.set(key, ops)
    }
    return ops
  }

  private write(at: Replica, key: string): void {
    const { prng, model } = this
    if (standIns.includes(at.node) && !at.active) this.beginTenure(at)
    const client = prng.pick(this.clients)
    const seen = prng.chance(0.75) ? client.get(key) : undefined
    const actor = actorOf(at.node, at.epoch)
    const id = this.ops.length
    const deletes = seen !== undefined && prng.chance(0.3)
    const draft: Draft = {
      id,
      kind: deletes ? "delete" : "put",
      value: deletes && prng.chance(0.4) ? "all" : model.drawValue(prng, id),
      expiryMs: prng.chance(0.15) ? this.nowMs + prng.int(1, 600) : 0,
      stamp: prng.int(1, 20),
      actor,
      counter: at.clock.mint(actor),
    }
    const here = this.opsAt(at, key)
    const past = seen ?? { context: undefined, ops: new Set<number>() }
    const local = at.states.get(key)
    const clock = owners.includes(at.node) ? at.clock : undefined
    const state = model.put(local, draft, past, clock)
    this.counts.writes++
    if (typeof state === "string") {
      this.counts.refused++
      return
    }
    const known = (ids: ReadonlySet<number>) => [...ids].map((n) => this.ops[n])
    const covered = model.covers(draft, known(past.ops), known(here))
    this.ops.push({ ...draft, covers: new Set(covered.map((op) => op.id)) })
    here.add(id)
    // What a write covers counts as known wherever the write is; but a member's removal may run ahead of its set, and is
    // then not yet part of what readers get as their context.
    if (model.rule !== "set" || draft.value === "all") {
      for (const op of covered) if (model.rule !== "set" || op.kind === "put") here.add(op.id)
    }
    at.states.set(key, state)
    this.check(at, key)
    if (prng.chance(0.2)) client.delete(key)
    this.noteWritten(at, past, draft, (next) => client.set(key, next))
    for (const node of owners) if (node !== at.node) this.send(node, key, at)
    if (prng.chance(0.1)) this.send(prng.pick(standIns), key, at)
  }

  private read(key: string): void {
    const { prng } = this
    const ops = new Set<number>()
    let state: Uint8Array | undefined
    for (const replica of this.replicas.values()) {
      if (!prng.chance(0.4)) continue
      const found = replica.states.get(key)
      if (found !== undefined) state = state === undefined ? found : this.merge(state, found)
      for (const op of this.opsAt(replica, key)) ops.add(op)
    }
    if (!this.anyPruned()) this.compare("a reader", state, ops)
    if (state === undefined) return
    prng.pick(this.clients).set(key, { context: contextOf(state), ops })
  }

  /**
   * Whether deletes have gone for which only slot clocks speak now. Who has none, a reader, a stand-in, or an owner that
   * is being filled again, may then see what they deleted at one that lags.
   */
  private anyPruned(): boolean {
    return this.counts.reaped + this.counts.pruned > 0
  }

  private beginTenure(at: Replica): void {
    at.active = true
    at.epoch = this.tenureEpoch(at)
    at.clock = this.tenureClock(at)
  }

  private send(to: number, key: string, from: Replica): void {
    const state = from.states.get(key)
    if (state === undefined || this.prng.chance(0.2)) return
    const ops = new Set(this.opsAt(from, key))
    this.messages.push({ to, key, held: { state, ops } })
  }

  private deliver(): void {
    if (this.messages.length === 0) return
    const index = this.prng.int(0, this.messages.length - 1)
    const { to, key, held } = this.messages[index]
    if (!this.prng.chance(0.25)) this.messages.splice(index, 1)
    this.receive(this.replica(to), key, held)
  }

  receive(at: Replica, key: string, held: Held): void {
    const isOwner = owners.includes(at.node)
    if (!isOwner && !at.active) this.beginTenure(at)
    const merged = this.merge(at.states.get(key), held.state, isOwner ? at.clock : undefined)
    if (merged === undefined) at.states.delete(key)
    else at.states.set(key, merged)
    if (isOwner) this.note(at, held.state)
    const ops = this.opsAt(at, key)
    for (const op of held.ops) ops.add(op)
    this.check(at, key)
  }

  private held(at: Replica, chosen: ReadonlyArray<string>): Map<string, Held> {
    const all = new Map<string, Held>()
    for (const key of chosen) {
      const state = at.states.get(key)
      if (state !== undefined) all.set(key, { state, ops: new Set(this.opsAt(at, key)) })
    }
    return all
  }

  exchange(left: Replica, right: Replica): void {
    if (left === right) return
    const chosen = keys.filter((key) => this.isExchanged(left, right, key))
    const fromLeft = this.held(left, chosen)
    const fromRight = this.held(right, chosen)
    const clockLeft = copyOf(left.clock)
    const clockRight = copyOf(right.clock)
    this.takeAll(left, chosen, fromRight, clockRight)
    this.takeAll(right, chosen, fromLeft, clockLeft)
    this.filled(left, right)
    this.filled(right, left)
    // What the other has seen and does not hold is history here too.
    for (const key of keys) {
      const all = new Set([...this.opsAt(left, key), ...this.opsAt(right, key)])
      left.ops.set(key, all)
      right.ops.set(key, new Set(all))
      this.check(left, key)
      this.check(right, key)
    }
    this.counts.adopted++
  }

  private filled(at: Replica, from: Replica): void {
    if (this.pending?.node !== at.node) return
    this.pending.missing.delete(from.node)
    if (this.pending.missing.size === 0) this.pending = undefined
  }

  private takeAll(
    at: Replica,
    chosen: ReadonlyArray<string>,
    theirs: Map<string, Held>,
    seenThere: SlotClock,
  ): void {
    for (const key of chosen) {
      const held = theirs.get(key)
      const merged = this.mergeExchanged(at.states.get(key), held?.state, at.clock, seenThere)
      if (merged === undefined) at.states.delete(key)
      else at.states.set(key, merged)
    }
    for (const { state } of theirs.values()) this.note(at, state)
    this.adoptClock(at, seenThere)
  }

  brokenExchange(left: Replica, right: Replica): void {
    if (left === right) return
    const key = this.prng.pick(keys)
    const held = this.held(right, keys).get(key)
    if (held !== undefined) this.receive(left, key, held)
    this.afterBroken(left, right)
  }

  /** All hints go to all owners, by way of messages that arrive; then the tenure is over. */
  private handOver(from: Replica): void {
    if (!from.active || this.messages.some(({ to }) => to === from.node)) return
    const held = this.held(from, keys)
    for (const node of owners) {
      for (const [key, h] of held) this.receive(this.replica(node), key, h)
      // What the tenure wrote over itself is seen as well.
      this.replica(node).clock.adopt(from.clock)
    }
    const actor = actorOf(from.node, from.epoch)
    this.finals.set(actor, from.clock.baseOf(actor))
    from.active = false
    from.states.clear()
    from.ops.clear()
  }

  /** One owner at a time loses its data; until it has exchanged with both others it is pending. */
  private wipe(at: Replica): void {
    if (this.pending !== undefined) return
    this.pending = { node: at.node, missing: new Set(owners.filter((node) => node !== at.node)) }
    this.lost.add(actorOf(at.node, at.epoch))
    at.states.clear()
    at.ops.clear()
    at.epoch = this.wipedEpoch(at)
    at.clock = this.wipedClock(at)
    this.counts.wiped++
  }

  private prune(at: Replica): void {
    // Under lww an unseen older write may follow a reaped delete: there the hint window counts.
    if (this.model.rule === "lww") return
    const stable = this.stability()
    for (const [key, state] of at.states) {
      const pruned = this.pruned(state, stable)
      if (pruned === undefined) {
        at.states.delete(key)
        this.counts.reaped++
      } else if (pruned !== state) {
        at.states.set(key, pruned)
        this.counts.pruned++
      }
      this.check(at, key)
    }
  }

  /** An epoch ends when no hint of it is left, no message has it, and every owner has all of it that is not lost. */
  private endEpochs(): void {
    if (this.messages.length > 0 || standIns.some((node) => this.replica(node).active)) return
    const clocks = owners.map((node) => this.replica(node).clock)
    for (const actor of this.lost) {
      if (this.finals.has(actor)) continue
      const highest = clocks.map((clock) => clock.highest(actor))
      if (new Set(clocks.map((clock) => clock.describe())).size > 1) continue
      for (const clock of clocks) clock.closeLost(actor, highest[0])
      this.finals.set(actor, highest[0])
    }
    for (const { node, epoch, active } of this.replicas.values()) {
      const finals = new Map([...this.finals].filter(([actor]) => nodeOf(actor) === node))
      const complete = [...finals].every(([actor, counter]) =>
        clocks.every((clock) => clock.covers(actor, counter)),
      )
      if (active || finals.size === 0 || !complete) continue
      const below = owners.includes(node) ? epoch : epoch + 1
      // An owner's epochs end together: those before the present one.
      const lost = [...this.lost].filter((actor) => nodeOf(actor) === node)
      if (lost.some((actor) => !finals.has(actor))) continue
      for (const clock of clocks) {
        if (!clock.endBelow(node, below, finals)) throw new Divergence(`n${node} cannot end`)
      }
      this.counts.ended++
    }
  }

  private expire(at: Replica): void {
    for (const [key, state] of at.states) {
      const left = this.expired(state, this.nowMs)
      if (left === undefined) at.states.delete(key)
      else at.states.set(key, left)
      this.check(at, key)
    }
  }

  private check(at: Replica, key: string): void {
    const state = at.states.get(key)
    if (state !== undefined) checkState(state)
    const hasClock = owners.includes(at.node) && this.pending?.node !== at.node
    if (hasClock || !this.anyPruned()) this.compare(`n${at.node}`, state, this.opsAt(at, key))
  }

  private compare(who: string, state: Uint8Array | undefined, known: ReadonlySet<number>): void {
    const covered = new Set<number>()
    for (const id of known) for (const other of this.ops[id].covers) covered.add(other)
    const live = [...known].filter((id) => !covered.has(id)).map((id) => this.ops[id])
    const expected = this.model.expected(live, this.nowMs)
    const shown = this.model.shown(state, this.nowMs)
    if (shown !== expected) {
      const bytes = state === undefined ? "nothing" : toHex(state)
      throw new Divergence(`${who} shows [${shown}] in place of [${expected}] (${bytes})`)
    }
  }

  private heal(): void {
    while (this.messages.length > 0) this.deliver()
    for (const node of standIns) this.handOver(this.replica(node))
    this.exchangeAll()
    this.mustShowTheSame()
    if (this.model.rule === "lww") return
    this.endEpochs()
    // What was deleted or expired goes, and so does every trace of tenures that ended.
    this.nowMs += 10_000
    for (const node of owners) this.expire(this.replica(node))
    for (const node of owners) this.prune(this.replica(node))
    this.exchangeAll()
    for (const node of owners) this.prune(this.replica(node))
    this.mustBeEqual("after pruning")
    this.mustBeSmall()
  }

  /** Nothing is left of actors of the past but the dots of their writes that still live. */
  mustBeSmall(): void {
    const { clock } = this.replica(owners[0])
    for (const actor of [...this.finals.keys(), ...this.lost]) {
      if (!clock.hasEnded(actor)) throw new Divergence(`${describeDot(actor, 0)} has not ended`)
    }
    for (const [key, state] of this.replica(owners[0]).states) {
      const alive = new Set<number>()
      forEachDot(state, (actor) => alive.add(actor))
      const vector = new VersionVector()
      if (this.model.rule !== "counter") vector.joinBytes(contextOf(state), 0)
      vector.forEach((actor) => {
        if (!alive.has(actor) && clock.hasEnded(actor)) {
          throw new Divergence(`${key} still speaks of ${describeDot(actor, 0)}`)
        }
      })
    }
  }

  private exchangeAll(): void {
    for (let round = 0; round < 2; round++) {
      for (const left of owners) {
        for (const right of owners) this.exchange(this.replica(left), this.replica(right))
      }
    }
  }

  /** Deletes are reaped by each owner for himself: till all have, only what is live must be equal. */
  private mustShowTheSame(): void {
    for (const key of keys) {
      const all = owners.map((node) => this.liveDots(this.replica(node), key))
      if (new Set(all).size !== 1) throw new Divergence(`${key} has ${all.join(" | ")}`)
    }
  }

  private mustBeEqual(when: string): void {
    for (const key of keys) {
      const all = owners.map((node) => this.replica(node).states.get(key))
      const texts = new Set(all.map((state) => (state === undefined ? "" : toHex(state))))
      if (texts.size !== 1) throw new Divergence(`${when} ${key} is ${[...texts].join(" | ")}`)
    }
  }
}
