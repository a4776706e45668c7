import { RoutingTable } from "../../src/client/routes.ts"
import { compareBytes } from "../../src/lib/bytes.ts"
import type { Prng } from "../../src/lib/prng.ts"
import type { OddReplica } from "../../src/server/comparison.ts"
import { areTogether } from "../../src/server/merge/state.ts"
import type { RangeReport, RangeRequest, Reply, Request } from "../../src/server/requests.ts"
import type { NodeId, Position, RangeDescriptor, RangeId, ReplicaPlace } from "../../src/types.ts"
import type { ChurnKind, ChurnParameters } from "./parameters.ts"
import type { Trace } from "./trace.ts"

export interface ControlWorld {
  readonly now: number
  readonly trace: Trace
  readonly descriptors: ReadonlyArray<RangeDescriptor>
  readonly nodeIds: ReadonlyArray<NodeId>
  schedule(time: number, run: () => void): void
  request(node: NodeId, request: Request): boolean
  rangesOf(node: NodeId): ReadonlyArray<RangeReport> | undefined
  oddReplicas(node: NodeId): ReadonlyArray<OddReplica>
  mayBeDamaged(node: NodeId): boolean
  /** An order to hand leadership to the node is about to be given. */
  transferOrdered(node: NodeId): void
  /** A change of members is about to be ordered. */
  changeOrdered(): void
  /** A split is about to be ordered. */
  splitOrdered(): void
  /** Every key that clients have used in the interval, in order. */
  keysWithin(start: Position, end: Position): ReadonlyArray<Position>
}

/** Tokens of the control plane, apart from those of clients. */
export const firstControlToken = 2 ** 40

type Body = RangeRequest extends infer Each
  ? Each extends RangeRequest
    ? Omit<Each, "token" | "deadlineMs">
    : never
  : never

/** One order, repeated until it is carried out or turns out to be out of date. */
interface Order {
  readonly kind: ChurnKind
  readonly body: Body
  readonly replicas: ReadonlyArray<ReplicaPlace>
  readonly giveUpAt: number
  leader: NodeId | undefined
  finished: boolean
}

const orderUs = 4_000_000
const attemptUs = 800_000
/** An entry that was proposed may be committed so long after its order was given up. */
const settledUs = 4_000_000
const votersMax = 5

/**
 * The control plane as far as ranges see it: it owns the counters of range and replica ids, learns descriptors like a client, and orders splits, moves,
 * additions, removals and transfers, several at a time, whatever state the groups are in. What it orders on old knowledge must be refused.
 */
export class ControlPlane {
  /** Orders that were carried out, by kind. */
  readonly done: Partial<Record<ChurnKind, number>> = {}
  private readonly world: ControlWorld
  private readonly parameters: ChurnParameters
  private readonly prng: Prng
  /** Apart, so that worlds without merges are what they were. */
  private readonly mergePrng: Prng
  private readonly routes = new RoutingTable()
  private readonly orders = new Map<number, Order>()
  /** Nodes that an order has named for a new replica of a range, and until when its entry may still come to be. */
  private readonly named = new Map<string, number>()
  private nextToken = firstControlToken
  private nextRange: RangeId
  private nextReplica: number
  private open = 0
  private stopped = false

  constructor(options: {
    readonly world: ControlWorld
    readonly parameters: ChurnParameters
    readonly prng: Prng
    readonly mergePrng: Prng
  }) {
    const { world } = options
    this.world = world
    this.parameters = options.parameters
    this.prng = options.prng
    this.mergePrng = options.mergePrng
    for (const descriptor of world.descriptors) this.routes.learn(descriptor)
    this.nextRange = 1 + Math.max(...world.descriptors.map(({ id }) => id))
    this.nextReplica = 1 + Math.max(...world.nodeIds)
  }

  start(): void {
    const { prng, parameters } = this
    if (parameters.rate > 0) this.every(parameters.rate, prng, () => this.order())
    const { mergeRate } = parameters
    if (mergeRate > 0) this.every(mergeRate, this.mergePrng, () => this.orderMerge())
  }

  private every(rate: number, prng: Prng, order: () => void): void {
    const { world } = this
    const gap = (-Math.log(1 - prng.float()) / rate) * 1e6
    world.schedule(world.now + Math.round(gap), () => {
      if (this.stopped) return
      if (this.open < 4) order()
      this.every(rate, prng, order)
    })
  }

  /** Hands over every range that changes at all. */
  transferEverywhere(): void {
    const { world, prng, parameters } = this
    if (parameters.rate === 0) return
    for (const { descriptor, leader } of this.routes.all) {
      const body = this.bodyOf("transfer", descriptor)
      if (body?._tag !== "Transfer") continue
      this.open++
      if (prng.chance(0.5)) world.transferOrdered(body.to)
      const { replicas } = descriptor
      const giveUpAt = world.now + orderUs
      this.attempt({ kind: "transfer", body, replicas, leader, giveUpAt, finished: false })
    }
  }

  /** What the meta group does with replicas that their leader reports as odd, or lost: they are removed. */
  replaceOdd(): void {
    const { world } = this
    for (const node of world.nodeIds) {
      for (const odd of world.oddReplicas(node)) {
        const range = odd.range
        const held = world.rangesOf(node)?.find(({ descriptor }) => descriptor.id === range)
        if (held === undefined) continue
        const { membersVersion, replicas } = held.descriptor
        const left = replicas.filter((place) => place.node !== odd.node)
        const body = { _tag: "ChangeMembers", range, membersVersion, replicas: left } as const
        world.request(node, { ...body, token: this.nextToken++, deadlineMs: attemptUs / 1000 })
      }
    }
  }

  /** Orders under way are forgotten; what they began must come to its end by itself. */
  stop(): void {
    this.stopped = true
  }

  private order(): void {
    const { prng, world } = this
    if (prng.chance(0.7)) this.refresh()
    const { descriptor, leader } = prng.pick(this.routes.all)
    let kind = this.drawKind()
    let body = this.bodyOf(kind, descriptor)
    // Not every kind makes sense for every range.
    for (let i = 0; i < 3 && body === undefined; i++) {
      kind = this.drawKind()
      body = this.bodyOf(kind, descriptor)
    }
    if (body === undefined) return
    this.open++
    if (body._tag === "Transfer") world.transferOrdered(body.to)
    if (body._tag === "ChangeMembers") world.changeOrdered()
    if (body._tag === "Split") world.splitOrdered()
    const giveUpAt = world.now + orderUs
    const { replicas } = descriptor
    this.attempt({ kind, body, replicas, leader, giveUpAt, finished: false })
  }

  /** Two neighbours become one, once the replicas of the right one are where those of the left one are. */
  private orderMerge(): void {
    const { mergePrng: prng, world } = this
    if (prng.chance(0.7)) this.refresh()
    const at = prng.int(0, this.routes.all.length - 1)
    const [target, source] = this.routes.all.slice(at, at + 2)
    if (target === undefined || source?.descriptor.namespace === undefined) return
    if (target.descriptor.namespace === undefined) return
    const wanted = this.places(target.descriptor, source.descriptor)
    if (wanted === undefined) return
    const giveUpAt = world.now + orderUs
    this.open++
    if (wanted === "there") {
      const { id: range, boundsVersion, replicas } = target.descriptor
      const body = { _tag: "Merge", range, boundsVersion, source: source.descriptor.id } as const
      const { leader } = target
      this.attempt({ kind: "merge", body, replicas, leader, giveUpAt, finished: false })
      return
    }
    const { id: range, membersVersion, replicas } = source.descriptor
    const body = { _tag: "ChangeMembers", range, membersVersion, replicas: wanted } as const
    const { leader } = source
    this.attempt({ kind: "bringTogether", body, replicas, leader, giveUpAt, finished: false })
  }

  /** Where the source's replicas are to be; "there" = they are; `undefined` = they can't be brought there now. */
  private places(
    target: RangeDescriptor,
    source: RangeDescriptor,
  ): ReadonlyArray<ReplicaPlace> | "there" | undefined {
    if (areTogether(target.replicas, source.replicas)) return "there"
    const { world } = this
    const wanted: Array<ReplicaPlace> = []
    for (const { node, role } of target.replicas) {
      if (role !== "voter" && role !== "learner") return undefined
      const held = source.replicas.find((place) => place.node === node)
      if (held !== undefined) {
        // Who votes cannot become a learner; who is joint is on its way somewhere.
        if (held.role !== role && !(held.role === "learner" && role === "voter")) return undefined
        wanted.push({ ...held, role })
        continue
      }
      const name = `${source.id}/${node}`
      if (world.mayBeDamaged(node) || (this.named.get(name) ?? 0) > world.now) return undefined
      this.named.set(name, world.now + orderUs + settledUs)
      wanted.push({ node, replica: this.nextReplica++, role })
    }
    return wanted
  }

  private drawKind(): ChurnKind {
    let draw = this.prng.float()
    for (const [kind, weight] of this.parameters.weights) {
      if (draw < weight) return kind
      draw -= weight
    }
    return "transfer"
  }

  private refresh(): void {
    const { world, prng } = this
    for (const report of world.rangesOf(prng.pick(world.nodeIds)) ?? []) this.routes.report(report)
  }

  private bodyOf(kind: ChurnKind, descriptor: RangeDescriptor): Body | undefined {
    const { prng } = this
    const range = descriptor.id
    const voters = descriptor.replicas.filter(({ role }) => role === "voter")
    if (kind === "split") return this.split(descriptor)
    if (kind === "transfer") {
      if (voters.length < 2) return undefined
      return { _tag: "Transfer", range, to: prng.pick(voters).node }
    }
    const replicas = this.wantedReplicas(kind, descriptor)
    if (replicas === undefined) return undefined
    const { membersVersion } = descriptor
    return { _tag: "ChangeMembers", range, membersVersion, replicas }
  }

  private split(descriptor: RangeDescriptor): Body | undefined {
    const { prng, parameters } = this
    const { id: range, boundsVersion, start, end, namespace } = descriptor
    const keys = this.world.keysWithin(start, end)
    if (namespace === undefined || keys.length < parameters.splitKeys) return undefined
    if (this.routes.all.length >= parameters.rangesMax) return undefined
    const draw = prng.float()
    const middle = keys[keys.length >>> 1] as Position
    // Mostly in the middle of the keys; sometimes where the node thinks that it is, or at any of them.
    const at = draw < 0.6 ? middle : draw < 0.8 ? undefined : prng.pick(keys)
    if (at !== undefined && compareBytes(at, start) <= 0) return undefined
    return { _tag: "Split", range, boundsVersion, at, child: this.nextRange++ }
  }

  /** All that are to be there in the end; `undefined` when the kind of change makes no sense there. */
  private wantedReplicas(
    kind: ChurnKind,
    { id, replicas }: RangeDescriptor,
  ): ReadonlyArray<ReplicaPlace> | undefined {
    const { prng, world } = this
    // A group that is joint on its way: the order will come too late or too early, and must be refused.
    const present = replicas
      .filter(({ role }) => role !== "outgoing")
      .map((place) => (place.role === "incoming" ? { ...place, role: "voter" as const } : place))
    const voters = present.filter(({ role }) => role === "voter")
    const learners = present.filter(({ role }) => role === "learner")
    // Two new replicas of a range are not wanted on one node at a time: which of them comes to be is decided by the log, not by their ids.
    const isNamed = (node: NodeId) => (this.named.get(`${id}/${node}`) ?? 0) > world.now
    const elsewhere = world.nodeIds.filter(
      (node) =>
        !present.some((place) => place.node === node) &&
        !world.mayBeDamaged(node) &&
        !isNamed(node),
    )
    const added = (role: "voter" | "learner"): ReplicaPlace => {
      const node = prng.pick(elsewhere)
      this.named.set(`${id}/${node}`, world.now + orderUs + settledUs)
      return { node, replica: this.nextReplica++, role }
    }
    const without = (gone: ReplicaPlace) => present.filter((place) => place !== gone)
    switch (kind) {
      case "addLearner":
        return elsewhere.length === 0 ? undefined : [...present, added("learner")]
      case "addVoter":
        if (elsewhere.length === 0 || voters.length >= votersMax) return undefined
        return [...present, added("voter")]
      case "promote": {
        if (learners.length === 0 || voters.length >= votersMax) return undefined
        const chosen = prng.pick(learners)
        return present.map((place) =>
          place === chosen ? { ...place, role: "voter" as const } : place,
        )
      }
      case "remove": {
        const chosen = prng.pick(present)
        return chosen.role === "voter" && voters.length <= this.parameters.votersMin
          ? undefined
          : without(chosen)
      }
      case "demote": {
        if (voters.length <= this.parameters.votersMin) return undefined
        const chosen = prng.pick(voters)
        return present.map((place) =>
          place === chosen ? { ...place, role: "learner" as const } : place,
        )
      }
      case "move":
        if (elsewhere.length === 0 || voters.length === 0) return undefined
        return [...without(prng.pick(voters)), added("voter")]
      default:
        return undefined
    }
  }

  private attempt(order: Order): void {
    const { world, prng } = this
    if (order.finished) return
    if (this.stopped || world.now >= order.giveUpAt) return this.finish(order)
    const node = order.leader ?? prng.pick(order.replicas).node
    const token = this.nextToken++
    this.orders.set(token, order)
    const request = { ...order.body, token, deadlineMs: attemptUs / 1000 } as RangeRequest
    const again = prng.int(20_000, attemptUs)
    world.schedule(world.now + prng.int(20, 1_500), () => {
      if (!world.request(node, request)) order.leader = undefined
    })
    world.schedule(world.now + again, () => {
      if (this.orders.delete(token)) this.attempt(order)
    })
  }

  answer(reply: Reply): void {
    const { world, prng } = this
    world.schedule(world.now + prng.int(20, 1_500), () => {
      const order = this.orders.get(reply.token)
      this.orders.delete(reply.token)
      if (order !== undefined) this.answered(order, reply)
    })
  }

  private answered(order: Order, reply: Reply): void {
    if (order.finished) return
    if (reply._tag === "Changed") {
      this.routes.learn(reply.descriptor)
      this.done[order.kind] = (this.done[order.kind] ?? 0) + 1
      return this.finish(order)
    }
    if (reply._tag !== "Refused") throw new Error(`an order is answered by ${reply._tag}`)
    const { refusal } = reply
    if (refusal._tag === "RangeMoved") {
      for (const descriptor of refusal.descriptors) this.routes.learn(descriptor)
      return this.finish(order)
    }
    if (refusal._tag === "InvalidRequest") return this.finish(order)
    order.leader = refusal._tag === "NotLeader" ? refusal.leader : order.leader
    const { world, prng } = this
    world.schedule(world.now + prng.int(5_000, 60_000), () => this.attempt(order))
  }

  private finish(order: Order): void {
    order.finished = true
    this.open--
  }
}
