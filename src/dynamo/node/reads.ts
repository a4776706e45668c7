import { slotOf } from "../../lib/slot.ts"
import type { MonotonicMs, NodeId, Slot } from "../../types.ts"
import { type ReadReply, ReadRequest } from "../coordinator/readRequest.ts"
import type { Level, SlotPlan } from "../coordinator/slotPlan.ts"
import { expireState } from "../keyState.ts"
import { type CoordinatorHost, noRing, tooMany, unknownNamespace } from "./coordinatorHost.ts"
import { opCodes } from "./opCodes.ts"
import type { EventualNamespace } from "./ports.ts"
import { readReceipt } from "./receipts.ts"
import { readDigest, type VerdictOp, verdicts, writeFetch, writeStore } from "./requestOps.ts"
import type { EventualRead, EventualRefusal, EventualReply } from "./requests.ts"

interface ReadUnderWay {
  id: number
  readonly token: number
  readonly namespace: EventualNamespace
  plan: SlotPlan
  readonly slot: Slot
  readonly key: Uint8Array
  request: ReadRequest
  readonly level: Level
  readonly deadlineMs: MonotonicMs
  /** What the answer reflects of this node is durable with it. */
  mark: number
  /** It was answered, and owners that were asked are waited for still. */
  isLate: boolean
}

/** One in so many of the requests that may be under way may be such a read: while an owner is silent they would take all places. */
const latePart = 16

/** The reads that a node coordinates (coordinators.ts). */
export class Reads {
  private readonly parts: CoordinatorHost
  private readonly reads = new Map<number, ReadUnderWay>()
  private lateCount = 0
  /** Answers that wait until what they reflect is durable. */
  private held: Array<{ readonly mark: number; readonly reply: EventualReply }> = []

  constructor(parts: CoordinatorHost) {
    this.parts = parts
  }

  get count(): number {
    return this.reads.size
  }

  /** Those that were not answered yet. */
  get openCount(): number {
    return this.reads.size - this.lateCount
  }

  /** Begins, or says why not. */
  begin(request: EventualRead): EventualRefusal | undefined {
    const { parts } = this
    const { host } = parts
    const namespace = host.namespaces.get(request.namespace)
    if (namespace === undefined) return unknownNamespace(request.namespace)
    const { token, key } = request
    const slot = slotOf(key)
    const plan = parts.planOf(namespace, slot)
    if (plan === undefined) return noRing
    if (!parts.hasRoom) return tooMany
    const level = request.level ?? namespace.read
    const deadlineMs = host.clock.monotonicMs + request.deadlineMs
    const read: ReadUnderWay = {
      id: parts.nextId(),
      token,
      namespace,
      plan,
      slot,
      key,
      request: this.requestOf(plan, level, deadlineMs),
      level,
      deadlineMs,
      mark: 0,
      isLate: false,
    }
    this.reads.set(read.id, read)
    this.advance(read)
    return undefined
  }

  private requestOf(plan: SlotPlan, level: Level, deadlineMs: MonotonicMs): ReadRequest {
    const { host, options } = this.parts
    const { patienceMs } = options
    const startedAtMs = host.clock.monotonicMs
    return new ReadRequest({ plan, level, patienceMs, startedAtMs, deadlineMs })
  }

  /** Begins anew by the ring in force. */
  private replan(read: ReadUnderWay): void {
    const { parts } = this
    this.forget(read)
    const plan = parts.planOf(read.namespace, read.slot)
    if (plan === undefined || !read.request.isOpen) return
    read.id = parts.nextId()
    read.plan = plan
    read.request = this.requestOf(plan, read.level, read.deadlineMs)
    this.reads.set(read.id, read)
    this.advance(read)
  }

  private forget(read: ReadUnderWay): void {
    if (this.reads.delete(read.id) && read.isLate) this.lateCount--
  }

  // ---- Progress

  private advance(read: ReadUnderWay): void {
    const { request } = read
    for (;;) {
      const { asks, digestAsks, repairs, state, reply, done } = request.take()
      for (let i = 0; i < asks.length; i++) this.ask(read, asks[i], false)
      for (let i = 0; i < digestAsks.length; i++) this.ask(read, digestAsks[i], true)
      if (state !== undefined) {
        for (let i = 0; i < repairs.length; i++) this.repair(read, repairs[i], state)
      }
      if (reply !== undefined) this.finish(read, reply)
      if (done) return this.forget(read)
      if (asks.length + digestAsks.length + repairs.length === 0) return
    }
  }

  private ask(read: ReadUnderWay, target: NodeId, digest: boolean): void {
    const { host, owner } = this.parts
    const { id, namespace, plan, slot, key, request } = read
    if (target === host.node) {
      if (host.isRefilling(slot)) return request.failedAt(target, host.clock.monotonicMs)
      read.mark = owner.markOf(namespace.id, slot)
      request.answeredBy(target, owner.state(namespace.id, slot, key), host.clock.monotonicMs)
    } else if (!host.isUp(target)) request.failedAt(target, host.clock.monotonicMs)
    else {
      const { ringVersion } = plan
      host.outbox.send(target, opCodes.fetch, 0, (out) =>
        writeFetch(out, { id, namespace: namespace.id, ringVersion, digest, key }),
      )
    }
  }

  private repair(read: ReadUnderWay, target: NodeId, state: Uint8Array): void {
    const { host, owner } = this.parts
    const { id, namespace, plan, slot, key, request, mark } = read
    const nowMs = host.clock.monotonicMs
    if (target === host.node) {
      const isMerged = !host.store.isFull && owner.merge(namespace.id, slot, key, state)
      if (!isMerged) return request.failedAt(target, nowMs)
      // The answer waits until that is durable.
      read.mark = owner.markOf(namespace.id, slot)
      request.repairedBy(target, nowMs)
    } else if (!host.isUp(target)) request.failedAt(target, nowMs)
    else {
      const { ringVersion, copies } = plan
      const op = { id, namespace: namespace.id, ringVersion, hintFor: 0, copies, key, state }
      host.outbox.send(target, opCodes.store, mark, (out) => writeStore(out, op))
    }
  }

  private finish(read: ReadUnderWay, reply: ReadReply): void {
    const { host } = this.parts
    const { token, namespace, plan, level, mark } = read
    this.keepLate(read)
    if (reply._tag === "QuorumUnavailable") {
      const refusal = { _tag: "LevelUnavailable", level, answered: reply.answered } as const
      return this.parts.answer({ _tag: "EventualRefused", token, refusal }, false)
    }
    const { state, answered, repairs } = reply
    const by = { coordinator: host.node, namespace, plan }
    const receipt = readReceipt(by, { asked: level, answered, repairs })
    const shown = state === undefined ? undefined : expireState(state, host.clock.wallMs)
    const value = { _tag: "EventualValue", token, state: shown, receipt } as const
    if (mark > host.store.durableMark) this.held.push({ mark, reply: value })
    else this.parts.answer(value, false)
  }

  private keepLate(read: ReadUnderWay): void {
    if (this.lateCount * latePart >= this.parts.options.requestsMax) return this.forget(read)
    read.isLate = true
    this.lateCount++
  }

  /** An owner's answer. */
  fetched(from: NodeId, { id, verdict, state }: VerdictOp): void {
    const read = this.reads.get(id)
    if (read === undefined) return
    const nowMs = this.parts.host.clock.monotonicMs
    if (verdict === verdicts.done) read.request.answeredBy(from, state, nowMs)
    else if (verdict === verdicts.digest) read.request.digestedBy(from, readDigest(state), nowMs)
    else return this.refused(read, from, verdict)
    this.advance(read)
  }

  /** An owner's answer to a repair. */
  repaired(from: NodeId, { id, verdict }: VerdictOp): void {
    const read = this.reads.get(id)
    if (read === undefined) return
    if (verdict !== verdicts.done) return this.refused(read, from, verdict)
    read.request.repairedBy(from, this.parts.host.clock.monotonicMs)
    this.advance(read)
  }

  private refused(read: ReadUnderWay, from: NodeId, verdict: number): void {
    const { request } = read
    const nowMs = this.parts.host.clock.monotonicMs
    if (verdict === verdicts.moved) {
      if (this.parts.isOutdated(read.plan, read.slot)) return this.replan(read)
      request.movedAt(from, nowMs)
    } else if (verdict === verdicts.behind) request.behindAt(from, nowMs)
    else request.failedAt(from, nowMs)
    this.advance(read)
  }

  /** What was put up to this mark is durable. */
  durable(mark: number): void {
    let ready = 0
    while (ready < this.held.length && this.held[ready].mark <= mark) ready++
    if (ready === 0) return
    for (const { reply } of this.held.splice(0, ready)) this.parts.answer(reply, false)
  }

  unreachable(node: NodeId): void {
    const nowMs = this.parts.host.clock.monotonicMs
    for (const read of this.reads.values()) {
      read.request.failedAt(node, nowMs)
      this.advance(read)
    }
  }

  isUnderWay(token: number): boolean {
    return [...this.reads.values()].some((read) => !read.isLate && read.token === token)
  }

  abandon(refusal: EventualRefusal): void {
    const open = [...this.reads.values()].filter(({ isLate }) => !isLate)
    // What those reflect that wait may be durable or not: nobody will tell any more.
    for (const { token } of [...open, ...this.held.map(({ reply }) => reply)]) {
      this.parts.answer({ _tag: "EventualRefused", token, refusal }, false)
    }
    this.reads.clear()
    this.lateCount = 0
    this.held = []
  }

  ringChanged(): void {
    for (const read of [...this.reads.values()]) {
      if (this.parts.isOutdated(read.plan, read.slot)) this.replan(read)
    }
  }

  tick(): void {
    const nowMs = this.parts.host.clock.monotonicMs
    for (const read of this.reads.values()) {
      read.request.tick(nowMs)
      this.advance(read)
    }
  }
}
