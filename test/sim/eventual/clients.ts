import { copiesOf, type Level } from "../../../src/dynamo/coordinator/slotPlan.ts"
import type { EventualReply, EventualWrite } from "../../../src/dynamo/node/requests.ts"
import type { Prng } from "../../../src/lib/prng.ts"
import type { NodeId } from "../../../src/types.ts"
import { hold, unseen, type Write } from "./book.ts"
import type { SimulatedCluster } from "./cluster.ts"
import { answerOf, contextIn, type Key, reachOf } from "./key.ts"
import type { EventualParameters } from "./parameters.ts"
import { planOf } from "./plan.ts"

const levels: ReadonlyArray<Level> = ["one", "one", "quorum", "quorum", "all"]
/** That others hold a write of, too. */
const sharedLevels: ReadonlyArray<Level> = ["quorum", "quorum", "all"]
const zonedLevels: ReadonlyArray<Level> = [...levels, "localQuorum", "localQuorum"]

/** What clients ask: they write and read with the contexts that they have read themselves, some old, and enter into the books what they were told. */
export class Clients {
  writeCount = 0
  acknowledged = 0
  private readonly prng: Prng
  private readonly parameters: EventualParameters
  private readonly cluster: SimulatedCluster

  constructor(prng: Prng, parameters: EventualParameters, cluster: SimulatedCluster) {
    this.prng = prng
    this.parameters = parameters
    this.cluster = cluster
  }

  private get writeLevels(): ReadonlyArray<Level> {
    const { rates, zones } = this.parameters
    if (rates.damage > 0 || rates.gone > 0) return sharedLevels
    return zones > 1 ? zonedLevels : levels
  }

  coordinator(key: Key): NodeId {
    const { prng, cluster } = this
    const up = [...cluster.nodes.keys()]
    const owners = cluster.owners(key.bytes, key.namespace.copies)
    const near = up.filter((id) => owners.includes(id))
    return near.length > 0 && prng.chance(this.parameters.nearOwner)
      ? prng.pick(near)
      : prng.pick(up)
  }

  write(key: Key, id: NodeId): void {
    const { prng, cluster } = this
    const client = prng.int(0, key.sights.length - 1)
    const isBlind = prng.chance(this.parameters.blind)
    const sight = isBlind ? unseen : (key.sights[client] ?? unseen)
    const { change, ...planned } = planOf(key, sight, {
      ...{ prng, nowMs: cluster.nowMs, count: this.writeCount },
      parameters: this.parameters,
    })
    const write: Write = {
      ...{ id: this.writeCount++, delta: 0, expiry: undefined, startedMs: cluster.nowMs },
      ...{ covers: sight.covers, mayCover: sight.mayCover },
      ...planned,
      ...{ endedMs: Number.POSITIVE_INFINITY, outcome: "pending" },
      ...{ ownersHolding: 0, heldSinceMs: Number.POSITIVE_INFINITY },
    }
    key.book.writes.push(write)
    const level = prng.pick(this.writeLevels)
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

  private send(key: Key, write: Write, id: NodeId, request: Omit<EventualWrite, "token">): void {
    this.cluster.ask(
      id,
      (token) => ({ ...request, token }),
      (reply) => {
        const isLocal = reply?._tag === "EventualWritten" && !reply.receipt.sloppy
        if (isLocal) write.held ??= this.heldIn(id, request.level)
        this.written(key, write, reply)
      },
    )
  }

  /** The zone that a `localQuorum` at this node has asked; where slots move, it need not meet another one of that zone. */
  private zoneAsked(id: NodeId, level: Level | undefined): string | undefined {
    const { rates } = this.parameters
    const rests = rates.ring === 0 && rates.gone === 0
    return level === "localQuorum" && rests ? this.cluster.ring.zoneOf(id) : undefined
  }

  private heldIn(id: NodeId, level: Level | undefined): Write["held"] {
    const zone = this.zoneAsked(id, level)
    return zone === undefined ? undefined : { zone, sinceMs: this.cluster.nowMs }
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

  read(key: Key): void {
    const { prng, cluster } = this
    const client = prng.int(0, key.sights.length - 1)
    const level = prng.pick(this.parameters.zones > 1 ? zonedLevels : levels)
    const startedMs = cluster.nowMs
    const id = this.coordinator(key)
    cluster.ask(
      id,
      (token) => ({
        ...{ _tag: "EventualRead", token, namespace: key.namespace.id, key: key.bytes, level },
        deadlineMs: prng.pick([100, 500, 2000]),
      }),
      (reply) => {
        if (reply?._tag !== "EventualValue") return
        const times = { startedMs, endedMs: cluster.nowMs, zone: this.zoneAsked(id, level) }
        const answer = answerOf(reply.state, { ...times, ...reachOf(level, key.namespace) })
        const seen = key.book.read(answer)
        key.sights[client] = { ...seen, context: contextIn(key, reply.state) }
      },
    )
  }
}
