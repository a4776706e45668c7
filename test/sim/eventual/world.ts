import { AssertionError } from "../../../src/lib/assert.ts"
import { Prng } from "../../../src/lib/prng.ts"
import { isPlaced } from "../../../src/topology/member.ts"
import type { NodeId } from "../../../src/types.ts"
import type { Mutant } from "../mutants/mutant.ts"
import { Trace } from "../trace.ts"
import { Violation } from "../violation.ts"
import type { Outcome } from "../world.ts"
import { Clients } from "./clients.ts"
import { SimulatedCluster } from "./cluster.ts"
import { damageLog, damageTable, eventualTables } from "./damage.ts"
import { Ending } from "./ending.ts"
import { type Key, keyOf } from "./key.ts"
import { type EventualParameters, parametersOf } from "./parameters.ts"

const dayMs = 86_400_000

/**
 * Eventual mode under everything that may happen to it: the classes that ship (store loop, journal, engine, the whole of `dynamo/node`) over simulated disks, clocks and network.
 *
 * Clients write and read a handful of keys, each with the contexts that it has read itself, some old. Meanwhile messages are lost, late and doubled, links are cut one way, power goes
 * and takes what was not synced, clocks are apart and jump, nodes are away for days, disks are full, and nodes join and leave the ring, of which word spreads slowly. In some worlds one
 * node's disk is damaged, again and again; in some, nodes are lost for good, one after the other; in some, copies are spread over zones, and clients ask at `localQuorum`.
 *
 * Then all is made good again. Within bounded time nothing may be owed or differ; all owners of a key must hold the same bytes, and nobody else any; and what they hold is checked against
 * what is true: each book (book.ts) knows of every write what its writer had seen.
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
  private readonly clients: Clients
  private readonly ending: Ending
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
      Array.from({ length: this.parameters.keys }, (_, i) => keyOf(this.parameters, namespace, i)),
    )
    this.clients = new Clients(this.prng, this.parameters, this.cluster)
    this.ending = new Ending(this.parameters, this.cluster, this.keys)
  }

  run(): Outcome {
    let violation: Outcome["violation"]
    try {
      for (let i = 0; i < this.parameters.steps; i++) this.step()
      this.ending.heal()
    } catch (error) {
      violation = violationIn(error)
    } finally {
      this.takeOut()
    }
    const { trace, cluster, clients } = this
    const seconds = (cluster.nowMs - this.startedMs) / 1000
    return {
      ...{ seed: this.seed, violation, traceHash: trace.hash, simulatedSeconds: seconds },
      ...{
        safetySeconds: seconds,
        operations: clients.writeCount,
        succeeded: clients.acknowledged,
      },
      ...{ faults: this.faults, elections: 0, crashes: this.crashes, isStranded: false },
      // There are no ranges.
      ...{ splits: 0, merges: 0 },
    }
  }

  private step(): void {
    const { prng, cluster, clients, parameters } = this
    const { rates } = parameters
    if (prng.chance(rates.cut)) this.cut()
    if (prng.chance(rates.heal)) cluster.cuts.clear()
    if (prng.chance(rates.crash)) this.crash()
    if (prng.chance(rates.start)) this.cluster.startAll()
    if (prng.chance(rates.longAway)) this.longAway()
    if (prng.chance(rates.calm)) this.calm()
    if (prng.chance(rates.ring)) this.changeRing()
    if (rates.gone > 0 && prng.chance(rates.gone)) this.lose()
    if (prng.chance(rates.clock)) this.moveClock()
    if (prng.chance(rates.full)) this.fill()
    if (prng.chance(rates.damage)) this.damage()
    if (prng.chance(0.3)) cluster.stepRing()
    const [first] = cluster.nodes.keys()
    if (first === undefined) this.cluster.startAll()
    for (const id of cluster.nodes.keys()) if (prng.chance(0.5)) cluster.tell(id)
    const requests = prng.int(1, parameters.burst)
    for (let i = 0; i < requests; i++) {
      const key = prng.pick(this.keys)
      if (prng.chance(0.4)) clients.read(key)
      else if (prng.chance(rates.writeAcrossLoss)) this.writeAcrossLoss(key)
      else clients.write(key, clients.coordinator(key))
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

  private longAway(): void {
    const { prng, cluster } = this
    const away = prng.pick([...cluster.members])
    this.faults++
    if (prng.chance(0.5)) cluster.crash(away)
    else this.isolate(away)
    cluster.pass(2000)
    this.ending.checkWindow()
    cluster.leap(prng.int(1, 30) * dayMs)
    cluster.pass(prng.pick([200, 2000]))
  }

  private calm(): void {
    const { prng, cluster } = this
    cluster.cuts.clear()
    this.cluster.startAll()
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

  /** One at a time: the next only when the others hold all of it again. Another one joins in its place, sooner or later; at once where there would be too few. */
  private lose(): void {
    const { prng, cluster, parameters } = this
    if (!cluster.isRingAtRest) return
    const { members } = cluster.ring
    const placed = members.filter(isPlaced)
    if (placed.length < members.length || placed.length < 3) return
    this.faults++
    cluster.lose(prng.pick(placed).node)
    const copies = Math.max(...parameters.namespaces.map((each) => each.copies))
    if (placed.length <= copies || prng.chance(0.5)) cluster.addMember(this.nextNode++)
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

  /** What has left of a write before the power went, and what its node writes next, must not be mistaken for each other. */
  private writeAcrossLoss(key: Key): void {
    const { cluster, clients, prng } = this
    const id = clients.coordinator(key)
    this.faults++
    this.crashes++
    clients.write(key, id)
    cluster.pass(prng.pick([10, 20]))
    cluster.crash(id)
    cluster.start(id)
    clients.write(key, id)
  }

  describe(): Record<string, unknown> {
    const { parameters } = this
    const { theme, nodes, namespaces } = parameters
    return { theme, nodes, rules: namespaces.map(({ rule, copies }) => `${rule} x${copies}`) }
  }
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
