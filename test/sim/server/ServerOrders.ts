import { Cause, Context, Effect, Layer, Option } from "effect"
import { verbs } from "../../../src/admin/verbs.ts"
import { Client, type ClientShape } from "../../../src/client/Client.ts"
import type { KvorumError } from "../../../src/Errors.ts"
import { compareBytes, toHex } from "../../../src/lib/bytes.ts"
import type { Prng } from "../../../src/lib/prng.ts"
import { defaultNamespace } from "../../../src/server/bootstrap.ts"
import { contains } from "../../../src/server/descriptors.ts"
import type { NodeId, Position, RangeDescriptor } from "../../../src/types.ts"
import type { Observer } from "../observer.ts"
import type { ChurnParameters } from "../parameters.ts"
import type { Trace } from "../trace.ts"
import type { Machine } from "./machine.ts"
import { clientAddressOf, type ServerNode } from "./ServerNode.ts"

export interface OrdersWorld {
  readonly now: number
  readonly trace: Trace
  readonly observer: Observer
  readonly founders: ReadonlyArray<NodeId>
  readonly nodes: ReadonlyMap<NodeId, ServerNode>
  readonly clients: ReadonlyArray<Machine>
  /** A range with fewer than three voters might then be left without a majority. */
  readonly faults: { readonly wipes: boolean }
  schedule(time: number, run: () => void): void
  note(text: () => string): void
  /** Positions of keys that are in use. */
  positions(): ReadonlyArray<Position>
}

interface Order {
  readonly verb: string
  readonly args: unknown
  /** That is to leave. */
  readonly node?: NodeId
}

/** No order takes longer than the liveness phase waits for what is under way. */
const deadlineMaxMs = 15_000

/** An operator: gives orders of every kind to the control plane, some of them to a node of its choice, and never waits for one before the next. */
export class ServerOrders {
  readonly counts: Record<string, number> = {}
  private readonly world: OrdersWorld
  private readonly parameters: ChurnParameters
  private readonly prng: Prng
  /** Apart, so that worlds without merges are what they were. */
  private readonly mergePrng: Prng
  /** Whether a node that leaves is replaced. */
  private readonly leavePrng: Prng
  private client: ClientShape | undefined
  private underWay = 0
  private stopped = false
  private namespaces = 0
  /** Nodes whose removal was ordered and is not known to have been finished. */
  private readonly leaving = new Set<NodeId>()

  constructor(options: {
    readonly world: OrdersWorld
    readonly parameters: ChurnParameters
    readonly prng: Prng
    readonly mergePrng: Prng
  }) {
    this.world = options.world
    this.parameters = options.parameters
    this.prng = options.prng
    this.mergePrng = options.mergePrng
    this.leavePrng = options.mergePrng.fork()
  }

  get isIdle(): boolean {
    return this.underWay === 0
  }

  private get process() {
    return this.world.clients[0]?.process
  }

  start(): void {
    const endpoints = this.world.founders.map((node) => clientAddressOf(`n${node}`))
    const run = Effect.scoped(
      Effect.flatMap(Layer.build(Client.layer({ endpoints })), (context) => {
        this.client = Context.get(context, Client)
        return Effect.never
      }),
    )
    this.process?.run(() => void Effect.runFork(run))
    if (this.parameters.rate > 0) this.next()
    if (this.parameters.mergeRate > 0) this.nextMerge()
  }

  private nextMerge(): void {
    const { world, mergePrng: prng, parameters } = this
    const rate = Math.min(1, parameters.mergeRate)
    const gap = (-Math.log(1 - prng.float()) / rate) * 1e6
    world.schedule(world.now + Math.round(gap), () => {
      if (this.stopped) return
      const ranges = [...world.observer.latest]
        .filter(({ namespace }) => namespace !== undefined)
        .sort((left, right) => compareBytes(left.start, right.start))
      const at = prng.int(0, ranges.length - 1)
      const [left, right] = ranges.slice(at, at + 2)
      if (left !== undefined && right !== undefined) {
        const args = prng.chance(0.5)
          ? { range: left.id, with: right.id }
          : { range: right.id, with: left.id }
        this.give({ verb: verbs.rangeMerge, args })
      }
      this.nextMerge()
    })
  }

  stop(): void {
    this.stopped = true
  }

  /** The node is gone for good: it is taken out when all else is done. */
  gone(node: NodeId): void {
    this.leaving.add(node)
  }

  /** Once no other order is under way: gives those again that must not stay half done, until they are. */
  finish(done: () => void): void {
    const [node] = this.leaving
    if (node === undefined) return done()
    this.give({ verb: verbs.nodeRemove, args: { node }, node }, () => this.finish(done))
  }

  private next(): void {
    const { world, prng, parameters } = this
    const rate = Math.min(1.5, parameters.rate)
    const gap = (-Math.log(1 - prng.float()) / rate) * 1e6
    world.schedule(world.now + Math.round(gap), () => {
      if (this.stopped) return
      const order = this.draw()
      if (order !== undefined) this.give(order)
      this.next()
    })
  }

  private give(order: Order, ended = () => {}): void {
    const { world, prng, client, process } = this
    if (client === undefined || process === undefined) return ended()
    const deadlineMs = Math.round(prng.logUniform(500, deadlineMaxMs))
    const node = prng.chance(0.3) ? prng.pick(world.founders) : undefined
    const options = node === undefined ? { deadlineMs } : { deadlineMs, node }
    this.underWay++
    world.note(() => `order ${order.verb} ${JSON.stringify(order.args)}`)
    process.run(() => {
      Effect.runFork(client.admin(order.verb, order.args, options)).addObserver((exit) => {
        this.underWay--
        const error =
          exit._tag === "Failure"
            ? Option.getOrUndefined(Cause.findErrorOption<KvorumError>(exit.cause))
            : undefined
        const end = exit._tag === "Success" ? "done" : (error?._tag ?? "defect")
        world.note(() => `order ${order.verb} ends: ${end} ${error?.message ?? ""}`)
        const name = `${order.verb} ${end}`
        this.counts[name] = (this.counts[name] ?? 0) + 1
        if (order.node !== undefined && end === "done") this.leaving.delete(order.node)
        world.schedule(world.now + 1, ended)
      })
    })
  }

  private draw(): Order | undefined {
    const { prng, world } = this
    const ranges = world.observer.latest.filter(({ namespace }) => namespace !== undefined)
    const data = ranges.filter(({ namespace }) => namespace === defaultNamespace)
    if (data.length === 0) return undefined
    const range = prng.chance(0.1) ? prng.pick(ranges) : prng.pick(data)
    const held = range.replicas.map(({ node }) => node)
    const members = [...world.nodes.values()].filter(({ isRemoved }) => !isRemoved)
    const free = members.map(({ id }) => id).filter((id) => !held.includes(id))
    const draw = prng.float()
    if (draw < 0.3) return this.split(data)
    if (draw < 0.45) return { verb: verbs.transfer, args: { range: range.id, to: prng.pick(held) } }
    if (draw < 0.5) return this.namespace()
    const mayShrink = !world.faults.wipes
    if (draw < 0.55 && members.length > 3 && mayShrink) return this.remove(members)
    if (free.length === 0) return this.split(data)
    if (draw < 0.75) {
      const args = { range: range.id, from: prng.pick(held), to: prng.pick(free) }
      return { verb: verbs.rangeMove, args }
    }
    if (draw < 0.88)
      return { verb: verbs.addReplica, args: { range: range.id, on: prng.pick(free) } }
    if (held.length <= this.parameters.votersMin || !mayShrink) return undefined
    return { verb: verbs.removeReplica, args: { range: range.id, on: prng.pick(held) } }
  }

  private split(data: ReadonlyArray<RangeDescriptor>): Order | undefined {
    const { prng, world, parameters } = this
    if (data.length >= parameters.rangesMax + 4) return undefined
    const range = prng.pick(data)
    const positions = world
      .positions()
      .filter((position) => contains(range, position))
      .sort(compareBytes)
      .slice(1)
    const at = positions.length > 0 && prng.chance(0.7) ? toHex(prng.pick(positions)) : undefined
    return {
      verb: verbs.rangeSplit,
      args: at === undefined ? { range: range.id } : { range: range.id, at },
    }
  }

  private namespace(): Order {
    const { prng } = this
    const made = this.namespaces
    if (made > 0 && prng.chance(0.5)) {
      return { verb: verbs.namespaceDelete, args: { name: `t${prng.int(1, made)}` } }
    }
    this.namespaces++
    const partitioning = prng.pick(["hash", "ordered"])
    const args = {
      name: `t${this.namespaces}`,
      mode: "strong",
      partitioning,
      ranges: prng.int(1, 2),
    }
    return { verb: verbs.namespaceCreate, args }
  }

  /** One that holds nothing of the founding is taken out, at most one of all. */
  private remove(members: ReadonlyArray<ServerNode>): Order | undefined {
    const joined = members.filter(({ id }) => !this.world.founders.includes(id))
    if (joined.length === 0) return undefined
    const { id } = this.prng.pick(joined)
    this.leaving.add(id)
    const verb = this.leavePrng.chance(0.4) ? verbs.nodeReplace : verbs.nodeRemove
    return { verb, args: { node: id }, node: id }
  }
}
