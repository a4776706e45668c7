import type { Prng } from "../../../src/lib/prng.ts"
import type { FaultKind, FaultParameters } from "../parameters.ts"
import type { Ending } from "../simulatedNode.ts"
import type { Trace } from "../trace.ts"
import type { Machine } from "./machine.ts"
import type { ServerNode } from "./ServerNode.ts"
import type { SimulatedTcp } from "./simulatedTcp.ts"

export interface FaultWorld {
  readonly now: number
  readonly trace: Trace
  readonly tcp: SimulatedTcp
  readonly servers: ReadonlyArray<ServerNode>
  /** Machines of clients. */
  readonly clients: ReadonlyArray<Machine>
  schedule(time: number, run: () => void): void
}

const kinds = [
  "cutOneWay",
  "cutPair",
  "isolate",
  "halves",
  "crash",
  "kill",
  "pause",
  "lossBurst",
  "slowDisk",
  "clockJump",
  "crashAll",
  "diskHangs",
] as const satisfies ReadonlyArray<FaultKind>
type Kind = (typeof kinds)[number]

/** Share of seeds in which a node is wiped. */
const wipeShare = 0.2

/** Begins faults at random and ends each after a while, as in the world simulator; links between clients and nodes break too. */
export class ServerFaults {
  begun = 0
  crashes = 0
  private readonly world: FaultWorld
  private readonly parameters: FaultParameters
  private readonly prng: Prng
  private readonly rate: number
  /** A founder will lose its disk. */
  readonly wipes: boolean
  private stopped = false

  constructor(options: { world: FaultWorld; parameters: FaultParameters; prng: Prng }) {
    this.world = options.world
    this.parameters = options.parameters
    this.prng = options.prng
    this.rate = options.prng.logUniform(0.2, 3)
    this.wipes = options.prng.chance(wipeShare)
  }

  start(): void {
    const { world, prng, rate } = this
    const gap = (-Math.log(1 - prng.float()) / rate) * 1e6
    world.schedule(world.now + Math.round(gap), () => {
      if (this.stopped) return
      this.begin(this.drawKind())
      this.start()
    })
  }

  /** In some seeds a founder loses its disk, once. The others remain a majority everywhere. */
  maybeWipe(founders: number): void {
    const { world, prng } = this
    if (!this.wipes) return
    const node = world.servers[prng.int(0, founders - 1)]
    world.schedule(prng.int(2_000_000, 16_000_000), () => {
      if (this.stopped || node === undefined) return
      this.begun++
      node.wipe()
    })
  }

  heal(): void {
    this.stopped = true
    const { tcp, servers } = this.world
    tcp.becomePerfect()
    for (const { machine } of servers) {
      machine.goesOn()
      machine.diskSlowness = 0.05
    }
    for (const node of servers) {
      if (node.isWiped) node.stop("kill")
      if (!node.isUp && !node.isOut) node.start()
    }
  }

  /** A process ended by itself, and somebody starts it again. */
  ended(node: ServerNode): void {
    this.crashes++
    this.restartLater(node)
  }

  private drawKind(): Kind {
    const { prng, parameters } = this
    const weights = kinds.map(
      (kind) => parameters.weights.find(([name]) => name === kind)?.[1] ?? 0,
    )
    let left = prng.float() * weights.reduce((sum, weight) => sum + weight, 0)
    for (const [i, weight] of weights.entries()) {
      left -= weight
      if (left < 0) return kinds[i] as Kind
    }
    return prng.pick(kinds)
  }

  private later(run: () => void): void {
    const { world, prng, parameters } = this
    const lasts = prng.logUniform(parameters.durationMinUs, parameters.durationMaxUs * 2)
    world.schedule(world.now + Math.round(lasts), () => {
      if (!this.stopped) run()
    })
  }

  private begin(kind: Kind): void {
    const { world, prng } = this
    const node = prng.pick(world.servers)
    this.begun++
    world.trace.record("fault", world.now, kinds.indexOf(kind), node.machine.number)
    switch (kind) {
      case "cutOneWay":
        return this.cut([[node.machine.name, this.other(node)]])
      case "cutPair": {
        const other = this.other(node)
        return this.cut([
          [node.machine.name, other],
          [other, node.machine.name],
        ])
      }
      case "isolate":
        return this.cut(this.between([node.machine.name], this.hosts()))
      case "halves": {
        const left = this.hosts().filter(() => prng.chance(0.5))
        return this.cut(this.between(left, this.hosts()))
      }
      case "crash":
      case "kill":
        return this.crash(node, kind === "crash" ? "power" : "kill")
      case "crashAll":
        for (const each of world.servers) this.crash(each, "power")
        return
      case "pause":
        return this.pause(node.machine)
      case "lossBurst":
        world.tcp.setSlowness(prng.logUniform(2, 50))
        return this.later(() => world.tcp.setSlowness(1))
      case "slowDisk":
        node.machine.diskSlowness = prng.logUniform(2, 200)
        return this.later(() => {
          node.machine.diskSlowness = 1
        })
      case "diskHangs":
        node.machine.hang()
        return this.later(() => node.machine.goesOn())
      case "clockJump":
        return node.machine.setWallSkew((2 * prng.float() - 1) * prng.logUniform(1, 100_000))
      default:
        kind satisfies never
    }
  }

  private hosts(): ReadonlyArray<string> {
    const { servers, clients } = this.world
    return [...servers.map(({ machine }) => machine.name), ...clients.map((c) => c.name)]
  }

  private other(node: ServerNode): string {
    return this.prng.pick(this.hosts().filter((host) => host !== node.machine.name))
  }

  private between(left: ReadonlyArray<string>, all: ReadonlyArray<string>) {
    return left.flatMap((host) =>
      all
        .filter((other) => !left.includes(other))
        .flatMap((other) => [[host, other] as const, [other, host] as const]),
    )
  }

  private cut(links: ReadonlyArray<readonly [string, string]>): void {
    const { tcp } = this.world
    for (const [from, to] of links) tcp.cut(from, to)
    this.later(() => {
      for (const [from, to] of links) tcp.heal(from, to)
    })
  }

  private pause({ process }: Machine): void {
    if (process === undefined) return
    process.pause()
    const { world, prng, parameters } = this
    const lasts = prng.logUniform(parameters.durationMinUs, parameters.durationMaxUs)
    // Also when all heals meanwhile: it goes on at its own time.
    world.schedule(world.now + Math.round(lasts), () => process.resume())
  }

  private crash(node: ServerNode, ending: Ending): void {
    if (!node.isUp) return
    this.crashes++
    node.stop(ending)
    this.restartLater(node)
  }

  private restartLater(node: ServerNode): void {
    this.later(() => {
      if (!node.isUp && !node.isRemoved) node.start()
    })
  }
}
