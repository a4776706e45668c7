import { Prng } from "../../../src/lib/prng.ts"
import { bootstrapDescriptors } from "../../../src/server/bootstrap.ts"
import type { StoreSettings } from "../../../src/server/settings.ts"
import { defaultSettings } from "../../../src/server/settings.ts"
import { StoreLoop } from "../../../src/server/storeLoop.ts"
import type { NodeId } from "../../../src/types.ts"
import { EventQueue } from "../eventQueue.ts"
import { Observer } from "../observer.ts"
import { drawParameters, type Parameters } from "../parameters.ts"
import { Trace } from "../trace.ts"
import { Violation } from "../violation.ts"
import type { Outcome } from "../world.ts"
import { EventualWorkload } from "./EventualWorkload.ts"
import { replaceGlobals } from "./Globals.ts"
import { Machine } from "./machine.ts"
import { ServerFaults } from "./ServerFaults.ts"
import { ServerNode } from "./ServerNode.ts"
import { ServerOrders } from "./ServerOrders.ts"
import { ServerWorkload } from "./ServerWorkload.ts"
import type { SimulatedProcess } from "./simulatedProcess.ts"
import { SimulatedTcp } from "./simulatedTcp.ts"
import { workerOf } from "./simulatedWorker.ts"
import { drawTending } from "./tending.ts"

/**
 * The server simulator: a whole cluster in one event loop, from the client library of its users down to the disk.
 *
 * Every node is what `kvorum serve` runs (Node.ts: store, native door, peer transport, control plane), every user what a program imports
 * (client/Client.ts), with Effect's runtime under both. Replaced is only what the runtime of the language offers: clocks, timers, randomness, sockets,
 * worker threads (Globals.ts), and the data directory (disk/DataDirectory.ts). So a run has no copy of any order in which the program does things.
 *
 * 1. Processes (simulatedProcess.ts) meet through events in virtual time. One runs a callback and all microtasks that follow from it, then the next event
 *    comes; nothing waits for real time, and a seed decides everything.
 * 2. Safety phase: users work, orders change the cluster, faults strike machines, processes, links and disks.
 * 3. Liveness phase: all heals; a node that lost its disk is removed, and joins anew; every range must take a write and its replicas become equal in bounded time, and eventual namespaces come to rest. Then every key is read once more.
 *
 * Checked: histories and counters as users saw them, books of what they wrote in eventual namespaces (EventualWorkload.ts), and at every step what the world simulator checks of a
 * store (nodeChecks.ts).
 *
 * Left out: the command line and the supervisor, damage to stored bytes, full disks, expiry and wall clocks in eventual namespaces. The world simulator carries the volume.
 */
const safetyPhaseUs = 20_000_000
/** The longest that a healed cluster may take for each step of the liveness phase. */
const livenessBoundUs = 30_000_000
const pollUs = 50_000

export interface ServerWorldOptions {
  readonly seed: number
  /** Hears every event of the trace. */
  readonly write?: (line: string) => void
}

export class ServerWorld {
  now = 0
  current: SimulatedProcess | undefined
  readonly trace: Trace
  readonly observer = new Observer()
  readonly parameters: Parameters
  readonly settings: StoreSettings
  readonly founders: ReadonlyArray<NodeId>
  /** Machines that nodes run on. */
  readonly servers: Array<ServerNode>
  /** Those that have been members, by id. */
  readonly nodes = new Map<NodeId, ServerNode>()
  readonly clients: ReadonlyArray<Machine>
  readonly tending: ReturnType<typeof drawTending>
  readonly tcp: SimulatedTcp
  readonly faults: ServerFaults
  workload: ServerWorkload | undefined
  eventual: EventualWorkload | undefined
  orders: ServerOrders | undefined
  private readonly seed: number
  private readonly root: Prng
  private readonly queue = new EventQueue()
  private readonly machines: ReadonlyMap<string, Machine>
  private violation: Violation | undefined
  private counted: { operations: number; faults: number; seconds: number } | undefined
  events = 0

  constructor(options: ServerWorldOptions) {
    this.seed = options.seed
    this.trace = new Trace(options.write)
    const root = new Prng(options.seed)
    this.root = root
    this.parameters = drawParameters(root.fork())
    this.settings = settingsOf(this.parameters.settings)
    this.tending = drawTending(options.seed)
    const { nodes, spareNodes, network, workload, faults } = this.parameters
    this.founders = Array.from({ length: nodes }, (_, i) => i + 1)
    for (const range of bootstrapDescriptors(this.founders)) this.observer.described(0, range, 0)
    this.tcp = new SimulatedTcp({ world: this, parameters: network, prng: root.fork() })
    this.servers = Array.from({ length: nodes + spareNodes }, (_, i) => {
      const number = i + 1
      return new ServerNode(number <= nodes ? number : 0, this.machine("n", number), this)
    })
    this.clients = Array.from({ length: workload.clients }, (_, i) => this.machine("c", i + 1))
    const all = [...this.servers.map(({ machine }) => machine), ...this.clients]
    this.machines = new Map(all.map((machine) => [machine.name, machine]))
    this.faults = new ServerFaults({ world: this, parameters: faults, prng: root.fork() })
  }

  private machine(kind: "n" | "c", number: number): Machine {
    const prng = this.root.fork()
    const { driftMax, wallSkewMaxMs, disk } = this.parameters
    const rate = 1 + (2 * prng.float() - 1) * driftMax
    const wallSkewMs = (2 * prng.float() - 1) * Math.min(wallSkewMaxMs, 60_000)
    const name = `${kind}${number}`
    return new Machine({
      name,
      number,
      world: this,
      prng,
      parameters: disk,
      clock: { rate, wallSkewMs },
    })
  }

  schedule(time: number, run: () => void): void {
    this.queue.push(time, run)
  }

  isOn(host: string): boolean {
    return this.machines.get(host)?.isOn !== false
  }

  elected(): void {}

  positions() {
    return this.workload?.positions ?? []
  }

  note(text: () => string): void {
    this.trace.note(this.now, text)
  }

  failed(process: SimulatedProcess, error: unknown): void {
    this.violated(asViolation(process.host, error))
  }

  violated(violation: Violation): void {
    this.violation ??= violation
  }

  /** A node's process ended by itself: it may when it was removed, or could not join in time. */
  stopped(node: ServerNode, reason: string): void {
    const { life } = node
    this.note(() => `n${node.id} stops: ${reason}`)
    const isRemoved = /was removed from/.test(reason)
    const isRefused = node.isWiped && /is known to its cluster by another data/.test(reason)
    if (!isRemoved && !isRefused && node.isMember) {
      this.violated(new Violation("assertion", `n${node.id} stops: ${reason}`))
    }
    this.schedule(this.now + 1, () => {
      if (node.life !== life) return
      node.isRemoved = isRemoved
      node.stop("kill")
      if (!isRemoved) this.faults.ended(node)
    })
  }

  /** Runs the seed to its end, or to the first violation. */
  run(): Outcome {
    const open = StoreLoop.open.bind(StoreLoop)
    const current = () => {
      if (this.current === undefined) throw new Error("code runs outside of all processes")
      return this.current
    }
    const restore = replaceGlobals({
      current,
      tcp: this.tcp,
      Worker: workerOf({
        current,
        machineOf: ({ host }) => this.machines.get(host) as Machine,
        struck: (machine) => this.struck(machine),
      }),
      opening: (options) => this.serverOn(current().host).opening(open, options),
      threw: (error) => this.failed(current(), error),
    })
    try {
      this.runPhases()
    } catch (error) {
      this.violated(asViolation("world", error))
    } finally {
      restore()
    }
    const { violation } = this
    const counted = this.counted ?? this.countNow()
    return {
      seed: this.seed,
      violation: violation && { invariant: violation.invariant, message: violation.message },
      traceHash: this.trace.hash,
      simulatedSeconds: this.now / 1e6,
      safetySeconds: counted.seconds,
      operations: counted.operations,
      succeeded: this.workload?.history.succeeded ?? 0,
      faults: counted.faults,
      elections: this.observer.elections,
      crashes: this.faults.crashes,
      splits: this.observer.splits,
      merges: this.observer.merges,
      isStranded: false,
    }
  }

  private serverOn(host: string): ServerNode {
    return this.servers.find(({ machine }) => machine.name === host) as ServerNode
  }

  private struck(machine: Machine): void {
    const node = this.serverOn(machine.name)
    node.stop("power")
    this.faults.ended(node)
  }

  describe() {
    let [turns, starts, snapshotsInstalled] = [0, 0, 0]
    for (const { counts } of this.servers) {
      turns += counts.turns
      starts += counts.starts
      snapshotsInstalled += counts.snapshotsInstalled
    }
    return {
      nodes: this.servers.length,
      ranges: this.observer.latest.length,
      events: this.events,
      turns,
      starts,
      snapshotsInstalled,
      connections: this.tcp.connections,
      bytes: this.tcp.bytes,
      unknownOutcomes: this.workload?.unknownOutcomes ?? 0,
      errors: this.workload?.errors ?? {},
      eventualWrites: this.eventual?.writes ?? 0,
      eventualAcknowledged: this.eventual?.acknowledged ?? 0,
      eventualErrors: this.eventual?.errors ?? {},
      orders: this.orders?.counts ?? {},
      entriesApplied: this.observer.applied,
    }
  }

  private countNow() {
    return {
      operations: this.workload?.history.invoked ?? 0,
      faults: this.faults.begun,
      seconds: this.now / 1e6,
    }
  }

  private runPhases(): void {
    const { root, parameters } = this
    for (const node of this.servers) node.start()
    const workload = new ServerWorkload({
      world: this,
      parameters: parameters.workload,
      prng: root.fork(),
      machines: this.clients,
    })
    this.workload = workload
    const orders = new ServerOrders({
      world: this,
      parameters: parameters.churn,
      prng: root.fork(),
      mergePrng: new Prng(this.seed + 0x3e46e),
    })

    this.orders = orders
    const eventual = new EventualWorkload({
      world: this,
      prng: root.fork(),
      machines: this.clients,
    })
    this.eventual = eventual
    workload.start()
    eventual.start()
    orders.start()
    this.faults.start()
    this.faults.maybeWipe(this.founders.length)
    this.runUntil(safetyPhaseUs)
    this.counted = this.countNow()
    workload.stop()
    eventual.stop()
    orders.stop()
    this.faults.heal()
    this.runUntilTrue(
      "calls and orders end",
      () => workload.isIdle && eventual.isIdle && orders.isIdle,
    )
    const lost = this.servers.findIndex(({ isWiped }) => isWiped)
    if (lost >= 0) orders.gone((this.servers[lost] as ServerNode).id)
    this.runLiveness("removals are finished", (done) => orders.finish(done))
    if (lost >= 0) this.replaceServer(lost)
    this.runLiveness("a write commits in every range", (done) => workload.writeEverywhere(done))
    this.runUntilTrue("all replicas converge", () => this.hasConverged())
    this.runLiveness("every key is read", (done) => workload.readEverything(done))
    if (this.violation === undefined) workload.check()
    this.runUntilTrue(
      () => `eventual namespaces come to rest: ${eventual.restlessness()}`,
      () => eventual.restlessness() === undefined,
    )
    this.runLiveness("eventual keys are read", (done) => eventual.checkEverything(done))
  }

  /** A machine that lost its disk, and whose node was taken out, joins as a new node. */
  private replaceServer(place: number): void {
    const { machine } = this.servers[place] as ServerNode
    machine.replaceDisk()
    const node = new ServerNode(0, machine, this)
    this.servers[place] = node
    node.start()
    this.runUntilTrue("a new node joins", () => node.isMember)
  }

  private step(): void {
    const event = this.queue.pop()
    this.now = event.time
    this.events++
    event.run()
  }

  private runUntil(time: number): void {
    while (this.queue.nextTime <= time && this.violation === undefined) this.step()
    if (this.violation === undefined) this.now = time
  }

  private runLiveness(what: string, begin: (done: () => void) => void): void {
    let isDone = false
    begin(() => {
      isDone = true
    })
    this.runUntilTrue(what, () => isDone)
  }

  private runUntilTrue(what: string | (() => string), condition: () => boolean): void {
    const limit = this.now + livenessBoundUs
    while (this.violation === undefined && !condition()) {
      if (this.now >= limit) {
        const wanted = typeof what === "string" ? what : what()
        throw new Violation("liveness", `within ${livenessBoundUs / 1e6} s of healing: ${wanted}`)
      }
      this.runUntil(this.now + pollUs)
    }
  }

  /** Every group has left joint, and its replicas are equal. */
  private hasConverged(): boolean {
    return this.observer.latest.every(({ id, replicas }) => {
      if (replicas.some(({ role }) => role === "incoming" || role === "outgoing")) return false
      const held = replicas
        .filter(({ node }) => this.nodes.get(node)?.isWiped !== true)
        .map(({ node }) => this.nodes.get(node)?.loop?.replicas.get(id))
      const first = held[0]
      if (first === undefined) return false
      const { appliedIndex, chain } = first.machine
      return held.every(
        (replica) =>
          replica?.machine.appliedIndex === appliedIndex &&
          replica.raft.lastIndex === appliedIndex &&
          replica.machine.chain === chain,
      )
    })
  }
}

/** Flushes and compactions of a few keys at a time are the world simulator's: here they would be half of the work. */
const memtableBytesMin = 16_384

/**
 * As the seed has drawn them, with three exceptions. Memtables are not as small. Timing is that of a real node, because clients and doors go by fixed times. Tables that every node of the
 * cluster has a part in have room for all: the sessions of the meta group most of all.
 */
function settingsOf(drawn: StoreSettings): StoreSettings {
  const { sessions, tickMs, heartbeatTicks } = defaultSettings
  const slower = tickMs / drawn.tickMs
  const memtableBytes = Math.max(drawn.engine.memtableBytes, memtableBytesMin)
  return {
    ...drawn,
    sessions,
    engine: { ...drawn.engine, memtableBytes, tableBytes: memtableBytes / 2 },
    journalBytesPerSeal: Math.max(drawn.journalBytesPerSeal, memtableBytesMin),
    tickMs,
    heartbeatTicks,
    voteSilenceMs: drawn.voteSilenceMs * slower,
    leaseMs: drawn.leaseMs * slower,
    clockSlipMs: drawn.leaseMs > 0 ? drawn.clockSlipMs * slower : drawn.clockSlipMs,
    requestsPerRange: Math.max(drawn.requestsPerRange, 64),
    inboxMessages: Math.max(drawn.inboxMessages, 64),
  }
}

function asViolation(where: string, error: unknown): Violation {
  if (error instanceof Violation) return error
  const text = error instanceof Error ? (error.stack ?? error.message) : `${error}`
  return new Violation("assertion", `${where}: ${text.split("\n").slice(0, 5).join(" ")}`, error)
}

export function runServerSeed(options: ServerWorldOptions): Outcome {
  return new ServerWorld(options).run()
}
