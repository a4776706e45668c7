import type { Prng } from "../../src/lib/prng.ts"
import type { NodeId } from "../../src/types.ts"
import type { Network } from "./network.ts"
import { type FaultKind, type FaultParameters, faultKinds } from "./parameters.ts"
import { looksTorn } from "./scatteredDamage.ts"
import type { Ending, SimulatedNode } from "./simulatedNode.ts"
import type { Trace } from "./trace.ts"

export interface FaultWorld {
  readonly now: number
  readonly trace: Trace
  readonly network: Network
  readonly nodes: ReadonlyMap<NodeId, SimulatedNode>
  schedule(time: number, run: () => void): void
}

/** What may strike a leader just elected: most of all, that only some of what it sends arrives. */
const strikeKinds = ["cutOneWay", "cutOneWay", "isolate", "crash", "crash", "kill"] as const

/** Files whose damage a node is built to notice. */
const tables = /^engine\/.*\.table$/
const segments = /^journal\//

/**
 * Begins faults at random and ends each after a while. Which kinds, how often and how long is the seed's choice, over orders of magnitude: a seed
 * with a single kind of fault finds what a mixture of all hides.
 */
export class Faults {
  begun = 0
  crashes = 0
  private readonly world: FaultWorld
  private readonly parameters: FaultParameters
  private readonly prng: Prng
  private stopped = false

  constructor(options: { world: FaultWorld; parameters: FaultParameters; prng: Prng }) {
    this.world = options.world
    this.parameters = options.parameters
    this.prng = options.prng
  }

  start(): void {
    const { world, prng, parameters } = this
    const gap = (-Math.log(1 - prng.float()) / parameters.rate) * 1e6
    world.schedule(world.now + Math.round(gap), () => {
      if (this.stopped) return
      this.begin(this.drawKind(), this.drawNode())
      this.start()
    })
  }

  /** Ends everything: links heal, paused nodes go on, nodes that are down start, disks are fast. */
  heal(): void {
    this.stopped = true
    const { network, nodes } = this.world
    network.becomePerfect()
    for (const node of nodes.values()) {
      node.isHealed = true
      while (node.isPaused) node.resume()
      node.goesOn()
      node.diskSlowness = 0.02
      node.disk.capacityBytes = Number.POSITIVE_INFINITY
      // Nothing rebuilds its tables, or what it held before its disk was emptied: the others must do without.
      if (node.isOut && node.isUp) node.stop("kill")
      if (!node.isUp && !node.isOut) node.start(false)
    }
  }

  /** A node crashed by itself, in the middle of a file operation. */
  struck(node: SimulatedNode): void {
    this.begun++
    this.crashes++
    this.restartLater(node)
  }

  /** A node has won an election: maybe it does not enjoy it for long. */
  elected(node: SimulatedNode): void {
    const { prng, parameters } = this
    if (this.stopped) return
    // What it heard as a leader before, or while it asked for votes, says nothing now.
    const { network, nodes } = this.world
    const draw = prng.float()
    if (draw < 0.3) network.repeatTo(node.id)
    else if (draw < 0.5) for (const id of nodes.keys()) network.repeatTo(id)
    if (!prng.chance(parameters.strikeRate)) return
    if (prng.chance(0.3) && this.deafenOthers(node)) return
    // At once means before its first append leaves.
    if (prng.chance(0.4)) {
      this.begin(prng.chance(0.7) ? "cutOneWay" : "isolate", node)
      return
    }
    this.later(prng.logUniform(100, parameters.strikeDelayMaxUs), () => {
      if (node.isUp) this.begin(prng.pick(strikeKinds), node)
    })
  }

  /** Leadership of a group is to go to a node: maybe that one is out of reach, or the leader does not hear what becomes of it. */
  transferOrdered(target: SimulatedNode): void {
    const { prng, parameters } = this
    if (this.stopped || !prng.chance(Math.max(0.2, parameters.strikeRate))) return
    this.later(prng.logUniform(500, 30_000), () => {
      if (prng.chance(0.6)) this.deafenOthers(target)
      else if (target.isUp) this.begin(prng.pick(["kill", "pause", "cutOneWay", "isolate"]), target)
    })
  }

  /** Members of a group are about to change: a partition just then may leave two groups that each believe to be the one. */
  changeOrdered(): void {
    const { prng, parameters } = this
    if (this.stopped || !prng.chance(Math.max(0.15, parameters.strikeRate / 2))) return
    this.later(prng.logUniform(500, 100_000), () => {
      this.begin(prng.pick(["halves", "halves", "isolate", "crash"]), this.drawNode())
    })
  }

  /** Whoever else leads hears nothing of the new leader, so that it goes on believing in itself for as long as it may. */
  private deafenOthers(node: SimulatedNode): boolean {
    const { world } = this
    const others = [...world.nodes.values()].filter((each) => each !== node && each.isLeader)
    for (const { id } of others) {
      this.begun++
      const sources = [...world.nodes.keys()].filter((each) => each !== id)
      this.cut(sources, [id], this.drawDuration())
    }
    return others.length > 0
  }

  private drawNode(): SimulatedNode {
    const { prng, world } = this
    const nodes = [...world.nodes.values()]
    const leaders = nodes.filter((node) => node.isLeader)
    if (leaders.length > 0 && prng.chance(this.parameters.leaderShare)) return prng.pick(leaders)
    return prng.pick(nodes)
  }

  private begin(kind: FaultKind, node: SimulatedNode): void {
    const { prng, world } = this
    this.begun++
    world.trace.record("fault", world.now, faultKinds.indexOf(kind), node.id)
    const duration = this.drawDuration()
    switch (kind) {
      case "cutOneWay": {
        const others = [...world.nodes.keys()].filter((id) => id !== node.id)
        const some = prng.shuffle(others).slice(0, prng.int(1, others.length))
        if (prng.chance(0.7)) this.cut([node.id], some, duration)
        else this.cut(some, [node.id], duration)
        return
      }
      case "cutPair": {
        const other = prng.pick([...world.nodes.keys()].filter((id) => id !== node.id))
        this.cut([node.id], [other], duration)
        this.cut([other], [node.id], duration)
        return
      }
      case "isolate":
        this.isolate([node.id], duration)
        return
      case "halves": {
        const ids = prng.shuffle([...world.nodes.keys()])
        this.isolate(ids.slice(0, prng.int(1, ids.length - 1)), duration)
        return
      }
      case "island":
        this.strand(node)
        return
      case "hold":
        this.holdBack(node)
        return
      case "crash":
        this.stop(node, "power")
        return
      case "kill":
        this.stop(node, "kill")
        return
      case "crashAll": {
        const ending = prng.chance(0.7) ? "power" : "kill"
        for (const each of world.nodes.values()) this.stop(each, ending)
        return
      }
      case "pause":
        node.pause()
        world.trace.record("pause", world.now, node.id)
        // Often for longer than it takes the others to elect and go on without it.
        this.later(prng.chance(0.5) ? duration : prng.logUniform(300_000, 2_000_000), () => {
          if (node.isPaused) node.resume()
        })
        return
      case "sleep":
        // The machine: its monotonic clock stands still, its wall clock goes on.
        node.pause()
        node.sleep()
        this.later(duration, () => {
          if (node.isPaused) node.resume()
        })
        return
      case "lossBurst":
        world.network.setExtraLoss(prng.logUniform(0.05, 0.9))
        this.later(duration, () => world.network.setExtraLoss(0))
        return
      case "slowDisk":
        node.diskSlowness *= prng.logUniform(2, 200)
        this.later(duration, () => {
          node.diskSlowness = node.usualSlowness
        })
        return
      case "diskHangs":
        node.hang(prng.chance(0.5))
        this.later(duration, () => node.goesOn())
        return
      case "diskFull":
        node.disk.capacityBytes = node.disk.usedBytes + Math.round(prng.logUniform(1, 20_000))
        this.later(duration, () => {
          node.disk.capacityBytes = Number.POSITIVE_INFINITY
        })
        return
      case "bitFlip":
        this.flipBit()
        return
      case "wipe":
        this.wipe()
        return
      case "repeats":
        world.network.repeatTo(node.id)
        return
      case "clockJump":
        node.jumpClock(prng.logUniform(1, 3_600_000) * (prng.chance(0.5) ? 1 : -1))
        return
      default:
        kind satisfies never
    }
  }

  /**
   * A leader and one other node are cut off together, for long enough that the rest elect another leader: the one who is cut off goes on believing in the old one, or
   * sleeps over the change and hears of both at once.
   */
  private strand(node: SimulatedNode): void {
    const { prng, world, parameters } = this
    const others = [...world.nodes.values()].filter((each) => each !== node)
    const leader = node.isLeader ? node : (others.find(({ isLeader }) => isLeader) ?? node)
    const companion = prng.pick([...world.nodes.values()].filter((each) => each !== leader))
    const duration = parameters.electionUs * (1 + 3 * prng.float())
    this.isolate([leader.id, companion.id], duration)
    if (!prng.chance(0.4)) return
    this.later(prng.logUniform(1_000, parameters.electionUs), () => {
      if (!companion.isUp) return
      companion.pause()
      this.later(duration * (0.8 + 0.6 * prng.float()), () => {
        if (companion.isPaused) companion.resume()
      })
    })
  }

  /** What others send to a node, or it to them, stands still for a while; maybe what goes the other way gets lost meanwhile. */
  private holdBack(node: SimulatedNode): void {
    const { prng, world } = this
    const others = [...world.nodes.keys()].filter((id) => id !== node.id)
    const isInward = prng.chance(0.7)
    const [sources, targets] = isInward ? [others, [node.id]] : [[node.id], others]
    // Mostly for less than an election takes, so that what arrives late still counts.
    const { electionUs } = this.parameters
    const isBrief = prng.chance(0.7)
    const duration = isBrief ? electionUs * (0.3 + 0.6 * prng.float()) : this.drawDuration()
    for (const from of sources) for (const to of targets) world.network.hold(from, to)
    this.later(duration, () => {
      for (const from of sources) for (const to of targets) world.network.release(from, to)
    })
    if (!prng.chance(0.6)) return
    const lasts = isBrief ? 2 * electionUs : this.drawDuration()
    this.later(0.5 * duration * prng.float(), () => this.cut(targets, sources, lasts))
  }

  /** On one node of the world only: a minority of every group. What looks like a torn tail is spared: nobody promises anything for that (README). */
  private flipBit(): void {
    const { prng, world, parameters } = this
    const node = world.nodes.get(parameters.flippedNode ?? 0)
    if (node === undefined || node.isBroken) return
    const kind = prng.chance(0.5) ? tables : segments
    const paths = node.disk.files().filter((path) => kind.test(path))
    if (paths.length === 0) return
    const path = prng.pick(paths)
    const size = node.disk.sizeOf(path)
    if (size === 0) return
    const [offset, bit] = [prng.int(0, size - 1), 1 << prng.int(0, 7)]
    if (kind === segments && looksTorn(node.disk, path, offset)) return
    node.isDamaged = true
    node.mayBreak = true
    if (kind === tables) node.hasDamagedTables = true
    node.disk.corrupt(path, offset, bit)
  }

  /** Its disk is replaced by an empty one, once; then it is started as it was before. */
  private wipe(): void {
    const node = this.world.nodes.get(this.parameters.wipedNode ?? 0)
    if (node === undefined || node.isWiped) return
    if (node.isUp) node.stop("power")
    node.wipe()
    this.restartLater(node)
  }

  private drawKind(): FaultKind {
    let draw = this.prng.float()
    for (const [kind, weight] of this.parameters.weights) {
      if (draw < weight) return kind
      draw -= weight
    }
    return "cutOneWay"
  }

  private drawDuration(): number {
    return this.prng.logUniform(this.parameters.durationMinUs, this.parameters.durationMaxUs)
  }

  private later(duration: number, run: () => void): void {
    const { world } = this
    world.schedule(world.now + Math.round(duration), () => {
      if (!this.stopped) run()
    })
  }

  private cut(
    sources: ReadonlyArray<NodeId>,
    targets: ReadonlyArray<NodeId>,
    duration: number,
  ): void {
    const { network } = this.world
    for (const source of sources) for (const target of targets) network.cut(source, target)
    this.later(duration, () => {
      for (const source of sources) for (const target of targets) network.heal(source, target)
    })
  }

  private isolate(inside: ReadonlyArray<NodeId>, duration: number): void {
    const outside = [...this.world.nodes.keys()].filter((id) => !inside.includes(id))
    this.cut(inside, outside, duration)
    this.cut(outside, inside, duration)
  }

  /** Ends its process, and starts it again after a while. */
  stop(node: SimulatedNode, ending: Ending): void {
    if (!node.isUp) return
    this.crashes++
    node.stop(ending)
    this.restartLater(node)
  }

  private restartLater(node: SimulatedNode): void {
    if (this.stopped) {
      this.world.schedule(this.world.now + 1_000, () => {
        // Healing may have started it by then.
        if (!node.isUp && !node.isBroken) node.start(false)
      })
      return
    }
    // Sometimes so soon that a lease that it has confirmed still holds.
    const { prng } = this
    const pause = prng.chance(0.25) ? prng.logUniform(200, 20_000) : this.drawDuration()
    this.later(pause, () => {
      if (!node.isUp && !node.isBroken) node.start(true)
    })
  }
}
