import { encodeToken } from "../../../src/dynamo/contextToken.ts"
import { copiesOf, type Level } from "../../../src/dynamo/coordinator/slotPlan.ts"
import { describeDot } from "../../../src/dynamo/dot.ts"
import { contextOf, forEachLiveDot, ruleOf } from "../../../src/dynamo/keyState.ts"
import { latestStamp } from "../../../src/dynamo/lww.ts"
import type { EventualNamespace } from "../../../src/dynamo/node/ports.ts"
import type {
  EventualChange,
  EventualReply,
  EventualWrite,
} from "../../../src/dynamo/node/requests.ts"
import { viewOf } from "../../../src/dynamo/valueView.ts"
import { AssertionError } from "../../../src/lib/assert.ts"
import { text, toHex, utf8 } from "../../../src/lib/bytes.ts"
import { Prng } from "../../../src/lib/prng.ts"
import { isPlaced } from "../../../src/topology/member.ts"
import type { NodeId } from "../../../src/types.ts"
import type { Mutant } from "../mutants/mutant.ts"
import { Trace } from "../trace.ts"
import { Violation } from "../violation.ts"
import type { Outcome } from "../world.ts"
import { type Answer, hold, type KeyBook, type Sight, unseen, type Write } from "./book.ts"
import { SimulatedCluster } from "./cluster.ts"
import { CounterBook } from "./counterBook.ts"
import { damageLog, damageTable, eventualTables } from "./damage.ts"
import { type EventualParameters, parametersOf } from "./parameters.ts"
import { SetBook } from "./setBook.ts"
import { ValuesBook } from "./valuesBook.ts"

interface Key {
  readonly namespace: EventualNamespace
  readonly bytes: Uint8Array
  readonly book: KeyBook
  /** By client. */
  readonly sights: Array<Sight>
}

const levels: ReadonlyArray<Level> = ["one", "one", "quorum", "quorum", "all"]
/** That others hold a write of, too. */
const sharedLevels: ReadonlyArray<Level> = ["quorum", "quorum", "all"]
const dayMs = 86_400_000
const ttlMsMax = 2000
/** So long the cluster may take until it is at rest, once nothing is wrong any more. */
const restMsMax = 240_000

/**
 * Eventual mode under everything that may happen to it: the classes that ship (store loop, journal, engine, the whole of `dynamo/node`) over simulated disks, clocks and network.
 *
 * Clients write and read a handful of keys, each with the contexts that it has read itself, some old. Meanwhile messages are lost, late and doubled, links are cut one way, power goes
 * and takes what was not synced, clocks are apart and jump, nodes are away for days, disks are full, and nodes join and leave the ring, of which word spreads slowly; in some worlds one node's disk is damaged, again and again. Then all is made
 * good again. Within bounded time nothing may be owed or differ; all owners of a key must hold the same bytes, and nobody else any; and what they hold is checked against what is
 * true: each book (book.ts) knows of every write what its writer had seen.
 *
 * Left out: strong groups in the same nodes, whose liveness and journal the halves share (test/server, test/processes), and damage to more than one node's disk.
 */
export class EventualWorld {
  readonly parameters: EventualParameters
  readonly trace: Trace
  readonly cluster: SimulatedCluster
  readonly keys: ReadonlyArray<Key>
  private readonly prng: Prng
  private readonly seed: number
  private writeCount = 0
  private acknowledged = 0
  private faults = 0
  private crashes = 0
  private nextNode: NodeId
  private readonly victim: NodeId
  private startedMs = 0

  private readonly takeOut: () => void

  constructor(options: {
    readonly seed: number
    readonly mutant?: Mutant | undefined
    readonly write?: (line: string) => void
  }) {
    this.seed = options.seed
    this.takeOut = options.mutant?.plant?.() ?? (() => {})
    this.parameters = parametersOf(options.seed)
    this.prng = new Prng(options.seed)
    this.trace = new Trace(options.write)
    this.cluster = new SimulatedCluster(this.parameters, this.prng.fork(), this.trace)
    this.nextNode = this.parameters.nodes + 1
    this.victim = 1 + (options.seed % this.parameters.nodes)
    this.startedMs = this.cluster.nowMs
    this.keys = this.parameters.namespaces.flatMap((namespace) =>
      Array.from({ length: this.parameters.keys }, (_, i) => this.keyOf(namespace, i)),
    )
  }

  private keyOf(namespace: EventualNamespace, index: number): Key {
    const { rule } = namespace
    const name = this.parameters.oneSlot ? `{a}${index}` : `key${index}`
    const full = `${rule} ${name}`
    const book =
      rule === "counter"
        ? new CounterBook(full)
        : rule === "set" || rule === "flag"
          ? new SetBook(full)
          : new ValuesBook(full, rule)
    const sights = Array.from({ length: this.parameters.clients }, () => unseen)
    return { namespace, bytes: utf8(name), book, sights }
  }

  run(): Outcome {
    let violation: Outcome["violation"]
    try {
      for (let i = 0; i < this.parameters.steps; i++) this.step()
      this.heal()
    } catch (error) {
      violation = violationIn(error)
    } finally {
      this.takeOut()
    }
    const { trace, cluster } = this
    const seconds = (cluster.nowMs - this.startedMs) / 1000
    return {
      ...{ seed: this.seed, violation, traceHash: trace.hash, simulatedSeconds: seconds },
      ...{ safetySeconds: seconds, operations: this.writeCount, succeeded: this.acknowledged },
      ...{ faults: this.faults, elections: 0, crashes: this.crashes, isStranded: false },
    }
  }

  // ---- What happens

  private step(): void {
    const { prng, cluster, parameters } = this
    const { rates } = parameters
    if (prng.chance(rates.cut)) this.cut()
    if (prng.chance(rates.heal)) cluster.cuts.clear()
    if (prng.chance(rates.crash)) this.crash()
    if (prng.chance(rates.start)) this.startAll()
    if (prng.chance(rates.longAway)) this.longAway()
    if (prng.chance(rates.calm)) this.calm()
    if (prng.chance(rates.ring)) this.changeRing()
    if (prng.chance(rates.clock)) this.moveClock()
    if (prng.chance(rates.full)) this.fill()
    if (prng.chance(rates.damage)) this.damage()
    if (prng.chance(0.3)) cluster.stepRing()
    const [first] = cluster.nodes.keys()
    if (first === undefined) this.startAll()
    for (const id of cluster.nodes.keys()) if (prng.chance(0.5)) cluster.tell(id)
    const requests = prng.int(1, parameters.burst)
    for (let i = 0; i < requests; i++) {
      const key = prng.pick(this.keys)
      if (prng.chance(0.4)) this.read(key)
      else if (prng.chance(rates.writeAcrossLoss)) this.writeAcrossLoss(key)
      else this.write(key, this.coordinator(key))
    }
    cluster.pass(10 * prng.pick([0, 1, 1, 2, 5, 20]))
  }

  private up(): ReadonlyArray<NodeId> {
    return [...this.cluster.nodes.keys()]
  }

  private cut(): void {
    const { prng, cluster } = this
    this.faults++
    const sides = new Map([...cluster.members].map((id) => [id, prng.chance(0.4)]))
    const isOneWay = prng.chance(0.3)
    for (const from of cluster.members) {
      for (const to of cluster.members) {
        if (sides.get(from) === sides.get(to)) continue
        if (isOneWay && sides.get(from) === true) continue
        cluster.cuts.add(`${from}>${to}`)
      }
    }
  }

  private crash(): void {
    const up = this.up()
    if (up.length < 2) return
    this.faults++
    this.crashes++
    this.cluster.crash(this.prng.pick(up))
  }

  private startAll(): void {
    for (const id of this.cluster.members) this.cluster.start(id)
  }

  private longAway(): void {
    const { prng, cluster } = this
    const away = prng.pick([...cluster.members])
    this.faults++
    if (prng.chance(0.5)) cluster.crash(away)
    else this.isolate(away)
    cluster.pass(2000)
    this.checkWindow()
    cluster.leap(prng.int(1, 30) * dayMs)
    cluster.pass(prng.pick([200, 2000]))
  }

  private calm(): void {
    const { prng, cluster } = this
    cluster.cuts.clear()
    this.startAll()
    for (let i = prng.int(1, 10); i > 0; i--) {
      cluster.stepRing()
      cluster.tellAll()
      cluster.pass(500)
    }
  }

  private isolate(id: NodeId): void {
    for (const other of this.cluster.members) {
      this.cluster.cuts.add(`${id}>${other}`).add(`${other}>${id}`)
    }
  }

  private changeRing(): void {
    const { prng, cluster, parameters } = this
    if (cluster.ring.changes().length > 0) return
    this.faults++
    const joined = this.nextNode - parameters.nodes - 1
    if (joined < parameters.spares) return cluster.addMember(this.nextNode++)
    const placed = cluster.ring.members.filter(isPlaced)
    const copies = Math.max(...parameters.namespaces.map((each) => each.copies))
    if (placed.length > copies) cluster.partWith(prng.pick(placed).node)
  }

  private moveClock(): void {
    const { prng, cluster, parameters } = this
    this.faults++
    const id = prng.pick([...cluster.members])
    cluster.setAhead(id, prng.int(0, parameters.skewMsMax))
  }

  private fill(): void {
    const { prng, cluster } = this
    const disk = cluster.disks.get(prng.pick([...cluster.members]))
    if (disk === undefined) return
    this.faults++
    disk.capacityBytes = prng.chance(0.5) ? 1 : Number.POSITIVE_INFINITY
  }

  /** While it runs or while it is down; a table's file may be lost then, too. */
  private damage(): void {
    const { cluster, prng } = this
    const disk = cluster.disks.get(this.victim)
    if (disk === undefined) return
    this.faults++
    const node = cluster.nodes.get(this.victim)
    if (node !== undefined && prng.chance(0.5)) {
      node.loop.storage.flushWanted = true
      cluster.pass(200)
    }
    if (prng.chance(0.5)) cluster.crash(this.victim)
    const isDown = !cluster.nodes.has(this.victim)
    const tables = eventualTables(disk)
    const draw = prng.float()
    if (draw < 0.4 || tables.length === 0) damageLog(disk, prng, 0.3)
    else if (draw < 0.6 && isDown) disk.remove(prng.pick(tables))
    else damageTable(disk, prng.pick(tables))
    if (prng.chance(0.7)) cluster.start(this.victim)
  }

  // ---- What clients do

  private coordinator(key: Key): NodeId {
    const { prng, cluster } = this
    const up = this.up()
    const owners = cluster.owners(key.bytes, key.namespace.copies)
    const near = up.filter((id) => owners.includes(id))
    return near.length > 0 && prng.chance(this.parameters.nearOwner)
      ? prng.pick(near)
      : prng.pick(up)
  }

  /** What has left of a write before the power went, and what its node writes next, must not be mistaken for each other. */
  private writeAcrossLoss(key: Key): void {
    const { cluster, prng } = this
    const id = this.coordinator(key)
    this.faults++
    this.crashes++
    this.write(key, id)
    cluster.pass(prng.pick([10, 20]))
    cluster.crash(id)
    cluster.start(id)
    this.write(key, id)
  }

  private write(key: Key, id: NodeId): void {
    const { prng, cluster } = this
    const client = prng.int(0, key.sights.length - 1)
    const isBlind = prng.chance(this.parameters.blind)
    const sight = isBlind ? unseen : (key.sights[client] ?? unseen)
    const { change, ...planned } = this.plan(key, sight)
    const write: Write = {
      ...{ id: this.writeCount++, delta: 0, expiry: undefined, startedMs: cluster.nowMs },
      ...{ covers: sight.covers, mayCover: sight.mayCover },
      ...planned,
      ...{ endedMs: Number.POSITIVE_INFINITY, outcome: "pending" },
      ...{ ownersHolding: 0, heldSinceMs: Number.POSITIVE_INFINITY },
    }
    key.book.writes.push(write)
    const level = prng.pick(this.parameters.rates.damage > 0 ? sharedLevels : levels)
    const isCounted = change._tag === "Increment"
    const request: Omit<EventualWrite, "token"> = {
      ...{ _tag: "EventualWrite", namespace: key.namespace.id, key: key.bytes, change, level },
      ...{ deadlineMs: prng.pick([100, 500, 2000]), strict: prng.chance(0.4) },
      ...{ context: sight.context, requestId: isCounted ? write.id + 1 : 0 },
    }
    this.send(key, write, id, request)
    if (!isCounted || !prng.chance(0.3)) return
    // The client has lost its connection, and asks the same node again.
    cluster.pass(10 * prng.int(0, 5))
    if (cluster.nodes.has(id)) this.send(key, write, id, { ...request, isRetry: true })
  }

  private plan(
    { namespace, book }: Key,
    sight: Sight,
  ): Pick<Write, "kind" | "value"> & {
    readonly change: EventualChange
    readonly delta?: number
    readonly expiry?: Write["expiry"]
  } {
    const { prng } = this
    const canDelete = sight.context !== undefined
    if (namespace.rule === "counter") {
      const delta = prng.int(1, 50)
      return {
        kind: "increment",
        value: "",
        delta,
        change: { _tag: "Increment", delta: BigInt(delta) },
      }
    }
    if (canDelete && prng.chance(this.parameters.deletes)) {
      const isSet = namespace.rule === "set" || namespace.rule === "flag"
      return { kind: isSet ? "clear" : "delete", value: "", change: { _tag: "Delete" } }
    }
    if (namespace.rule === "flag") {
      return canDelete && prng.chance(0.4)
        ? { kind: "remove", value: "on", change: { _tag: "Disable" } }
        : { kind: "add", value: "on", change: { _tag: "Enable" } }
    }
    if (namespace.rule === "set") {
      const known = book.writes.filter(({ kind }) => kind === "add").map(({ value }) => value)
      const isKnown = known.length > 0 && prng.chance(0.4)
      const value = isKnown ? prng.pick(known) : `m${this.writeCount}`
      return canDelete && isKnown
        ? { kind: "remove", value, change: { _tag: "Remove", member: utf8(value) } }
        : { kind: "add", value, change: { _tag: "Add", member: utf8(value) } }
    }
    const value = `w${this.writeCount}`
    const ttlMs = prng.chance(this.parameters.ttl) ? prng.int(50, ttlMsMax) : 0
    const change: EventualChange = { _tag: "Put", value: utf8(value), ttlMs }
    if (ttlMs === 0) return { kind: "put", value, change }
    const apart = 2 * this.parameters.skewMsMax
    const from = this.cluster.nowMs + ttlMs
    // Taken at the latest at its deadline, by a clock that is ahead.
    return {
      kind: "put",
      value,
      change,
      expiry: { mayMs: from - apart, mustMs: from + 4000 + apart },
    }
  }

  private send(key: Key, write: Write, id: NodeId, request: Omit<EventualWrite, "token">): void {
    this.cluster.ask(
      id,
      (token) => ({ ...request, token }),
      (reply) => this.written(key, write, reply),
    )
  }

  private written({ namespace }: Key, write: Write, reply: EventualReply | undefined): void {
    if (reply?._tag === "EventualWritten") {
      this.acknowledged++
      write.outcome = "acknowledged"
      write.endedMs = this.cluster.nowMs
      const { asked, sloppy } = reply.receipt
      const held = sloppy || asked === "localQuorum" ? 0 : copiesOf(asked, namespace.copies)
      hold(write, held, write.endedMs)
      return
    }
    if (write.outcome === "acknowledged") return
    const isKnown = reply?._tag === "EventualRefused" && reply.refusal._tag !== "WriteUnknown"
    if (!isKnown) write.outcome = "unknown"
    else if (write.outcome === "pending") write.outcome = "refused"
  }

  private read(key: Key): void {
    const { prng, cluster } = this
    const client = prng.int(0, key.sights.length - 1)
    const level = prng.pick(levels)
    const startedMs = cluster.nowMs
    cluster.ask(
      this.coordinator(key),
      (token) => ({
        ...{ _tag: "EventualRead", token, namespace: key.namespace.id, key: key.bytes, level },
        deadlineMs: prng.pick([100, 500, 2000]),
      }),
      (reply) => {
        if (reply?._tag !== "EventualValue") return
        const answer = this.answerOf(reply.state, { startedMs, ...reachOf(level, key.namespace) })
        const seen = key.book.read(answer)
        key.sights[client] = { ...seen, context: contextIn(key, reply.state) }
      },
    )
  }

  private answerOf(
    state: Uint8Array | undefined,
    asked: Pick<Answer, "startedMs" | "owners" | "meetsOwners">,
  ): Answer {
    const times = { ...asked, endedMs: this.cluster.nowMs }
    const view = state === undefined ? undefined : viewOf(state)
    switch (view?._tag) {
      case "Values":
        return { values: view.values.map(text), total: undefined, ...times }
      case "Set":
        return { values: view.members.map(text), total: undefined, ...times }
      case "Flag":
        return { values: view.enabled ? ["on"] : [], total: undefined, ...times }
      case "Counter":
        return { values: [], total: view.value ?? 0n, ...times }
      default:
        return { values: [], total: undefined, ...times }
    }
  }

  // ---- The end

  private heal(): void {
    const { cluster } = this
    cluster.isHealed = true
    cluster.cuts.clear()
    for (const disk of cluster.disks.values()) disk.capacityBytes = Number.POSITIVE_INFINITY
    this.startAll()
    // What nobody has read of damaged tables the scrub has found by then.
    if (this.parameters.rates.damage > 0) cluster.pass(3000)
    this.untilRest(() => this.restlessness() ?? this.difference(liveIn))
    this.checkWindow()
    // Whatever was to expire has done so, on every clock, and deletes are as old as they must be to go.
    const { reap } = this.parameters.settings.eventual
    cluster.leap(ttlMsMax + 8000 + 4 * this.parameters.skewMsMax + reap.windowMs)
    this.untilRest(() => this.restlessness() ?? this.difference(toHex))
    for (const key of this.keys) this.checkHeld(key)
    for (const key of this.keys) this.checkShown(key)
  }

  /** Nothing is reaped before the window has passed, whatever clocks say. */
  private checkWindow(): void {
    const { cluster, parameters } = this
    const { windowMs } = parameters.settings.eventual.reap
    if (cluster.nowMs - this.startedMs >= windowMs - 2 * parameters.skewMsMax) return
    for (const [id, { loop }] of cluster.nodes) {
      if (loop.eventual.machine.reaper.reaped === 0) continue
      throw new Violation(
        "resurrection",
        `n${id} has reaped a delete that is younger than its window`,
      )
    }
  }

  private untilRest(problem: () => string | undefined): void {
    const { cluster } = this
    const endMs = cluster.nowMs + restMsMax
    let why: string | undefined = "nothing has happened yet"
    while (why !== undefined) {
      if (cluster.nowMs > endMs) throw new Violation("liveness", `${why} after ${restMsMax} ms`)
      cluster.stepRing()
      cluster.tellAll()
      cluster.pass(50)
      why = problem()
    }
  }

  private restlessness(): string | undefined {
    const { cluster, parameters } = this
    if (!cluster.isAnswered) return "a request has no answer"
    if (!cluster.isRingAtRest) return "the ring is not at rest"
    for (const [id, { loop }] of cluster.nodes) {
      const { machine } = loop.eventual
      const { slots } = loop.eventual.status().refilling
      if (slots > 0) return `n${id} refills ${slots} slots`
      const { lasting, ended } = machine.tenures.counts
      if (machine.hints.count > 0) return `n${id} holds ${machine.hints.count} hints`
      if (lasting + ended > 0) return `n${id} is in a tenure`
      if (machine.coordinators.count > 0) return `n${id} has requests under way`
      for (const { node, keys, runsUnknown } of machine.exchanges.divergence()) {
        if (keys + runsUnknown > 0) return `n${id} and n${node} differ in ${keys} keys`
      }
      for (const namespace of parameters.namespaces) {
        const left = machine.owner.leftOver(namespace.id).length
        if (left > 0) return `n${id} keeps ${left} slots that it does not own`
      }
    }
    return undefined
  }

  /** Owners exchange what is live. What they know beside that of causes may differ until the last of it goes, when deletes are reaped. */
  private difference(of: (state: Uint8Array) => string): string | undefined {
    for (const key of this.keys) {
      const kinds = new Set(this.heldOf(key, of).values())
      if (kinds.size > 1) return `the owners of ${key.book.name} hold ${kinds.size} states`
    }
    return undefined
  }

  private heldOf(
    { namespace, bytes }: Key,
    of: (state: Uint8Array) => string,
  ): ReadonlyMap<NodeId, string> {
    const held = new Map<NodeId, string>()
    for (const id of this.cluster.owners(bytes, namespace.copies)) {
      const state = this.cluster.stateAt(id, namespace.id, bytes)
      held.set(id, state === undefined ? "" : of(state))
    }
    return held
  }

  private checkHeld(key: Key): void {
    const { cluster } = this
    const owners = this.heldOf(key, toHex)
    if (new Set(owners.values()).size > 1) {
      throw new Violation("divergence", `the owners of ${key.book.name} hold different states`)
    }
    for (const [id, { loop }] of cluster.nodes) {
      if (loop.eventual.machine.reaper.drifted > 0) {
        throw new Violation("divergence", `trees of n${id} had drifted from their keys`)
      }
      if (owners.has(id)) continue
      if (cluster.stateAt(id, key.namespace.id, key.bytes) === undefined) continue
      throw new Violation("divergence", `n${id} keeps ${key.book.name}, which it does not own`)
    }
  }

  private checkShown(key: Key): void {
    const { cluster } = this
    const startedMs = cluster.nowMs
    const [owner] = cluster.owners(key.bytes, key.namespace.copies)
    let found: EventualReply | undefined
    cluster.ask(
      owner as NodeId,
      (token) => ({
        ...{ _tag: "EventualRead", token, namespace: key.namespace.id, key: key.bytes },
        ...{ level: "all", deadlineMs: 5000 },
      }),
      (reply) => {
        found = reply
      },
    )
    for (let i = 0; i < 600 && found === undefined; i++) cluster.pass(10)
    if (found?._tag !== "EventualValue") {
      throw new Violation("liveness", `${key.book.name} can't be read when all is well`)
    }
    key.book.final(this.answerOf(found.state, { startedMs, ...reachOf("all", key.namespace) }))
  }

  describe(): Record<string, unknown> {
    const { parameters } = this
    const { theme, nodes, namespaces } = parameters
    return { theme, nodes, rules: namespaces.map(({ rule, copies }) => `${rule} x${copies}`) }
  }
}

/** What a read of this level meets, and what it leaves behind: above `one` it is answered when enough owners hold what it shows. */
function reachOf(
  level: Level,
  { copies }: EventualNamespace,
): Pick<Answer, "owners" | "meetsOwners"> {
  if (level === "localQuorum") return { owners: 0, meetsOwners: Number.POSITIVE_INFINITY }
  const owners = copiesOf(level, copies)
  return { owners: level === "one" ? 0 : owners, meetsOwners: copies - owners + 1 }
}

/** The names of what is live in a state. */
function liveIn(state: Uint8Array): string {
  const dots: Array<string> = []
  forEachLiveDot(state, 0, (actor, counter) => dots.push(describeDot(actor, counter)))
  return dots.sort().join()
}

function contextIn({ namespace, bytes }: Key, state: Uint8Array | undefined) {
  if (state === undefined) return undefined
  const rule = ruleOf(state)
  const stamp = rule === "lww" || rule === "register" ? latestStamp(state) : 0
  return encodeToken({ rule, stamp, seen: contextOf(state) }, namespace.id, bytes)
}

function violationIn(error: unknown): Outcome["violation"] {
  if (error instanceof Violation) return { invariant: error.invariant, message: error.message }
  if (error instanceof AssertionError || error instanceof Error) {
    return { invariant: "assertion", message: `${error.message}\n${error.stack}` }
  }
  throw error
}

export function runEventualSeed(options: {
  readonly seed: number
  readonly mutant?: Mutant | undefined
}): Outcome {
  return new EventualWorld(options).run()
}
