import { encodeToken } from "../../src/dynamo/contextToken.ts"
import type { Level } from "../../src/dynamo/coordinator/slotPlan.ts"
import { ElementCursor } from "../../src/dynamo/elements.ts"
import { contextOf, ruleOf } from "../../src/dynamo/keyState.ts"
import { latestStamp } from "../../src/dynamo/lww.ts"
import type { EventualNamespace } from "../../src/dynamo/node/ports.ts"
import type { LostReport } from "../../src/dynamo/node/refills.ts"
import type { EventualChange, EventualReply } from "../../src/dynamo/node/requests.ts"
import { ByteReader } from "../../src/lib/byteReader.ts"
import { text, toHex, utf8 } from "../../src/lib/bytes.ts"
import { slotOf } from "../../src/lib/slot.ts"
import type { PeerMessage } from "../../src/server/peerMessage.ts"
import type { StoreSettings } from "../../src/server/settings.ts"
import type { Ring } from "../../src/topology/ring.ts"
import { nextRing, slotsToMove } from "../../src/topology/ringChange.ts"
import { withNewcomer } from "../../src/topology/ringMembers.ts"
import { SlotOwners } from "../../src/topology/slotOwners.ts"
import { newcomerOf, ringFrom, ringOf } from "../topology/harness.ts"
import { LoopCluster } from "./loopCluster.ts"
import type { LoopNode } from "./loopNode.ts"

const common = { copies: 3, write: "quorum", read: "quorum" } as const

/** One for each conflict rule. */
export const namespaces: ReadonlyArray<EventualNamespace> = [
  { id: 11, rule: "siblings", ...common },
  { id: 12, rule: "lww", ...common },
  { id: 13, rule: "set", ...common },
  { id: 14, rule: "counter", ...common },
  { id: 15, rule: "flag", ...common },
  { id: 16, rule: "register", ...common },
]

/** The same, each key on so many nodes. */
export function withCopies(copies: number): ReadonlyArray<EventualNamespace> {
  return namespaces.map((namespace) => ({ ...namespace, copies }))
}

export const siblings = 11
export const lww = 12
export const set = 13
export const counter = 14

interface Place {
  readonly namespace: number
  readonly key: string
}

interface WriteOptions {
  readonly context?: Uint8Array | undefined
  readonly level?: Level
  readonly strict?: boolean
  readonly requestId?: number
}

/** Store loops that share eventual namespaces, on simulated disks. */
export class EventualCluster extends LoopCluster {
  ring: Ring
  /** Whether a node hears of new rings; `teach` tells it all the same. */
  hears: (node: number) => boolean = () => true
  private token = 1_000_000

  private readonly spaces: ReadonlyArray<EventualNamespace>

  constructor(
    count: number,
    settings: Partial<StoreSettings> = {},
    seed = 1,
    spaces: ReadonlyArray<EventualNamespace> = namespaces,
  ) {
    const founders = Array.from({ length: count }, (_, i) => i + 1)
    super({ founders, settings, seed })
    this.spaces = spaces
    this.ring = ringOf(count)
    for (const id of founders) this.teach(id)
  }

  override start(id: number): LoopNode {
    const node = super.start(id)
    // Not yet while the base class makes the first ones.
    if (this.ring !== undefined && this.hears(id)) this.teach(id)
    return node
  }

  teach(id: number): void {
    this.node(id).loop.eventual.learn(this.ring, this.spaces)
  }

  /** One more node, which everybody hears of; `stepRing` then moves slots to it. */
  join(id: number): void {
    this.ring = ringFrom(withNewcomer(this.ring, newcomerOf(id), 16))
    this.start(id)
    this.teachAll()
  }

  private teachAll(): void {
    for (const node of this.nodes.keys()) if (this.hears(node)) this.teach(node)
  }

  /** Makes the next version of the ring, by what the nodes report, and tells them; false when none is due. */
  stepRing(slotsAtOnceMax = 16_384): boolean {
    const confirmed = new Map<number, number>()
    const filled = new Set<string>()
    const lost: Array<LostReport> = []
    for (const [id, { loop }] of this.nodes) {
      const report = loop.eventual.ringReport()
      confirmed.set(id, report.confirmed)
      if (report.lost !== undefined) lost.push(report.lost)
      for (const { slot, since } of report.filled) filled.add(`${id} ${slot} ${since}`)
    }
    const next = nextRing(this.ring, {
      goal: this.ring.goal(),
      slotsAtOnceMax,
      reports: {
        lost,
        confirmedBy: (node) => confirmed.get(node) ?? 0,
        isFilled: (slot, node, since) => filled.has(`${node} ${slot} ${since}`),
      },
    })
    if (next === undefined) return false
    this.ring = next
    this.teachAll()
    return true
  }

  get isRingAtRest(): boolean {
    return this.ring.changes().length === 0 && slotsToMove(this.ring, this.ring.goal()) === 0
  }

  owners(key: string, copies = this.spaces[0]?.copies ?? 0): ReadonlyArray<number> {
    const owners = new SlotOwners()
    this.ring.owners(slotOf(utf8(key)), copies, owners)
    return [...owners.nodes.subarray(0, owners.count)]
  }

  /** Hands in a request; what is returned gives the answer once it has come. */
  private submit(node: number, request: object): () => EventualReply | undefined {
    const token = ++this.token
    const at = this.node(node)
    at.loop.requestEventual({ deadlineMs: 2000, level: undefined, ...request, token } as never)
    return () => at.eventualReplies.find((each) => each.token === token)
  }

  private await(answer: () => EventualReply | undefined): EventualReply {
    for (let passed = 0; passed < 10_000; passed += 10) {
      const reply = answer()
      if (reply !== undefined) return reply
      this.pass(10)
    }
    throw new Error("a request was not answered")
  }

  write(
    node: number,
    place: Place,
    change: EventualChange,
    options: WriteOptions = {},
  ): EventualReply {
    return this.await(this.beginWrite(node, place, change, options))
  }

  beginWrite(
    node: number,
    { namespace, key }: Place,
    change: EventualChange,
    options: WriteOptions = {},
  ): () => EventualReply | undefined {
    const fields = { context: undefined, strict: false, requestId: 0, ...options }
    const request = { _tag: "EventualWrite", namespace, key: utf8(key), change }
    return this.submit(node, { ...request, ...fields })
  }

  read(node: number, place: Place, level?: Level): EventualReply {
    return this.await(this.beginRead(node, place, level))
  }

  beginRead(
    node: number,
    { namespace, key }: Place,
    level?: Level,
  ): () => EventualReply | undefined {
    return this.submit(node, { _tag: "EventualRead", namespace, key: utf8(key), level })
  }

  page(node: number, namespace: number, slots: ReadonlyArray<number>, after?: unknown) {
    const fields = { prefix: new Uint8Array(0), after, limit: 3 }
    return this.await(this.submit(node, { _tag: "EventualPage", namespace, slots, ...fields }))
  }

  /** What each owner holds of a key, as hex. */
  held(namespace: number, key: string): ReadonlyArray<string> {
    return this.owners(key).map((id) => {
      const { owner } = this.node(id).loop.eventual.machine
      const state = owner.state(namespace, slotOf(utf8(key)), utf8(key))
      return state === undefined ? "" : toHex(state)
    })
  }
}

/** Owners compare nothing: what gets anywhere gets there by requests and hints. */
export function unmended(count: number, seed = 1, copies = 3): EventualCluster {
  const { eventual } = new EventualCluster(1).settings
  const exchange = { ...eventual.exchange, bytesPerSecond: 0 }
  return new EventualCluster(
    count,
    { eventual: { ...eventual, exchange } },
    seed,
    withCopies(copies),
  )
}

export const put = (value: string, ttlMs = 0): EventualChange => {
  return { _tag: "Put", value: utf8(value), ttlMs }
}
export const add = (member: string): EventualChange => ({ _tag: "Add", member: utf8(member) })
export const increment = (delta: number): EventualChange => {
  return { _tag: "Increment", delta: BigInt(delta) }
}

/** The live values of an answer, and the token of what was read. */
export function seenIn(reply: EventualReply, namespace: number, key: string) {
  if (reply._tag !== "EventualValue") throw new Error(JSON.stringify(reply))
  const { state } = reply
  if (state === undefined) return { values: [], context: undefined }
  const values: Array<string> = []
  const rule = ruleOf(state)
  if (rule === "siblings" || rule === "lww" || rule === "register") {
    const cursor = new ElementCursor().open(state)
    while (cursor.next()) if (cursor.liveAt(0)) values.push(text(cursor.value))
  }
  const stamp = rule === "lww" || rule === "register" ? latestStamp(state) : 0
  const context = encodeToken({ rule, stamp, seen: contextOf(state) }, namespace, utf8(key))
  return { values: values.sort(), context }
}

/** The messages of a parcel, by code. */
export function codesIn(message: PeerMessage): ReadonlyArray<number> {
  if (message._tag !== "Eventual") return []
  const reader = new ByteReader(message.bytes)
  const codes: Array<number> = []
  while (reader.remaining > 0) {
    codes.push(reader.u8())
    reader.raw(reader.u32())
  }
  return codes
}
