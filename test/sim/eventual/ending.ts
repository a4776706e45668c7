import type { EventualReply } from "../../../src/dynamo/node/requests.ts"
import { toHex } from "../../../src/lib/bytes.ts"
import type { NodeId } from "../../../src/types.ts"
import { Violation } from "../violation.ts"
import type { SimulatedCluster } from "./cluster.ts"
import { answerOf, type Key, liveIn, reachOf } from "./key.ts"
import type { EventualParameters } from "./parameters.ts"
import { ttlMsMax } from "./plan.ts"

/** So long the cluster may take until it is at rest, once nothing is wrong any more. */
const restMsMax = 240_000

/** The end of a run: all is made good, and the cluster must come to rest, hold the same at all owners, and show what is true. */
export class Ending {
  private readonly parameters: EventualParameters
  private readonly cluster: SimulatedCluster
  private readonly keys: ReadonlyArray<Key>
  private readonly startedMs: number

  constructor(parameters: EventualParameters, cluster: SimulatedCluster, keys: ReadonlyArray<Key>) {
    this.parameters = parameters
    this.cluster = cluster
    this.keys = keys
    this.startedMs = cluster.nowMs
  }

  heal(): void {
    const { cluster } = this
    cluster.isHealed = true
    cluster.cuts.clear()
    for (const disk of cluster.disks.values()) disk.capacityBytes = Number.POSITIVE_INFINITY
    cluster.startAll()
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
  checkWindow(): void {
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
    const times = { startedMs, endedMs: cluster.nowMs }
    key.book.final(answerOf(found.state, { ...times, ...reachOf("all", key.namespace) }))
  }
}
