/**
 * The world simulator: a whole cluster in one event loop.
 *
 * The nodes are the classes that ship (store loop, raft, apply, journal, engine) over simulated disks, network and clocks. A seed decides everything: the
 * parameters of the run (parameters.ts), what the network and disks do, when which fault strikes, what clients ask for. So a run is its seed, and a failure
 * is a number that replays it.
 *
 * 1. Safety phase, 20 simulated seconds: clients work while faults strike.
 * 2. Liveness phase: all heals. Every group must elect, take a write, and bring all its replicas to the same state in bounded time.
 * 3. Every key is read once more, and the history of each is checked for linearizability.
 *
 * Checked at every step: see violation.ts. A run ends at the first violation.
 *
 * Chance comes from independent streams (network, disks and nodes, faults, workload), so that a draw added to one does not shift the others.
 */

import { StorageCorruption } from "../../src/disk/disk.ts"
import { crc32 } from "../../src/lib/checksum.ts"
import { Prng } from "../../src/lib/prng.ts"
import { bootstrapDescriptors, defaultNamespace } from "../../src/server/bootstrap.ts"
import type { OddReplica } from "../../src/server/comparison.ts"
import { dataEnd, dataKey } from "../../src/server/engineKeys.ts"
import type { PeerMessage } from "../../src/server/peerMessage.ts"
import type { Replica } from "../../src/server/replica.ts"
import type { RangeReport, Reply, Request } from "../../src/server/requests.ts"
import type { StoreLoop, StoreParts } from "../../src/server/storeLoop.ts"
import { isExpired, recordValue, recordVersion } from "../../src/server/valueRecord.ts"
import { versionOfWall } from "../../src/server/versionClock.ts"
import type { NodeId, Position, RangeDescriptor, Version } from "../../src/types.ts"
import { ControlPlane, firstControlToken } from "./controlPlane.ts"
import { EventQueue } from "./eventQueue.ts"
import { Faults } from "./faults.ts"
import type { Mutant } from "./mutants/mutant.ts"
import { Network } from "./network.ts"
import { Observer } from "./observer.ts"
import { drawParameters, type Parameters, type Shares } from "./parameters.ts"
import type { CurrentRead } from "./readFloors.ts"
import { ScatteredDamage } from "./scatteredDamage.ts"
import { SimulatedDisk } from "./simulatedDisk.ts"
import { SimulatedNode, startWallMs } from "./simulatedNode.ts"
import { Trace } from "./trace.ts"
import { Violation } from "./violation.ts"
import { Workload } from "./workload.ts"

const safetyPhaseUs = 20_000_000
/** So long before its end leadership is handed over once more, so that some of it is under way when all heals. */
const lastOrdersUs = 150_000
const lossAtSplitUs = 300_000
/** The longest that a healed cluster may take for each step of the liveness phase. */
const livenessBoundUs = 20_000_000
const pollUs = 50_000

export interface WorldOptions extends Shares {
  readonly seed: number
  /** The bug planted, if any. */
  readonly mutant?: Mutant | undefined
  /** Hears every event of the trace. */
  readonly write?: (line: string) => void
}

/** What came of a run. */
export interface Outcome {
  readonly seed: number
  readonly violation: { readonly invariant: string; readonly message: string } | undefined
  readonly traceHash: string
  readonly simulatedSeconds: number
  readonly safetySeconds: number
  readonly operations: number
  readonly succeeded: number
  readonly faults: number
  readonly elections: number
  readonly crashes: number
  readonly splits: number
  readonly merges: number
  /** It ended because some group waits for an operator, after damage to all nodes. */
  readonly isStranded: boolean
}

export class World {
  now = 0
  readonly trace: Trace
  readonly observer = new Observer()
  readonly parameters: Parameters
  readonly descriptors: ReadonlyArray<RangeDescriptor>
  readonly bootstrapIds: ReadonlyArray<NodeId>
  readonly nodeIds: ReadonlyArray<NodeId>
  readonly nodes: ReadonlyMap<NodeId, SimulatedNode>
  readonly parts: StoreParts
  readonly Disk: typeof SimulatedDisk
  readonly network: Network
  readonly workload: Workload
  readonly control: ControlPlane
  readonly faults: Faults
  private readonly scattered: ScatteredDamage | undefined
  private readonly queue = new EventQueue()
  private readonly seed: number
  private readonly plant: Mutant["plant"]
  /** What a group that waits for an operator kept from coming about. */
  private strandedBy: string | undefined
  /** Of the safety phase, fixed when it ends. */
  private counted: { operations: number; faults: number; seconds: number } | undefined

  constructor(options: WorldOptions) {
    this.seed = options.seed
    this.parts = options.mutant?.parts ?? {}
    this.plant = options.mutant?.plant
    this.Disk = options.mutant?.Disk ?? SimulatedDisk
    this.trace = new Trace(options.write)
    const root = new Prng(options.seed)
    this.parameters = drawParameters(root.fork(), options)
    const { nodes, spareNodes, defaultRanges, idleRanges } = this.parameters
    const { network, workload, churn, faults } = this.parameters
    this.nodeIds = Array.from({ length: nodes + spareNodes }, (_, i) => i + 1)
    this.bootstrapIds = this.nodeIds.slice(0, nodes)
    this.descriptors = bootstrapDescriptors(this.bootstrapIds, defaultRanges).filter(
      ({ namespace }) => idleRanges || namespace === defaultNamespace,
    )
    this.network = new Network({ world: this, parameters: network, prng: root.fork() })
    this.workload = new Workload({ world: this, parameters: workload, prng: root.fork() })
    const mergePrng = new Prng(options.seed + 0x3e46e)
    this.control = new ControlPlane({
      ...{ world: this, parameters: churn, prng: root.fork(), mergePrng },
    })
    this.faults = new Faults({ world: this, parameters: faults, prng: root.fork() })
    this.nodes = new Map(this.nodeIds.map((id) => [id, new SimulatedNode(id, this, root.fork())]))
    const { scatter } = this.parameters
    if (scatter === undefined) return
    const stop = this.faults.stop.bind(this.faults)
    this.scattered = new ScatteredDamage({
      world: this,
      parameters: scatter,
      prng: root.fork(),
      stop,
    })
  }

  schedule(time: number, run: () => void): void {
    this.queue.push(time, run)
  }

  deliver(from: NodeId, to: NodeId, message: PeerMessage): void {
    this.trace.record("deliver", this.now, from * 64 + to, message.range)
    const [sender, receiver] = [this.nodes.get(from), this.nodes.get(to)]
    if (sender === undefined || receiver?.admits(sender) !== true) return
    if (sender.isWiped) receiver.checks.heard(message)
    receiver.receive(from, message)
  }

  send(from: NodeId, to: NodeId, message: PeerMessage): void {
    this.network.send(from, to, message)
  }

  lost(from: NodeId, to: NodeId): void {
    this.nodes.get(from)?.unreachable(to)
  }

  request(node: NodeId, request: Request): boolean {
    return this.nodes.get(node)?.request(request) ?? false
  }

  rangesOf(node: NodeId): ReadonlyArray<RangeReport> | undefined {
    return this.nodes.get(node)?.loop?.ranges()
  }

  oddReplicas(node: NodeId): ReadonlyArray<OddReplica> {
    return this.nodes.get(node)?.loop?.oddReplicas() ?? []
  }

  lifeOf(node: NodeId): number {
    return this.nodes.get(node)?.life ?? 0
  }

  /** A read that promises to be current is about to be answered, from a range that must have its key. */
  readServed(read: CurrentRead & { readonly position: Position }): void {
    this.observer.floors.check(read)
    this.observer.checkBounds(read)
  }

  mayBeDamaged(node: NodeId): boolean {
    const found = this.nodes.get(node)
    return found?.mayBreak === true || found?.isWiped === true
  }

  answer(reply: Reply): void {
    if (reply.token >= firstControlToken) this.control.answer(reply)
    else this.workload.answer(reply)
  }

  keysWithin(start: Position, end: Position): ReadonlyArray<Position> {
    return this.workload.keysWithin(start, end)
  }

  recovered(loop: StoreLoop): void {
    const { engine } = loop.storage
    const replicas = [...loop.replicas.values()].filter(({ isEmpty }) => !isEmpty)
    this.workload.passing.checkRecovered(
      replicas.map(({ machine }) => ({
        descriptor: machine.descriptor,
        rangeTime: machine.rangeTime,
        versionOf: (position) => {
          const record = engine.get(dataKey(position))
          return record === undefined ? 0 : recordVersion(record)
        },
      })),
    )
  }

  elected(node: NodeId): void {
    this.faults.elected(this.nodes.get(node) as SimulatedNode)
  }

  changeOrdered(): void {
    this.faults.changeOrdered()
  }

  /** What was done before a split is asked for again after it. */
  splitOrdered(): void {
    if (this.now % 2 === 0) this.workload.caller.loseAnswers(lossAtSplitUs)
  }

  transferOrdered(node: NodeId): void {
    const target = this.nodes.get(node)
    if (target !== undefined) this.faults.transferOrdered(target)
  }

  crashed(node: SimulatedNode): void {
    this.faults.struck(node)
  }

  clientTime(): Version {
    return versionOfWall(startWallMs + this.now / 1000)
  }

  /** Runs the seed to its end, or to the first violation. */
  run(): Outcome {
    let violation: Violation | undefined
    const takeOut = this.plant?.()
    try {
      this.runPhases()
    } catch (error) {
      violation = this.outcomeOf(error)
    } finally {
      takeOut?.()
    }
    const seconds = this.now / 1e6
    const counted = this.counted ?? this.countNow()
    return {
      seed: this.seed,
      violation: violation && { invariant: violation.invariant, message: violation.message },
      traceHash: this.trace.hash,
      simulatedSeconds: seconds,
      safetySeconds: counted.seconds,
      operations: counted.operations,
      succeeded: this.workload.history.succeeded,
      faults: counted.faults,
      elections: this.observer.elections,
      crashes: this.faults.crashes,
      splits: this.observer.splits,
      merges: this.observer.merges,
      isStranded: this.strandedBy !== undefined,
    }
  }

  /** What clients have seen up to then is checked also where a run ends for lack of an operator. */
  private outcomeOf(error: unknown): Violation | undefined {
    if (!(error instanceof Stranded)) return error instanceof Violation ? error : asViolation(error)
    try {
      this.workload.check()
      return undefined
    } catch (found) {
      return found instanceof Violation ? found : asViolation(found)
    }
  }

  /** What the run was made of, for readers of a replay. */
  describe() {
    const jobs: Record<string, number> = {}
    let [turns, starts, snapshotsInstalled] = [0, 0, 0]
    for (const { counts } of this.nodes.values()) {
      turns += counts.turns
      starts += counts.starts
      snapshotsInstalled += counts.snapshotsInstalled
      for (const [tag, count] of Object.entries(counts.jobs)) jobs[tag] = (jobs[tag] ?? 0) + count
    }
    const { delivered, dropped, duplicated } = this.network
    const { retries, unknownOutcomes } = this.workload
    return {
      nodes: this.nodeIds.length,
      ranges: this.observer.latest.length,
      ordersDone: this.control.done,
      events: this.trace.count,
      turns,
      starts,
      jobs,
      snapshotsInstalled,
      messages: { delivered, dropped, duplicated },
      retries,
      unknownOutcomes,
      entriesApplied: this.observer.applied,
    }
  }

  private countNow() {
    return {
      operations: this.workload.history.invoked,
      faults: this.faults.begun,
      seconds: this.now / 1e6,
    }
  }

  private runPhases(): void {
    for (const node of this.nodes.values()) node.start(false)
    this.workload.start()
    this.control.start()
    this.faults.start()
    this.scattered?.start(safetyPhaseUs)
    this.runUntil(safetyPhaseUs - lastOrdersUs)
    this.control.transferEverywhere()
    this.runUntil(safetyPhaseUs)
    for (const node of this.nodes.values()) this.checkDamaged(node)
    this.counted = this.countNow()
    this.workload.stop()
    this.control.stop()
    this.faults.heal()
    this.runLiveness("a write commits in every range", (done) =>
      this.workload.writeEverywhere(done),
    )
    this.runUntilTrue("all replicas converge", () => this.hasConverged())
    this.checkContents()
    this.runLiveness("every key is read", (done) => this.workload.readEverything(done))
    this.workload.check()
  }

  private step(): void {
    const event = this.queue.pop()
    this.now = event.time
    event.run()
  }

  private runUntil(time: number): void {
    while (this.queue.nextTime <= time) this.step()
    this.now = time
  }

  private runLiveness(what: string, begin: (done: () => void) => void): void {
    let isDone = false
    begin(() => {
      isDone = true
    })
    this.runUntilTrue(what, () => isDone)
  }

  private runUntilTrue(what: string, condition: () => boolean): void {
    const limit = this.now + livenessBoundUs
    while (!condition()) {
      if (this.now >= limit) {
        if (this.hasStranded()) {
          this.strandedBy = what
          throw new Stranded()
        }
        throw new Violation("liveness", `within ${livenessBoundUs / 1e6} s of healing: ${what}`)
      }
      this.runUntil(this.now + pollUs)
    }
  }

  /**
   * After damage to all nodes some group may wait for its operator, which is loud and answers nothing wrong: the only one that still has what another one misses
   * may be the one that nobody may elect, because of what it misses itself.
   */
  private hasStranded(): boolean {
    if (this.scattered === undefined) return false
    return [...this.nodes.values()].some(({ loop }) =>
      [...(loop?.replicas.values() ?? [])].some(({ log }) => log.voteFloor !== undefined),
    )
  }

  private replicasOf(descriptor: RangeDescriptor): ReadonlyArray<readonly [StoreLoop, Replica]> {
    return descriptor.replicas.flatMap(({ node }) => {
      const loop = this.nodes.get(node)?.loop
      const replica = loop?.replicas.get(descriptor.id)
      return loop === undefined || replica === undefined ? [] : [[loop, replica] as const]
    })
  }

  /** Every group has left joint, its replicas are equal, and no others are left. */
  private hasConverged(): boolean {
    this.control.replaceOdd()
    const { latest } = this.observer
    const members = new Map(latest.map(({ id, replicas }) => [id, replicas]))
    for (const node of this.nodes.values()) {
      for (const [range, { machine }] of node.loop?.replicas ?? []) {
        const isMember = members.get(range)?.some(({ replica }) => replica === machine.replica)
        if (isMember !== true) return false
      }
    }
    return latest.every((descriptor) => this.isSettled(descriptor))
  }

  private isSettled(descriptor: RangeDescriptor): boolean {
    if (descriptor.replicas.some(({ role }) => role === "incoming" || role === "outgoing")) {
      return false
    }
    const replicas = this.replicasOf(descriptor)
    const first = replicas[0]?.[1]
    const expected = descriptor.replicas.filter(({ node }) => this.nodes.get(node)?.isOut !== true)
    if (first === undefined || replicas.length < expected.length) return false
    const { appliedIndex, chain } = first.machine
    return replicas.every(
      ([, { machine, raft }]) =>
        machine.appliedIndex === appliedIndex &&
        raft.lastIndex === appliedIndex &&
        machine.chain === chain,
    )
  }

  /** What a node with damaged tables can still read is what was written. */
  private checkDamaged({ loop, hasDamagedTables }: SimulatedNode): void {
    if (loop === undefined || !hasDamagedTables) return
    for (const position of this.workload.keysWithin(new Uint8Array(0), new Uint8Array(0))) {
      let record: Uint8Array | undefined
      try {
        record = loop.storage.engine.get(dataKey(position))
      } catch (error) {
        if (!(error instanceof StorageCorruption)) throw error
      }
      if (record !== undefined) this.workload.checkValue(recordValue(record))
    }
  }

  /** Replicas that have applied the same log hold the same bytes, as far as they have not expired. */
  private checkContents(): void {
    for (const descriptor of this.observer.latest) {
      let expected: number | undefined
      for (const [loop, { machine }] of this.replicasOf(descriptor)) {
        const sum = contentSum(loop, descriptor, machine.rangeTime)
        expected ??= sum
        if (sum !== expected) {
          throw new Violation(
            "chain",
            `n${loop.node} holds other data in r${descriptor.id} at ${machine.appliedIndex} than its peers`,
          )
        }
      }
    }
  }
}

/** A run in which a group waits for its operator ends there. */
class Stranded extends Error {}

/** What has expired counts for nothing: compactions drop it, each node's when they come to it. */
/** A run never breaks off a hunt, whatever went wrong in it. */
function asViolation(error: unknown): Violation {
  const text = error instanceof Error ? (error.stack ?? error.message) : `${error}`
  return new Violation("assertion", text.split("\n").slice(0, 4).join(" "), error)
}

function contentSum(loop: StoreLoop, descriptor: RangeDescriptor, now: Version): number {
  const iterator = loop.storage.engine.iterator({
    lower: dataKey(descriptor.start),
    upper: dataEnd(descriptor.end),
  })
  let sum = 0
  while (iterator.next()) {
    if (!isExpired(iterator.value, now)) sum = crc32(iterator.value, crc32(iterator.key, sum))
  }
  iterator.close()
  return sum
}

export function runSeed(options: WorldOptions): Outcome {
  return new World(options).run()
}
