import { Connection, type Waiting } from "../../src/client/Connection.ts"
import type { EventualStatus } from "../../src/dynamo/node/eventualStatus.ts"
import type {
  EventualEntries,
  EventualReply,
  EventualRequest,
} from "../../src/dynamo/node/requests.ts"
import { viewOf } from "../../src/dynamo/valueView.ts"
import { text, toHex, utf8 } from "../../src/lib/bytes.ts"
import { Prng } from "../../src/lib/prng.ts"
import { slotCount } from "../../src/lib/slot.ts"
import { decodeRing } from "../../src/topology/ringCodec.ts"
import { SlotOwners } from "../../src/topology/slotOwners.ts"
import type { NamespaceId, NodeId } from "../../src/types.ts"
import type { Answer, ClosingNotice, NamespaceInfo, Routes } from "../../src/wire/answers.ts"
import type { WireRequest } from "../../src/wire/native.ts"

type Answered = Exclude<Answer, ClosingNotice>

/** Asks exactly one node, over one connection to its native door. The client would choose among them. */
export class NodeAsker {
  readonly node: NodeId
  private readonly connection: Connection

  private constructor(node: NodeId, connection: Connection) {
    this.node = node
    this.connection = connection
  }

  static async open(node: NodeId, endpoint: string): Promise<NodeAsker> {
    const [host, port] = endpoint.split(":") as [string, string]
    const connection = await new Promise<Connection>((resolve, reject) => {
      new Connection({
        ...{ address: endpoint, host, port: Number(port) },
        ...{ handshakeTimeoutMs: 5000, internal: false, nowMs: () => performance.now() },
        events: {
          opened: (opened) => {
            resolve(opened)
            return undefined
          },
          closed: (_, reason) => reject(new Error(`${endpoint}: ${reason}`)),
        },
      })
    })
    return new NodeAsker(node, connection)
  }

  private ask(request: WireRequest): Promise<Answered> {
    return new Promise((resolve, reject) => {
      const waiting: Waiting = { answered: resolve, lost: (reason) => reject(new Error(reason)) }
      if (!this.connection.send(request, waiting)) reject(new Error("the connection is full"))
    })
  }

  async routes(): Promise<Routes> {
    const answer = await this.ask({ _tag: "AskRoutes", id: 0 })
    if (answer._tag !== "Routes") throw new Error(`asked for routes, got ${answer._tag}`)
    return answer.routes
  }

  async status(): Promise<EventualStatus> {
    const answer = await this.ask({ _tag: "AskStatus", id: 0 })
    if (answer._tag !== "Status") throw new Error(`asked for status, got ${answer._tag}`)
    return answer.status.eventual
  }

  async eventual(request: EventualRequest): Promise<EventualReply> {
    const answer = await this.ask({ _tag: "Eventual", id: 0, request })
    if (answer._tag !== "Eventual") throw new Error(JSON.stringify(answer))
    return answer.reply
  }

  close(): void {
    this.connection.close("done")
  }
}

/** Adds members to sets through the nodes of one side of a cut, many at a time, and notes what was acknowledged. */
export class SideWriters {
  private readonly name: string
  private readonly askers: ReadonlyArray<NodeAsker>
  private readonly namespace: NamespaceInfo
  private readonly keys: number
  private readonly prng: Prng
  /** Members acknowledged, by key. */
  readonly acknowledged = new Map<string, Array<string>>()
  written = 0
  /** By what was answered instead. */
  readonly failed = new Map<string, number>()
  private count = 0
  private stopping = false
  private running: Promise<unknown> = Promise.resolve()

  constructor(options: {
    readonly name: string
    readonly askers: ReadonlyArray<NodeAsker>
    readonly namespace: NamespaceInfo
    readonly keys: number
    readonly seed: number
  }) {
    this.name = options.name
    this.askers = options.askers
    this.namespace = options.namespace
    this.keys = options.keys
    this.prng = new Prng(options.seed)
  }

  get calls(): number {
    return this.written + [...this.failed.values()].reduce((sum, each) => sum + each, 0)
  }

  /** Each key once, in turn. */
  async fill(writers: number): Promise<void> {
    const nextKey = () => (this.count < this.keys ? `cart${this.count++}` : undefined)
    await Promise.all(Array.from({ length: writers }, (_, i) => this.write(i, nextKey)))
  }

  start(writers: number): void {
    const nextKey = () => {
      this.count++
      return this.stopping ? undefined : `cart${this.prng.int(0, this.keys - 1)}`
    }
    this.running = Promise.all(Array.from({ length: writers }, (_, i) => this.write(i, nextKey)))
  }

  async stop(): Promise<void> {
    this.stopping = true
    await this.running
  }

  private async write(writer: number, nextKey: () => string | undefined): Promise<void> {
    const asker = this.askers[writer % this.askers.length] as NodeAsker
    for (let key = nextKey(); key !== undefined; key = nextKey()) {
      const member = `${this.name}${this.count}-${writer}`
      const reply = await asker.eventual({
        ...{ _tag: "EventualWrite", token: 0, namespace: this.namespace.id, level: undefined },
        ...{ deadlineMs: 5000, key: utf8(key), context: undefined, strict: false, requestId: 0 },
        change: { _tag: "Add", member: utf8(member) },
      })
      if (reply._tag !== "EventualWritten") {
        const why = reply._tag === "EventualRefused" ? reply.refusal._tag : reply._tag
        this.failed.set(why, (this.failed.get(why) ?? 0) + 1)
        continue
      }
      this.written++
      const members = this.acknowledged.get(key)
      if (members === undefined) this.acknowledged.set(key, [member])
      else members.push(member)
    }
  }
}

/** Whether nodes say that they owe each other nothing, and that whatever they share was compared and found equal. */
export async function isConverged(askers: ReadonlyArray<NodeAsker>): Promise<boolean> {
  const told = await Promise.all(askers.map((asker) => asker.status()))
  return told.every(
    ({ hints, divergence }) =>
      hints.length === 0 &&
      divergence.length === askers.length - 1 &&
      divergence.every(({ keys, runsUnknown }) => keys + runsUnknown === 0),
  )
}

/** What each owner holds of each key of a namespace, node by node. */
export class Replicas {
  /** By key: the owner's number and the state that it holds, as hex. */
  private readonly byKey = new Map<string, Array<string>>()
  private readonly copies: number

  private constructor(copies: number) {
    this.copies = copies
  }

  static async read(
    askers: ReadonlyArray<NodeAsker>,
    { id, eventual }: NamespaceInfo,
  ): Promise<Replicas> {
    const copies = eventual?.copies ?? 0
    const replicas = new Replicas(copies)
    await Promise.all(askers.map((asker) => replicas.readNode(asker, id)))
    return replicas
  }

  private async readNode(asker: NodeAsker, namespace: NamespaceId): Promise<void> {
    const { ring } = await asker.routes()
    if (ring === undefined) throw new Error(`n${asker.node} knows no ring`)
    const slots = slotsOf(asker.node, decodeRing(ring), this.copies)
    let after: EventualEntries["next"]
    do {
      const reply: EventualReply = await asker.eventual({
        ...{ _tag: "EventualPage", token: 0, namespace, level: undefined, deadlineMs: 10_000 },
        ...{ slots, prefix: utf8(""), after, limit: 1000 },
      })
      if (reply._tag !== "EventualEntries") throw new Error(JSON.stringify(reply))
      for (const { key, state } of reply.entries) {
        const held = this.byKey.get(text(key))
        if (held === undefined) this.byKey.set(text(key), [toHex(state)])
        else held.push(toHex(state))
      }
      after = reply.next
    } while (after !== undefined)
  }

  get keys(): number {
    return this.byKey.size
  }

  /** Keys of which not all owners hold the same bytes. */
  get differing(): number {
    let count = 0
    for (const held of this.byKey.values()) {
      const isEqual = held.length === this.copies && held.every((each) => each === held[0])
      if (!isEqual) count++
    }
    return count
  }

  /** Members of which a set that is the same everywhere knows nothing. */
  missing(acknowledged: ReadonlyMap<string, ReadonlyArray<string>>): ReadonlyArray<string> {
    const missing: Array<string> = []
    for (const [key, members] of acknowledged) {
      const state = this.byKey.get(key)?.[0]
      const view = state === undefined ? undefined : viewOf(Buffer.from(state, "hex"))
      const held = new Set(view?._tag === "Set" ? view.members.map(text) : [])
      for (const member of members) if (!held.has(member)) missing.push(`${key}: ${member}`)
    }
    return missing
  }
}

/** Runs of slots that a node owns. */
function slotsOf(
  node: NodeId,
  ring: ReturnType<typeof decodeRing>,
  copies: number,
): ReadonlyArray<number> {
  const owners = new SlotOwners()
  const runs: Array<number> = []
  for (let slot = 0; slot < slotCount; slot++) {
    ring.owners(slot, copies, owners)
    if (!owners.nodes.subarray(0, owners.count).includes(node)) continue
    const last = runs.length
    if (last > 0 && (runs[last - 2] as number) + (runs[last - 1] as number) === slot) {
      runs[last - 1] = (runs[last - 1] as number) + 1
    } else runs.push(slot, 1)
  }
  return runs
}
