import { HybridClock } from "../../lib/hybridClock.ts"
import { isInt64 } from "../../lib/int64.ts"
import { slotOf } from "../../lib/slot.ts"
import type { MonotonicMs, NodeId, Slot } from "../../types.ts"
import { decodeToken } from "../contextToken.ts"
import { copiesOf, type Level, type SlotPlan } from "../coordinator/slotPlan.ts"
import {
  canBegin,
  type StoreMessage,
  type WriteReply,
  WriteRequest,
} from "../coordinator/writeRequest.ts"
import { counterValue } from "../crdt/counter.ts"
import { latestStamp } from "../lww.ts"
import type { SeenDots } from "../slotClock.ts"
import { changedState, changeProblem } from "./changes.ts"
import {
  type CoordinatorHost,
  type MakeState,
  noRing,
  tooMany,
  unknownNamespace,
} from "./coordinatorHost.ts"
import { opCodes } from "./opCodes.ts"
import type { EventualNamespace } from "./ports.ts"
import { writeReceipt } from "./receipts.ts"
import { type VerdictOp, verdicts, writeStore } from "./requestOps.ts"
import type { EventualRefusal, EventualWrite } from "./requests.ts"

interface WriteUnderWay {
  id: number
  readonly token: number
  readonly namespace: EventualNamespace
  plan: SlotPlan
  readonly slot: Slot
  readonly key: Uint8Array
  readonly request: WriteRequest
  readonly level: Level
  readonly state: Uint8Array
  /** With it this node holds the write durably, as the plan has it. */
  mark: number
  /** This node holds the write for its owners, as one of them or as a hint. */
  holds: boolean
}

/** The writes that a node coordinates (coordinators.ts). */
export class Writes {
  private readonly parts: CoordinatorHost
  private readonly hybrid = new HybridClock()
  private readonly writes = new Map<number, WriteUnderWay>()
  /** Those that are not durable here yet, in order of mark. */
  private gated: Array<WriteUnderWay> = []

  constructor(parts: CoordinatorHost) {
    this.parts = parts
  }

  get count(): number {
    return this.writes.size
  }

  /** Begins, or says why not. */
  begin(request: EventualWrite): EventualRefusal | undefined {
    const { parts } = this
    const { host, owner, retries } = parts
    const { change, key, strict, token, requestId } = request
    const namespace = host.namespaces.get(request.namespace)
    if (namespace === undefined) return unknownNamespace(request.namespace)
    const problem = changeProblem(namespace.rule, change)
    if (problem !== undefined) return problem
    const slot = slotOf(key)
    const plan = parts.planOf(namespace, slot)
    if (plan === undefined) return noRing
    if (requestId > 0) {
      const known = retries.isRetry(requestId, token)
      if (known === true) return undefined
      if (known !== false) {
        parts.answer(known, true)
        return undefined
      }
      // It was taken before a restart, or longer ago than increments are remembered; carried out again it might count twice.
      if (request.isRetry === true) return { _tag: "WriteUnknown", receipt: undefined }
    }
    if (!parts.hasRoom) return tooMany
    if (requestId > 0 && retries.isFull) return tooManyIncrements
    if (host.store.isFull) return { _tag: "Overloaded", what: "this node has no room for writes" }
    const level = request.level ?? namespace.write
    const owns = this.owns(namespace, plan, slot)
    // A node that is to join the ring, or has left it, may not even stand in.
    if (!owns && (strict || !standsIn(plan, host.node))) {
      return { _tag: "RingMoved", ringVersion: plan.ringVersion }
    }
    const isUp = (node: NodeId) => node === host.node || host.isUp(node)
    if (!canBegin(plan, { level, strict }, isUp)) {
      return { _tag: "LevelUnavailable", level, answered: [] }
    }
    const place = { namespace: namespace.id, slot, key }
    const seen = owns ? owner.seen(namespace.id, slot) : undefined
    const make = this.maker(request, namespace, seen)
    if (typeof make !== "function") return make
    const state = owns ? owner.write(place, make) : parts.standIn.write(place, plan.copies, make)
    if (!(state instanceof Uint8Array)) return state
    const { monotonicMs } = host.clock
    if (requestId > 0) retries.begin(requestId, token, monotonicMs)
    const { mark } = host.store
    const write: WriteUnderWay = {
      id: parts.nextId(),
      token,
      namespace,
      plan,
      slot,
      key,
      request: new WriteRequest({
        plan,
        self: host.node,
        level,
        strict,
        lsn: mark,
        patienceMs: parts.options.patienceMs,
        deadlineMs: monotonicMs + request.deadlineMs,
      }),
      level,
      state,
      mark,
      holds: true,
    }
    this.writes.set(write.id, write)
    this.gated.push(write)
    return undefined
  }

  private owns({ id }: EventualNamespace, { owners }: SlotPlan, slot: Slot): boolean {
    const { host, owner } = this.parts
    if (owner.actorOf(id, slot) === undefined) return false
    for (let i = 0; i < owners.count; i++) if (owners.nodes[i] === host.node) return true
    return false
  }

  /** What the write does to its key, once it has a dot. */
  private maker(
    { change, context, key }: EventualWrite,
    { rule, id }: EventualNamespace,
    seen: SeenDots | undefined,
  ): MakeState | EventualRefusal {
    const token = context === undefined ? undefined : decodeToken(context, id, key)
    if (context !== undefined && token?.rule !== rule) {
      return { _tag: "BadContext", message: "the context is none of this key" }
    }
    const { host, options } = this.parts
    const { wallMs } = host.clock
    const stamped = rule === "lww" || rule === "register"
    const nowUs = wallUs(wallMs)
    const aheadUs = options.clockAheadMaxMs * 1000
    if (stamped && token !== undefined && !this.hybrid.take(token.stamp, nowUs, aheadUs)) {
      return clockAhead
    }
    return (local, dot) => {
      const known = stamped && local !== undefined ? latestStamp(local) : 0
      if (!this.hybrid.take(known, nowUs, aheadUs)) return clockAhead
      const stamp = stamped ? this.hybrid.stamp(nowUs) : 0
      return changedState({ rule, local, dot, context: token?.seen, stamp, wallMs, seen }, change)
    }
  }

  // ---- Progress

  /** Begins anew by the ring in force; the write is here, and becomes the new owners' wherever this node stands now. */
  private replan(write: WriteUnderWay): void {
    const { parts } = this
    const { host, owner, standIn } = parts
    const { namespace, slot, key, state } = write
    const plan = parts.planOf(namespace, slot)
    if (plan === undefined) return
    const place = { namespace: namespace.id, slot, key }
    // An owner that it was not before has the write as a hint, if at all; and one that was an owner has it among what it forgets some day.
    write.holds = this.owns(namespace, plan, slot)
      ? owner.merge(namespace.id, slot, key, state)
      : standIn.keep(place, this.copiesWanted(write), state)
    this.writes.delete(write.id)
    write.id = parts.nextId()
    write.plan = plan
    write.mark = host.store.mark
    write.request.replan(plan, { lsn: write.mark, holds: write.holds })
    this.writes.set(write.id, write)
    const isGated = this.gated.includes(write)
    if (isGated) this.gated = this.gated.filter((each) => each !== write)
    if (write.mark > host.store.durableMark) this.gated.push(write)
    else this.release(write, host.clock.monotonicMs)
  }

  private release(write: WriteUnderWay, nowMs: MonotonicMs): void {
    write.request.durable(write.mark, nowMs)
    this.advance(write)
  }

  private advance(write: WriteUnderWay): void {
    const { request } = write
    for (;;) {
      const { messages, reply, done } = request.take()
      if (reply !== undefined) this.finish(write, reply)
      if (done) this.writes.delete(write.id)
      if (done || messages.length === 0) return
      for (const message of messages) this.send(write, message)
    }
  }

  private send(write: WriteUnderWay, { target, hintFor }: StoreMessage): void {
    const { host } = this.parts
    const { id, namespace, plan, key, state, request } = write
    if (target === host.node) {
      // What a stand-in has written itself it holds for all.
      if (write.holds) request.storedBy(target)
      else request.failedAt(target)
    } else if (!host.isUp(target)) request.failedAt(target)
    else {
      host.outbox.send(target, opCodes.store, write.mark, (out) =>
        writeStore(out, {
          id,
          namespace: namespace.id,
          ringVersion: plan.ringVersion,
          hintFor: hintFor ?? 0,
          copies: this.copiesWanted(write),
          key,
          state,
        }),
      )
    }
  }

  /** Owners that must have the write before a hint of it may be dropped. */
  private copiesWanted({ level, plan }: WriteUnderWay): number {
    return level === "localQuorum" ? 1 : copiesOf(level, plan.copies)
  }

  private finish(write: WriteUnderWay, { _tag, receipt }: WriteReply): void {
    const { token, namespace, plan, state } = write
    const told = writeReceipt({ coordinator: this.parts.host.node, namespace, plan }, receipt)
    if (_tag === "OutcomeUnknown") {
      const refusal = { _tag: "WriteUnknown", receipt: told } as const
      return this.parts.answer({ _tag: "EventualRefused", token, refusal }, true)
    }
    const lacks = this.parts.host.isRefilling(write.slot)
    const total = namespace.rule === "counter" && !lacks ? counterValue(state) : undefined
    // Of several actors the sum may need more than the 64 bits that each has.
    const counter = total !== undefined && isInt64(total) ? total : undefined
    this.parts.answer({ _tag: "EventualWritten", token, counter, receipt: told }, true)
  }

  /** The answer of an owner or stand-in; false: to none of these. */
  stored(from: NodeId, { id, verdict }: VerdictOp): boolean {
    const write = this.writes.get(id)
    if (write === undefined) return false
    const { request } = write
    if (verdict === verdicts.done) request.storedBy(from)
    else if (verdict === verdicts.behind) {
      request.behindAt(from, this.parts.host.clock.monotonicMs)
    } else if (verdict !== verdicts.moved) request.failedAt(from)
    else if (this.parts.isOutdated(write.plan, write.slot)) {
      this.replan(write)
      return true
    } else request.movedAt(from)
    this.advance(write)
    return true
  }

  /** What was put up to this mark is durable. */
  durable(mark: number, nowMs: MonotonicMs): void {
    let count = 0
    while (count < this.gated.length && this.gated[count].mark <= mark) count++
    if (count === 0) return
    for (const write of this.gated.splice(0, count)) this.release(write, nowMs)
  }

  unreachable(node: NodeId): void {
    for (const write of this.writes.values()) {
      write.request.failedAt(node)
      this.advance(write)
    }
  }

  isUnderWay(token: number): boolean {
    return [...this.writes.values()].some((write) => write.token === token)
  }

  abandon(): void {
    for (const { token, request } of this.writes.values()) {
      if (!request.isOpen) continue
      const refusal = { _tag: "WriteUnknown", receipt: undefined } as const
      this.parts.answer({ _tag: "EventualRefused", token, refusal }, true)
    }
    this.writes.clear()
    this.gated = []
  }

  ringChanged(): void {
    for (const write of [...this.writes.values()]) {
      if (this.parts.isOutdated(write.plan, write.slot)) this.replan(write)
    }
  }

  tick(): void {
    const nowMs = this.parts.host.clock.monotonicMs
    for (const write of this.writes.values()) {
      write.request.tick(nowMs)
      this.advance(write)
    }
  }
}

function standsIn({ standIns }: SlotPlan, self: NodeId): boolean {
  return standIns.some(({ node }) => node === self)
}

/** Microseconds since 2020, as stamps count them. */
function wallUs(wallMs: number): number {
  return Math.max(0, Math.floor((wallMs - 1_577_836_800_000) * 1000))
}

const tooManyIncrements: EventualRefusal = {
  _tag: "Overloaded",
  what: "the table of increments that may be asked for again",
}
const clockAhead: EventualRefusal = {
  _tag: "ClockAhead",
  message: "the value that it would replace has a stamp far ahead of this node's clock",
}
