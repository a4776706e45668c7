import { assert } from "../../lib/assert.ts"
import type { ByteReader } from "../../lib/byteReader.ts"
import type { Prng } from "../../lib/prng.ts"
import { slotCount } from "../../lib/slot.ts"
import type { MonotonicMs, NamespaceId, NodeId, RingVersion, Slot } from "../../types.ts"
import { ExchangeBudget } from "./exchangeBudget.ts"
import { type Divergence, ExchangeDifferences } from "./exchangeDifferences.ts"
import { ExchangeFills, type HandOverPort, type RunTask } from "./exchangeFills.ts"
import {
  type AnswerBody,
  type Heading,
  type Invite,
  type Question,
  readAnswer,
  readMessage,
  writeQuestion,
} from "./exchangeOps.ts"
import { ExchangePass } from "./exchangePass.ts"
import { isSameTask, type Peer, type Task, type UnderWay } from "./exchangePeer.ts"
import { Pull, type PullTarget } from "./exchangePull.ts"
import { ExchangeSource, type HeldSlots, markOfAll } from "./exchangeSource.ts"
import { slotsPerRun } from "./keys.ts"
import { opCodes } from "./opCodes.ts"
import type { NodeHost, RingPort } from "./ports.ts"
import type { Refills } from "./refills.ts"

export type { Divergence } from "./exchangeDifferences.ts"

export interface ExchangeOptions {
  /** Sent and received here for exchanges, of either role; at most, and at least while users feel them. */
  readonly bytesPerSecond: number
  readonly leastBytesPerSecond: number
  /** What a message costs beside its bytes: sums of a run's 64 slots, mostly. */
  readonly messageBytes: number
  /** A pass over all runs that are shared with one other node takes so long at least. */
  readonly passMs: number
  /** Runs that were found to differ are compared anew when they have not changed here for so long: much of what differs is on its way. */
  readonly quietMs: number
  /** A question that is not answered for so long is asked again. */
  readonly patienceMs: number
  /** And the pull is given up after so many times. */
  readonly attemptsMax: number
  /** Before a node is tried again of which a pull was given up. */
  readonly restMs: number
  /** Others that pull from here at a time; more are told to wait. */
  readonly servedMax: number
  /** Of states in one message, beyond the first. */
  readonly pageBytes: number
}

export const exchangeDefaults: ExchangeOptions = {
  bytesPerSecond: 16 * 1024 * 1024,
  leastBytesPerSecond: 1024 * 1024,
  messageBytes: 2048,
  passMs: 60_000,
  quietMs: 1000,
  patienceMs: 500,
  attemptsMax: 6,
  restMs: 200,
  servedMax: 4,
  pageBytes: 64 * 1024,
}

/**
 * Anti-entropy and hand-over: owners of the same slots compare what they hold, for ever, and take over from each other what they lack (Dynamo 4.7; DESIGN section 4, "Repair", "Slot
 * clocks" and "Ring change"). A new owner is filled in the same way: it lacks everything.
 *
 * The idea. An owner *pulls* a run of 64 slots from another: it takes over all that the other has seen, and at the end the other's slot clocks (`exchangePull.ts` has the steps and why
 * the clocks are then true). Who is asked remembers nothing (`exchangeSource.ts`). A complete exchange both ways is two pulls; whoever has ended one in which something differed
 * invites the other to the second.
 *
 * The flow.
 *   1. A pass goes over all runs shared with one other node, in an order drawn anew each time, one pull after another (`exchangePass.ts`). Equal runs cost a question and an
 *      answer of some thirty bytes. Runs to be filled, and those that the other node has invited to, go first. After a time out of reach a pass is made in a hurry.
 *   2. A question that gets no answer, or `busy`, is asked again in the same bytes: whatever comes back is of after the pull was opened.
 *   3. What came of it goes into the numbers (`divergence`) and, where the other hands a slot over, into what is filled (`exchangeFills.ts`).
 *
 * Invariants:
 * - one pull at a time from each other node, and no more that begin here than `servedMax` at a time;
 * - what is sent in a second is bounded by the budget, but for a page that was begun; and nothing is asked for while the store has no room;
 * - a question leaves, as an answer does, when all that it says of this node is durable;
 * - an answer counts for the very question that it answers, of this life of the node.
 *
 * Left out: tombstones are not compared. Each owner reaps by itself, so that equal replicas may hold different ones (reaper.ts).
 */
export class Exchanges {
  protected readonly host: NodeHost
  protected readonly owner: HeldSlots
  protected readonly options: ExchangeOptions
  private readonly prng: Prng
  private readonly source: ExchangeSource
  private readonly fills: ExchangeFills
  /** By node and namespace, then run. */
  private readonly shared = new Map<string, Array<ReadonlyArray<Slot>>>()
  private readonly refills: Refills | undefined
  private readonly peers = new Map<NodeId, Peer>()
  /** Who pulls from here, and when it last asked. */
  private readonly served = new Map<NodeId, MonotonicMs>()
  private readonly budget: ExchangeBudget
  private nextId: number
  private knownRing: RingPort | undefined
  private knownNamespaces = ""

  constructor(parts: {
    readonly host: NodeHost
    readonly owner: HeldSlots
    readonly handOver: HandOverPort
    readonly refills?: Refills
    readonly prng: Prng
    readonly options: ExchangeOptions
  }) {
    const { host, owner, options, prng } = parts
    this.host = host
    this.owner = owner
    this.options = options
    this.prng = prng
    this.source = this.newSource()
    this.fills = this.newFills(parts.handOver)
    this.refills = parts.refills
    this.budget = new ExchangeBudget(options.bytesPerSecond, host.clock.monotonicMs)
    // Answers to an earlier life of this node are nobody's.
    this.nextId = prng.int(1, 2 ** 40)
  }

  protected newSource(): ExchangeSource {
    return new ExchangeSource(this.host, this.owner, this.options.pageBytes)
  }

  protected newFills(handOver: HandOverPort): ExchangeFills {
    return new ExchangeFills(this.host, this.owner, handOver)
  }

  protected newPull(target: PullTarget): Pull {
    return new Pull(this.owner, target, this.options.pageBytes)
  }

  // ---- What others ask

  /** Whether all of a slot is here that the step of the ring version `since` brings. */
  isFilled(namespace: NamespaceId, slot: Slot, since: RingVersion): boolean {
    return this.fills.isFilled(namespace, slot, since)
  }

  /** Slots of which all is here, of every namespace, and the versions that began to bring them. */
  filled(): ReadonlyArray<{ readonly slot: Slot; readonly since: RingVersion }> {
    return this.fills.filled()
  }

  /** In order of node. */
  divergence(): ReadonlyArray<Divergence> {
    const { monotonicMs } = this.host.clock
    const peers = [...this.peers.values()].sort((left, right) => left.node - right.node)
    return peers.map(({ node, differences, pass, underWay }) => {
      const { bytes } = differences
      return { node, ...differences.count(underWay, monotonicMs), runsUnknown: pass.waiting, bytes }
    })
  }

  /** Whether a pull is under way. */
  get isPulling(): boolean {
    for (const { underWay } of this.peers.values()) if (underWay !== undefined) return true
    return false
  }

  /** Makes room for what users ask, or takes it back. */
  throttle(bytesPerSecond: number): void {
    this.budget.bytesPerSecond = bytesPerSecond
  }

  // ---- Events

  /** The ring or the namespaces have changed. */
  ringChanged(): void {
    const { ring, namespaces } = this.host
    const names = [...namespaces.values()].map(({ id, rule, copies }) => `${id} ${rule} ${copies}`)
    const known = names.join()
    // Who tells does so whenever he hears of them, changed or not.
    if (ring === this.knownRing && known === this.knownNamespaces) return
    this.knownRing = ring
    this.knownNamespaces = known
    this.shared.clear()
    const members = new Set(ring?.nodes())
    for (const node of this.peers.keys()) if (!members.has(node)) this.peers.delete(node)
    for (const node of members) {
      if (node !== this.host.node && !this.peers.has(node)) this.peers.set(node, this.newPeer(node))
    }
    this.fills.ringChanged()
    this.refills?.ringChanged()
    const tasks = this.fills.tasks()
    const refills = this.refills?.tasks()
    for (const peer of this.peers.values()) {
      const urgent = [...(tasks.get(peer.node) ?? []), ...(refills?.get(peer.node) ?? [])]
      peer.urgent = [...this.prng.shuffle(urgent)]
      peer.differences.keep((task) => this.sharedSlots(task, peer.node).length > 0)
    }
  }

  private newPeer(node: NodeId): Peer {
    const pass = new ExchangePass(this.options.passMs, this.prng.fork())
    pass.hurry(this.sharedRuns(node))
    const differences = new ExchangeDifferences()
    return { node, isUp: true, underWay: undefined, urgent: [], pass, restUntilMs: 0, differences }
  }

  tick(): void {
    const { monotonicMs } = this.host.clock
    for (const [node, sinceMs] of this.served) {
      if (monotonicMs - sinceMs > this.options.restMs) this.served.delete(node)
    }
    for (const peer of this.peers.values()) {
      if (peer.underWay !== undefined) this.watch(peer, peer.underWay)
      const isUp = this.host.isUp(peer.node)
      // Much may differ when it is back.
      if (peer.isUp && !isUp) peer.pass.hurry(this.sharedRuns(peer.node))
      peer.isUp = isUp
      this.lookAgain(peer)
      if (peer.underWay === undefined && isUp) this.begin(peer)
    }
  }

  private lookAgain(peer: Peer): void {
    const { monotonicMs } = this.host.clock
    const { quietMs } = this.options
    for (const task of peer.differences.due(monotonicMs, quietMs, (run) => this.markOf(run))) {
      if (!peer.urgent.some((other) => isSameTask(other, task))) peer.urgent.push(task)
    }
  }

  private markOf({ namespace, start }: RunTask): number {
    let mark = 0
    for (let slot = start; slot < start + slotsPerRun; slot++) {
      mark = Math.max(mark, this.owner.markOf(namespace, slot))
    }
    return mark
  }

  /** Throws `MalformedBytes`. */
  receive(from: NodeId, code: number, body: ByteReader): void {
    assert(code === opCodes.exchange, () => `a message of code ${code} is for another room`)
    const size = body.remaining
    const { message, ...heading } = readMessage(body)
    const peer = this.peers.get(from)
    this.spend(peer, size)
    if (message._tag === "AnswerBody") this.take(peer, heading, message)
    else if (message._tag === "Invite") this.invited(peer, message)
    else this.serve(from, heading, message)
  }

  private serve(from: NodeId, heading: Heading, question: Question): void {
    const { served, options } = this
    const { monotonicMs } = this.host.clock
    const isNew = question._tag === "Open" && !served.has(from)
    const isFull = isNew && served.size >= options.servedMax
    const isBusy = isFull || this.budget.isSpent(monotonicMs)
    if (!isBusy && question._tag !== "Compare") served.set(from, monotonicMs)
    const sent = this.source.answer(from, heading, question, isBusy)
    this.spend(this.peers.get(from), sent)
  }

  private invited(peer: Peer | undefined, { namespace, slots }: Invite): void {
    if (peer === undefined || !this.host.namespaces.has(namespace)) return
    const start = slots[0] - (slots[0] % slotsPerRun)
    const isKnown = peer.urgent.some((task) => isSameTask(task, { namespace, start }))
    if (!isKnown) peer.urgent.push({ namespace, start, isInvited: true })
    if (peer.underWay === undefined) this.begin(peer)
  }

  // ---- Pulls

  /** Begins pulls from a node until one has something to wait for. */
  private begin(peer: Peer): void {
    const { monotonicMs } = this.host.clock
    if (monotonicMs < peer.restUntilMs || this.host.ring === undefined) return
    for (;;) {
      const task = this.nextTask(peer)
      if (task === undefined) return
      const target = this.targetOf(task, peer.node)
      if (target === undefined) continue
      peer.underWay = {
        ...{ id: this.nextId++, task, pull: this.newPull(target) },
        ...{ step: 0, body: undefined, mark: 0, attempts: 0, askAgainMs: monotonicMs },
      }
      this.ask(peer, peer.underWay)
      return
    }
  }

  private nextTask(peer: Peer): Task | undefined {
    const urgent = peer.urgent.shift()
    if (urgent !== undefined) return urgent
    return peer.pass.next(this.host.clock.monotonicMs, () => this.sharedRuns(peer.node))
  }

  private sharedRuns(node: NodeId): ReadonlyArray<RunTask> {
    const tasks: Array<RunTask> = []
    for (const namespace of this.host.namespaces.keys()) {
      for (let start = 0; start < slotCount; start += slotsPerRun) {
        if (this.sharedSlots({ namespace, start }, node).length > 0)
          tasks.push({ namespace, start })
      }
    }
    return tasks
  }

  /** Slots of a run that this node and another own, or are about to; looked up once a ring. */
  private sharedSlots({ namespace, start }: RunTask, node: NodeId): ReadonlyArray<Slot> {
    const copies = this.host.namespaces.get(namespace)?.copies
    if (copies === undefined) return []
    const name = `${node}/${namespace}`
    let byRun = this.shared.get(name)
    if (byRun === undefined) {
      byRun = []
      this.shared.set(name, byRun)
    }
    const run = start / slotsPerRun
    byRun[run] ??= this.findShared(namespace, start, copies, node)
    return byRun[run]
  }

  private findShared(
    namespace: NamespaceId,
    start: Slot,
    copies: number,
    node: NodeId,
  ): ReadonlyArray<Slot> {
    const { ring } = this.host
    const slots: Array<Slot> = []
    for (let slot = start; slot < start + slotsPerRun; slot++) {
      if (this.owner.actorOf(namespace, slot) === undefined) continue
      if (ring?.isOwner(slot, copies, node) === true) slots.push(slot)
    }
    return slots
  }

  private targetOf(task: RunTask, node: NodeId): PullTarget | undefined {
    const rule = this.host.namespaces.get(task.namespace)?.rule
    const slots = this.sharedSlots(task, node)
    if (rule === undefined || slots.length === 0) return undefined
    return { namespace: task.namespace, rule, slots }
  }

  /** Asks the next question of a pull, when there is something left of the budget. */
  private ask(peer: Peer, underWay: UnderWay): void {
    underWay.body = undefined
    const { store, clock } = this.host
    if (store.isFull || this.budget.isSpent(clock.monotonicMs)) return
    const { pull } = underWay
    const { namespace, slots } = pull.target
    const question = pull.question()
    underWay.step++
    underWay.attempts = 0
    underWay.mark = markOfAll(
      this.owner,
      namespace,
      slots.map((slot) => ({ slot })),
    )
    this.host.outbox.send(peer.node, opCodes.exchange, underWay.mark, (out) => {
      const before = out.length
      writeQuestion(out, underWay, question)
      underWay.body = out.bytes().slice(before)
    })
    this.sent(peer, underWay)
  }

  private sent(peer: Peer, underWay: UnderWay): void {
    underWay.attempts++
    underWay.askAgainMs = this.host.clock.monotonicMs + this.options.patienceMs
    this.spend(peer, underWay.body?.length ?? 0)
  }

  /** Asks again, or gives up. */
  private watch(peer: Peer, underWay: UnderWay): void {
    const { body } = underWay
    if (body === undefined) {
      this.ask(peer, underWay)
      return
    }
    if (this.host.clock.monotonicMs < underWay.askAgainMs) return
    if (underWay.attempts >= this.options.attemptsMax || !this.host.isUp(peer.node)) {
      this.endOf(peer, underWay, true)
      return
    }
    this.host.outbox.send(peer.node, opCodes.exchange, underWay.mark, (out) => out.raw(body))
    this.sent(peer, underWay)
  }

  private take(peer: Peer | undefined, { id, step }: Heading, body: AnswerBody): void {
    const underWay = peer?.underWay
    if (peer === undefined || underWay?.id !== id || underWay.step !== step) return
    // The next question waits for the budget: this is the answer to the last one, for the second time.
    if (underWay.body === undefined) return
    const { pull } = underWay
    const answer = readAnswer(body, pull.places)
    // It is asked again when its time has come.
    if (answer._tag === "Busy" || this.host.store.isFull) return
    pull.take(answer)
    if (pull.outcome === undefined) this.ask(peer, underWay)
    else this.endOf(peer, underWay, pull.outcome === "broken")
  }

  private endOf(peer: Peer, { task, pull }: UnderWay, isBroken: boolean): void {
    const { monotonicMs } = this.host.clock
    const { namespace, slots } = pull.target
    peer.underWay = undefined
    // The ring may have moved meanwhile, and then nobody compares these slots again.
    const isShared = this.sharedSlots(task, peer.node).length > 0
    if (isShared) {
      const mark = this.markOf(task)
      peer.differences.note(task, { pull, isBroken, mark }, monotonicMs)
    }
    if (!isBroken) {
      const { ringVersion, refilling } = pull
      const pulled = { namespace, slots, source: peer.node, ringVersion, refilling }
      this.fills.note(pulled)
      this.refills?.note(pulled)
    }
    // Two who invited each other for ever would pull a run that is being written to without a pause.
    if (pull.outcome === "complete" && task.isInvited !== true) this.invite(peer, pull.target)
    const isWanted =
      this.fills.wants(task, peer.node) || this.refills?.wants(task, peer.node) === true
    if (isWanted) peer.urgent.push(task)
    else if (isBroken && isShared) peer.pass.failed(task)
    const isWaiting = isBroken || peer.urgent.some((other) => isSameTask(other, task))
    if (isWaiting) peer.restUntilMs = monotonicMs + this.options.restMs
    else this.begin(peer)
  }

  private invite(peer: Peer, { namespace, slots }: PullTarget): void {
    this.host.outbox.send(peer.node, opCodes.exchange, 0, (out) => {
      const before = out.length
      writeQuestion(out, { id: 0, step: 0 }, { _tag: "Invite", namespace, slots })
      this.spend(peer, out.length - before)
    })
  }

  private spend(peer: Peer | undefined, bytes: number): void {
    this.budget.spend(bytes + this.options.messageBytes)
    if (peer !== undefined) peer.differences.bytes += bytes
  }
}
