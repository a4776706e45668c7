import type { ByteReader } from "../../lib/byteReader.ts"
import type { MonotonicMs, NodeId, Slot } from "../../types.ts"
import type { SlotPlan } from "../coordinator/slotPlan.ts"
import type { CoordinatorHost, CoordinatorOptions, StandInPort } from "./coordinatorHost.ts"
import { CounterRetries } from "./counterRetries.ts"
import { opCodes } from "./opCodes.ts"
import type { Owner } from "./owner.ts"
import { Plans } from "./plans.ts"
import type { EventualNamespace, NodeHost, OwnersView } from "./ports.ts"
import { Reads } from "./reads.ts"
import { readVerdict } from "./requestOps.ts"
import type {
  EventualRead,
  EventualRefusal,
  EventualReply,
  EventualRequest,
  EventualWrite,
} from "./requests.ts"
import { Writes } from "./writes.ts"

/**
 * All requests that this node coordinates: it knows the ring, mints dots, asks owners and stand-ins (`coordinator/` has one write and one read), and answers. Requests
 * are numbered from a start that is drawn anew at each start of the node, so that answers to an earlier life are nobody's. Writes are in writes.ts, reads in reads.ts.
 *
 * A request works by one version of the ring, until this node learns of one by which the slot has changed: then it is planned anew, under another number, so that what was
 * answered by the old plan counts no more. Whoever is told `moved`, and knows of no such ring, waits for it as long as the request may take.
 *
 * Invariants:
 * - each request is answered exactly once;
 * - a write leaves when its dot is durable, an answer when what it reflects is;
 * - what is refused by anything but `WriteUnknown` has changed nothing.
 */
export class Coordinators implements CoordinatorHost {
  readonly host: NodeHost
  readonly owner: Owner
  readonly standIn: StandInPort
  readonly options: CoordinatorOptions
  readonly retries = new CounterRetries()
  /** By the version of the ring in force. */
  private plans: Plans | undefined
  private readonly newOwners: () => OwnersView
  private readonly writes: Writes
  private readonly reads: Reads
  private replies: Array<EventualReply> = []
  private lastId: number

  constructor(parts: {
    readonly host: NodeHost
    readonly owner: Owner
    readonly standIn: StandInPort
    readonly options: CoordinatorOptions
    readonly newOwners: () => OwnersView
    readonly firstId: number
  }) {
    this.host = parts.host
    this.owner = parts.owner
    this.standIn = parts.standIn
    this.options = parts.options
    this.newOwners = parts.newOwners
    this.lastId = parts.firstId
    this.writes = new Writes(this)
    this.reads = new Reads(this)
  }

  /** Requests under way, those among them that have been answered. */
  get count(): number {
    return this.writes.count + this.reads.count
  }

  get hasRoom(): boolean {
    return this.writes.count + this.reads.openCount < this.options.requestsMax
  }

  planOf(namespace: EventualNamespace, slot: Slot): SlotPlan | undefined {
    const { ring, node } = this.host
    if (ring === undefined) return undefined
    if (this.plans?.ring !== ring) {
      this.plans = new Plans({ ring, node, newOwners: this.newOwners })
    }
    return this.plans.of(namespace, slot)
  }

  isOutdated({ ringVersion }: SlotPlan, slot: Slot): boolean {
    return this.host.ring?.verdictOf(slot, ringVersion) === "moved"
  }

  nextId(): number {
    return this.lastId++
  }

  // ---- Requests

  write(request: EventualWrite): void {
    const refusal = this.writes.begin(request)
    if (refusal !== undefined) this.refuse(request, refusal)
  }

  read(request: EventualRead): void {
    const refusal = this.reads.begin(request)
    if (refusal !== undefined) this.refuse(request, refusal)
  }

  refuse({ token }: EventualRequest, refusal: EventualRefusal): void {
    this.answer({ _tag: "EventualRefused", token, refusal }, false)
  }

  answer(reply: EventualReply, wasWritten: boolean): void {
    this.replies.push(reply)
    const others = this.retries.answered(reply, wasWritten)
    if (others.length > 0) this.replies.push(...others)
  }

  // ---- Progress

  /** Answers of owners and stand-ins. */
  receive(from: NodeId, code: number, body: ByteReader): void {
    const op = readVerdict(body)
    if (code === opCodes.fetched) this.reads.fetched(from, op)
    else if (!this.writes.stored(from, op)) this.reads.repaired(from, op)
  }

  /** What was put up to this mark is durable. */
  durable(mark: number, nowMs: MonotonicMs): void {
    this.writes.durable(mark, nowMs)
    this.reads.durable(mark)
  }

  unreachable(node: NodeId): void {
    this.writes.unreachable(node)
    this.reads.unreachable(node)
  }

  /** A newer ring is in force. */
  ringChanged(): void {
    this.writes.ringChanged()
    this.reads.ringChanged()
  }

  tick(): void {
    this.writes.tick()
    this.reads.tick()
    this.retries.forget(this.host.clock.monotonicMs)
  }

  isUnderWay(token: number): boolean {
    return this.writes.isUnderWay(token) || this.reads.isUnderWay(token)
  }

  /** Answers all that has not been answered, as well as can be told, when this half of the node begins again in place (server/eventualHalf.ts). */
  abandon(refusal: EventualRefusal): void {
    this.writes.abandon()
    this.reads.abandon(refusal)
  }

  takeReplies(): ReadonlyArray<EventualReply> {
    const { replies } = this
    if (replies.length > 0) this.replies = []
    return replies
  }
}
