import { Effect } from "effect"
import { verbs } from "../../../src/admin/verbs.ts"
import type { ClientShape } from "../../../src/client/Client.ts"
import type {
  EventualClient,
  EventualFound,
  EventualWriteOptions,
  EventualWritten,
} from "../../../src/client/eventual/EventualApi.ts"
import { tokenBytes, tokenText } from "../../../src/dynamo/contextToken.ts"
import { copiesOf, type Level } from "../../../src/dynamo/coordinator/slotPlan.ts"
import type { ConflictRule } from "../../../src/dynamo/elements.ts"
import type { EventualNamespace } from "../../../src/dynamo/node/ports.ts"
import type { EventualChange } from "../../../src/dynamo/node/requests.ts"
import type { KvorumError } from "../../../src/Errors.ts"
import { text } from "../../../src/lib/bytes.ts"
import type { Prng } from "../../../src/lib/prng.ts"
import { slotOf } from "../../../src/lib/slot.ts"
import { firstEventualNamespace } from "../../../src/server/directory.ts"
import type { EventualHalf } from "../../../src/server/eventualHalf.ts"
import type { Ring } from "../../../src/topology/ring.ts"
import { slotsToMove } from "../../../src/topology/ringChange.ts"
import { SlotOwners } from "../../../src/topology/slotOwners.ts"
import type { NodeId } from "../../../src/types.ts"
import { type Answer, hold, unseen, type Write } from "../eventual/book.ts"
import { type Key, keyOf, liveIn, reachOf } from "../eventual/key.ts"
import { planOf } from "../eventual/plan.ts"
import type { Trace } from "../trace.ts"
import { Violation } from "../violation.ts"
import { ClientProgram } from "./ClientProgram.ts"
import type { Machine } from "./machine.ts"
import type { ServerNode } from "./ServerNode.ts"
import type { SimulatedTcp } from "./simulatedTcp.ts"

export interface EventualWorkloadWorld {
  readonly now: number
  readonly trace: Trace
  readonly founders: ReadonlyArray<NodeId>
  readonly nodes: ReadonlyMap<NodeId, ServerNode>
  readonly tcp: SimulatedTcp
  /** A node loses its disk: what it alone holds is lost with it. */
  readonly faults: { readonly wipes: boolean }
  schedule(time: number, run: () => void): void
  violated(violation: Violation): void
}

/** A node that is to leave is waited for so long at the least. */
const silentMsMin = 5000

/** Names of conflict rules as orders have them. Rules that go by wall clocks are the world level's: here clocks are apart by more than a node takes. */
const rules: ReadonlyArray<readonly [ConflictRule, string]> = [
  ["siblings", "siblings"],
  ["set", "crdt:set"],
  ["flag", "crdt:flag"],
  ["counter", "crdt:counter"],
]
type CountedLevel = Exclude<Level, "localQuorum">

/** In a namespace of this name. */
type PlacedKey = Key & { readonly space: string }

const anyLevel: ReadonlyArray<CountedLevel> = ["one", "one", "quorum", "quorum", "all"]
/** That other nodes hold a write of, too. */
const sharedLevels: ReadonlyArray<CountedLevel> = ["quorum", "quorum", "all"]

/**
 * Programs that use eventual namespaces by the client library, under the faults and orders of their world: what they write and were told goes into the books of true causality
 * (eventual/book.ts), as at the world level. Which node takes a request, whether it is sent again, and what an error means is the library's.
 */
export class EventualWorkload {
  writes = 0
  acknowledged = 0
  /** Calls that did not succeed, by what they ended with. */
  readonly errors: Record<string, number> = {}
  private readonly world: EventualWorkloadWorld
  private readonly prng: Prng
  private readonly programs: ReadonlyArray<ClientProgram>
  private readonly levels: ReadonlyArray<CountedLevel>
  private readonly thinkUs: number
  private readonly blind: number
  private readonly deletes: number
  private readonly keys: Array<PlacedKey> = []
  /** When a node was last seen to run, with no link of it cut. */
  private readonly reachedMs = new Map<NodeId, number>()
  private readonly gone = new Set<NodeId>()
  private stopped = false
  private underWay = 0

  constructor(options: {
    readonly world: EventualWorkloadWorld
    readonly prng: Prng
    readonly machines: ReadonlyArray<Machine>
  }) {
    const { world, prng, machines } = options
    this.world = world
    this.prng = prng
    this.levels = world.faults.wipes ? sharedLevels : anyLevel
    this.thinkUs = prng.logUniform(50_000, 1_000_000)
    this.blind = prng.pick([0.1, 0.3, 0.9])
    this.deletes = prng.pick([0.05, 0.2])
    const attemptMs = prng.pick([1000, 1000, 300, 100])
    this.programs = machines.map((machine) => new ClientProgram(machine, world.founders, attemptMs))
  }

  get isIdle(): boolean {
    return this.underWay === 0
  }

  stop(): void {
    this.stopped = true
  }

  /** The namespace that every cluster is founded with, and one that is made now. */
  start(): void {
    const { prng, world } = this
    const founded = { id: firstEventualNamespace + 1, rule: "siblings" } as const
    this.open("eventual", { ...founded, copies: Math.min(3, world.founders.length) })
    const [rule, conflict] = prng.pick(rules)
    const least = world.faults.wipes ? 3 : 1
    const copies = Math.max(least, prng.int(1, world.founders.length))
    const args = { name: "made", mode: "eventual", replicas: copies, conflict }
    const make = (client: ClientShape) =>
      Effect.catchIf(
        client.admin(verbs.namespaceCreate, args, { deadlineMs: 5000 }),
        isMadeAlready,
        () => Effect.void,
      ).pipe(Effect.andThen(client.admin(verbs.namespaceList, {}, { deadlineMs: 5000 })))
    this.insist(make, (known) => {
      const { namespaces } = known as { namespaces: ReadonlyArray<{ id: number; name: string }> }
      const made = namespaces.find(({ name }) => name === args.name)
      if (made === undefined) throw new Error(`${args.name} was made and is not there`)
      this.open(args.name, { id: made.id, rule, copies })
    })
  }

  private open(space: string, fields: Pick<EventualNamespace, "id" | "rule" | "copies">): void {
    const { prng, programs } = this
    const namespace: EventualNamespace = { ...fields, write: "quorum", read: "quorum" }
    const shape = { oneSlot: prng.chance(0.3), clients: programs.length }
    const count = prng.pick([1, 2, 4])
    for (let i = 0; i < count; i++) this.keys.push({ space, ...keyOf(shape, namespace, i) })
    for (const client of programs.keys()) this.think(space, client)
  }

  private get nowMs(): number {
    return this.world.now / 1000
  }

  private think(space: string, client: number): void {
    const { world, prng, thinkUs } = this
    world.schedule(world.now + Math.round(2 * prng.float() * thinkUs), () => {
      if (this.stopped) return
      const key = prng.pick(this.keys.filter((each) => each.space === space))
      if (prng.chance(0.4)) this.read(key, client)
      else this.write(key, client)
    })
  }

  /** What a call shows is judged where it ends, in the program's process: the first violation ends the run. */
  private call<A>(
    { space }: PlacedKey,
    client: number,
    what: (client: ClientShape) => Effect.Effect<A, KvorumError>,
    done: (ended: { readonly answer: A } | { readonly error: KvorumError }) => void,
  ): void {
    const { world } = this
    world.trace.record("invoke", world.now, client, this.writes)
    this.underWay++
    const program = this.programs[client] as ClientProgram
    program.call(what, (ended) => {
      this.underWay--
      if ("error" in ended) {
        const { _tag } = ended.error
        this.errors[_tag] = (this.errors[_tag] ?? 0) + 1
      }
      world.trace.record("complete", world.now, client, "answer" in ended ? 1 : 2)
      this.judge(() => done(ended))
      this.think(space, client)
    })
  }

  private judge(work: () => void): void {
    this.noteGone()
    try {
      work()
    } catch (error) {
      if (!(error instanceof Violation)) throw error
      this.world.violated(error)
    }
  }

  /**
   * A node that was to be removed, and that nothing was heard of for so long that it was given up, may take with it what it alone held: writes that were answered by one node. It must not
   * be given up sooner.
   */
  private noteGone(): void {
    const { world } = this
    const rings = [...world.nodes.values()].map(({ loop }) => loop?.eventual.machine.ring as Ring)
    for (const [id, node] of world.nodes) {
      const isStill = node.machine.process?.isPaused !== false
      if (!isStill && !world.tcp.isCutOff(node.machine.name)) this.reachedMs.set(id, this.nowMs)
      if (this.gone.has(id) || node.isWiped || !rings.some((ring) => ring?.isGone(id))) continue
      this.gone.add(id)
      const silentMs = this.nowMs - (this.reachedMs.get(id) ?? 0)
      if (silentMs < silentMsMin) {
        throw new Violation("lostWrite", `n${id} was given up, unreachable for ${silentMs} ms`)
      }
      for (const { book } of this.keys) book.weaken()
    }
  }

  private write(key: PlacedKey, client: number): void {
    const { prng, nowMs, blind, deletes } = this
    const sight = prng.chance(blind) ? unseen : (key.sights[client] ?? unseen)
    const parameters = { deletes, ttl: 0, skewMsMax: 0 }
    const { change, ...planned } = planOf(key, sight, {
      prng,
      nowMs,
      count: this.writes,
      parameters,
    })
    const write: Write = {
      ...{ id: this.writes++, delta: 0, expiry: undefined, startedMs: nowMs },
      ...{ covers: sight.covers, mayCover: sight.mayCover },
      ...planned,
      ...{ endedMs: Number.POSITIVE_INFINITY, outcome: "pending" },
      ...{ ownersHolding: 0, heldSinceMs: Number.POSITIVE_INFINITY },
    }
    key.book.writes.push(write)
    const context = sight.context === undefined ? undefined : tokenText(sight.context)
    const options = {
      ...{ consistency: prng.pick(this.levels), strict: prng.chance(0.4), context },
      deadlineMs: Math.round(prng.logUniform(200, 8000)),
    }
    this.call(
      key,
      client,
      ({ eventual }) => changed(eventual, { ...key, change, options }),
      (ended) => {
        if ("answer" in ended) {
          const { receipt } = ended.answer
          this.acknowledged++
          write.outcome = "acknowledged"
          write.endedMs = this.nowMs
          const held = receipt.sloppy ? 0 : copiesOf(options.consistency, key.namespace.copies)
          hold(write, held, write.endedMs)
        } else write.outcome = ended.error._tag === "OutcomeUnknown" ? "unknown" : "refused"
      },
    )
  }

  private read(key: PlacedKey, client: number): void {
    const { prng } = this
    const level = prng.pick(this.levels)
    const startedMs = this.nowMs
    const options = { consistency: level, deadlineMs: Math.round(prng.logUniform(200, 8000)) }
    this.call(
      key,
      client,
      ({ eventual }) => eventual.get(key.space, key.bytes, options),
      (ended) => {
        if (!("answer" in ended)) return
        const { context } = ended.answer
        const seen = key.book.read(this.answerOf(key, ended.answer, { startedMs, level }))
        key.sights[client] = {
          ...seen,
          context: context === undefined ? undefined : tokenBytes(context),
        }
      },
    )
  }

  private answerOf(
    { namespace }: Key,
    { siblings, kind }: EventualFound,
    { startedMs, level }: { readonly startedMs: number; readonly level: Level },
  ): Answer {
    const shown = siblings.map(text)
    const times = { startedMs, endedMs: this.nowMs, ...reachOf(level, namespace) }
    if (kind === "counter") return { values: [], total: BigInt(shown[0] ?? 0), ...times }
    const values = kind === "flag" ? shown.map(() => "on") : shown
    return { values, total: undefined, ...times }
  }

  // Liveness

  private insist<A>(
    what: (client: ClientShape) => Effect.Effect<A, KvorumError>,
    done: (answer: A) => void,
  ): void {
    this.underWay++
    const program = this.prng.pick(this.programs)
    program.call(what, (ended) => {
      this.underWay--
      if ("answer" in ended) return this.judge(() => done(ended.answer))
      const { world } = this
      world.schedule(world.now + 100_000, () => this.insist(what, done))
    })
  }

  /** Why eventual namespaces are not at rest: something is owed, moves or differs. */
  restlessness(): string | undefined {
    const up = [...this.world.nodes.values()].filter(({ isOut }) => !isOut)
    const rings = new Set<Ring>()
    const halves = new Map<NodeId, EventualHalf>()
    for (const { id, loop } of up) {
      const problem = loop === undefined ? "is down" : problemOf(loop.eventual)
      if (loop === undefined || problem !== undefined) return `n${id} ${problem}`
      halves.set(id, loop.eventual)
      rings.add(loop.eventual.machine.ring as Ring)
    }
    const [ring] = rings
    if (ring === undefined || new Set([...rings].map(({ version }) => version)).size > 1) {
      return "nodes know different rings"
    }
    for (const { namespace, bytes, book } of this.keys) {
      const owners = new SlotOwners()
      const slot = slotOf(bytes)
      ring.owners(slot, namespace.copies, owners)
      const held = [...owners.nodes.subarray(0, owners.count)].map((node) => {
        const state = halves.get(node)?.machine.owner.state(namespace.id, slot, bytes)
        return state === undefined ? "" : liveIn(state)
      })
      const kinds = new Set(held).size
      if (kinds > 1) return `the owners of ${book.name} hold ${kinds} states`
    }
    return undefined
  }

  /** Every key once more, at level `all`, and against its book. */
  checkEverything(done: () => void): void {
    let open = this.keys.length
    for (const key of this.keys) {
      const startedMs = this.nowMs
      const options = { consistency: "all", deadlineMs: 5000 } as const
      this.insist(
        ({ eventual }) => eventual.get(key.space, key.bytes, options),
        (found) => {
          key.book.final(this.answerOf(key, found, { startedMs, level: "all" }))
          if (--open === 0) done()
        },
      )
    }
  }
}

/** What keeps a node from being at rest. */
function problemOf(half: EventualHalf): string | undefined {
  const { ring, hints, tenures, reaper } = half.machine
  if (ring === undefined) return "knows no ring"
  const known = ring as Ring
  if (known.changes().length > 0 || slotsToMove(known, known.goal()) > 0) return "sees slots move"
  const { slots } = half.status().refilling
  if (slots > 0) return `refills ${slots} slots`
  if (hints.count > 0) return `holds ${hints.count} hints`
  const { lasting, ended } = tenures.counts
  if (lasting + ended > 0) return "is in a tenure"
  return reaper.drifted > 0 ? "has trees that had drifted from their keys" : undefined
}

function isMadeAlready(error: KvorumError): boolean {
  return error._tag === "InvalidRequest" && /exists already/.test(error.message)
}

/** The call of the client that makes this change. */
function changed(
  eventual: EventualClient,
  call: {
    readonly space: string
    readonly bytes: Uint8Array
    readonly change: EventualChange
    readonly options: EventualWriteOptions
  },
): Effect.Effect<EventualWritten, KvorumError> {
  const { space, bytes, change, options } = call
  switch (change._tag) {
    case "Put":
      return eventual.put(space, bytes, change.value, options)
    case "Delete":
      return eventual.delete(space, bytes, options)
    case "Add":
      return eventual.add(space, bytes, change.member, options)
    case "Remove":
      return eventual.remove(space, bytes, change.member, options)
    case "Increment":
      return eventual.increment(space, bytes, change.delta, options)
    case "Enable":
    case "Disable":
      return eventual.setFlag(space, bytes, change._tag === "Enable", options)
    default:
      return change satisfies never
  }
}
