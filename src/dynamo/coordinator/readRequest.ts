import { equalBytes } from "../../lib/bytes.ts"
import { hash64 } from "../../lib/checksum.ts"
import type { MonotonicMs, NodeId } from "../../types.ts"
import { mergeStates, stateBytesMax } from "../keyState.ts"
import { askAgainMs, isReadMet, type Level, nodesIn, type SlotPlan } from "./slotPlan.ts"

/**
 * One read at its coordinator. Pure: inputs are methods, outputs are data.
 *
 * The flow.
 *   1. As many owners are asked as the level needs: the coordinator first, if it is one, for that costs no message. Each that fails, or is silent for
 *      `patienceMs`, has a spare asked in its stead. Owners alone count: a stand-in knows too little of the slot.
 *   2. One of them is asked for its state, and of the others a digest will do (Dynamo's successors: Cassandra's digest reads). Whether an owner saves anything by a digest it
 *      knows best, so that small states come whole, and cost no second question. A digest counts as an answer when it is that of a state that has come; the owner of any other is
 *      asked for its state.
 *   3. When the level is met, the states are merged, without a clock. If all are equal the client is answered.
 *   4. Otherwise each owner that answered with anything but the merged state is sent it (read repair), and the client is answered when owners that make up the level hold it: then
 *      every later read at such a level sees what this one saw (RELIABILITY AP pitfall 14). Level `one` promises nothing of the kind, and never waits.
 *   5. Owners that were asked and did not count go on being waited for, until the deadline: one that answers late with anything else is sent the merged state too.
 *
 * A read that is not met, or not repaired, by its deadline is `QuorumUnavailable`, as every level that is not achieved is refused: what it saw may be seen no more by the next
 * one, and to answer it as `quorum` would be a lie. Whoever wants it in any case reads at `one`. Nothing is written before the answer but repairs of what is there already, so it is
 * never `OutcomeUnknown`.
 *
 * An owner that says that the slot has moved does not count, and as long as one has said so the read waits for a newer plan: its driver then makes it anew (node/coordinators.ts).
 * One that is behind, and has yet to learn the ring of this read, is asked again and again, at longer and longer intervals.
 *
 * Invariants: at most one reply; a reply `read` at a level above `one` is given only while owners that make it up are known to hold the state shown, or it is too large to be sent.
 *
 * Left out: what a read found that differed is not repaired at owners it did not ask. And of a write that reached too few, read before a ring change by owners who all had it, the new
 * owners may know nothing: two reads on both sides of a ring change may disagree about it.
 */
export interface ReadStart {
  readonly plan: SlotPlan
  readonly level: Level
  readonly patienceMs: number
  readonly startedAtMs: MonotonicMs
  readonly deadlineMs: MonotonicMs
}

export type ReadReply =
  | {
      readonly _tag: "read"
      /** `undefined`: nobody who answered has anything of the key. */
      readonly state: Uint8Array | undefined
      /** Owners whose states are in it. */
      readonly answered: ReadonlyArray<NodeId>
      /** Owners that were sent `state`. */
      readonly repairs: ReadonlyArray<NodeId>
    }
  | { readonly _tag: "QuorumUnavailable"; readonly answered: ReadonlyArray<NodeId> }

/** What the caller has to do now; each call gives what is new since the one before. */
export interface ReadOutput {
  /** Owners to be asked for their state. */
  readonly asks: ReadonlyArray<NodeId>
  /** Owners of whose state a digest will do. */
  readonly digestAsks: ReadonlyArray<NodeId>
  /** Owners to be sent `state`, and to say when they hold it. */
  readonly repairs: ReadonlyArray<NodeId>
  readonly state: Uint8Array | undefined
  readonly reply: ReadReply | undefined
  /** Nothing more is to come. */
  readonly done: boolean
}

const none: ReadonlyArray<NodeId> = []

export class ReadRequest {
  private readonly start: ReadStart
  /** Bits of owners whose answers help the level. */
  private readonly useful: number
  private phase: "asking" | "repairing" | "replied" = "asking"
  /** By owner, of those that answered; until they are merged. */
  private states: Array<Uint8Array | undefined> = []
  private digests: Array<bigint> | undefined
  /** The merged state, and whose states are in it. */
  private state: Uint8Array | undefined
  private merged = 0
  private asks = none
  private digestAsks = none
  private repairs = none
  private reply: ReadReply | undefined
  private asked = 0
  private askedWhole = 0
  /** Their states are known. */
  private answered = 0
  /** Their digests are, and no state of that digest. */
  private digested = 0
  /** Bits of owners that failed, are behind or slow: not waited for, though their answers still count. */
  private doubtful = 0
  private failed = 0
  private moved = 0
  private behind = 0
  private askAgainAtMs: MonotonicMs = 0
  private askAgainAfterMs = askAgainMs
  /** They hold the merged state. */
  private held = 0
  /** They were sent it. */
  private repaired = 0
  private askedAtMs: MonotonicMs
  private done = false

  constructor(start: ReadStart) {
    const { plan, level } = start
    this.start = start
    const { readMask } = plan.owners
    this.useful = level === "localQuorum" ? readMask & plan.localMask : readMask
    this.askedAtMs = start.startedAtMs
    this.askMore()
  }

  /** Before the reply: then nobody counts on it any more. */
  get isOpen(): boolean {
    return this.phase !== "replied"
  }

  /** An owner answered with its state of the key; `undefined`: it has none. All it reflects is durable there. */
  answeredBy(node: NodeId, state: Uint8Array | undefined, nowMs: MonotonicMs): void {
    const i = this.indexOf(node)
    const bit = 1 << i
    if (this.done || i < 0 || (this.asked & ~this.answered & bit) === 0) return
    this.answered |= bit
    this.digested &= ~bit
    if (this.phase === "asking") {
      this.states[i] = state
      this.advance(nowMs)
    } else this.late(bit, isSame(state, this.state), nowMs)
  }

  /** An owner's state has this digest (`hash64`), and is the owner's answer if somebody else's has it too. */
  digestedBy(node: NodeId, digest: bigint, nowMs: MonotonicMs): void {
    const i = this.indexOf(node)
    const bit = 1 << i
    const awaited = this.asked & ~this.askedWhole & ~this.answered & ~this.digested
    if (this.done || i < 0 || (awaited & bit) === 0) return
    if (this.phase === "asking") {
      this.digested |= bit
      this.digests ??= []
      this.digests[i] = digest
      this.advance(nowMs)
      return
    }
    this.answered |= bit
    this.late(bit, this.state !== undefined && hash64(this.state) === digest, nowMs)
  }

  /** An owner that was sent the merged state holds it durably. */
  repairedBy(node: NodeId, nowMs: MonotonicMs): void {
    const i = this.indexOf(node)
    if (this.done || i < 0 || (this.repaired & (1 << i)) === 0) return
    this.held |= 1 << i
    this.advance(nowMs)
  }

  /** The owner refused, or is out of reach. Whatever it still says is taken. */
  failedAt(node: NodeId, nowMs: MonotonicMs): void {
    const bit = this.unsettled(node)
    if (bit === 0) return
    this.failed |= bit
    this.doubtful |= bit
    this.digested &= ~bit
    this.advance(nowMs)
  }

  /** The owner says that the slot has other owners by now. */
  movedAt(node: NodeId, nowMs: MonotonicMs): void {
    this.moved |= this.unsettled(node)
    this.failedAt(node, nowMs)
  }

  /** The owner does not know the ring of this read yet. */
  behindAt(node: NodeId, nowMs: MonotonicMs): void {
    const bit = this.unsettled(node)
    if (bit === 0) return
    if (this.behind === 0) this.askAgainAtMs = nowMs + this.askAgainAfterMs
    this.behind |= bit
    this.doubtful |= bit
    this.advance(nowMs)
  }

  tick(nowMs: MonotonicMs): void {
    if (this.done) return
    const { deadlineMs, patienceMs } = this.start
    if (nowMs >= deadlineMs) {
      this.refuse()
      this.done = true
      return
    }
    if (this.behind !== 0 && nowMs >= this.askAgainAtMs) this.askAgain()
    if (this.phase === "replied" || nowMs - this.askedAtMs < patienceMs) return
    if (this.phase === "repairing") this.doubtful |= this.repaired & ~this.held
    else this.doubtful |= this.asked & ~this.answered & ~(this.digested & ~this.askedWhole)
    this.advance(nowMs)
  }

  take(): ReadOutput {
    const { asks, digestAsks, repairs, state, reply, done } = this
    this.asks = none
    this.digestAsks = none
    this.repairs = none
    this.reply = undefined
    return { asks, digestAsks, repairs, state, reply, done }
  }

  // ---- Asking

  private advance(nowMs: MonotonicMs): void {
    if (this.phase === "repairing") return this.advanceRepair(nowMs)
    if (this.phase === "replied") return this.settle()
    const { plan, level } = this.start
    if (this.digested !== 0) this.matchDigests()
    if (isReadMet(plan, level, this.answered)) return this.merge(nowMs)
    const before = this.asked | (this.askedWhole << 16)
    if (this.digested !== 0) this.askForUnmatched()
    this.askMore()
    if ((this.asked | (this.askedWhole << 16)) !== before) this.askedAtMs = nowMs
    if (this.moved === 0 && !isReadMet(plan, level, this.useful & ~this.failed)) this.refuse()
  }

  /** Asks until the level is met if all that are asked and not in doubt answer. */
  private askMore(): void {
    const { plan, level } = this.start
    for (const i of plan.readOrder) {
      if (isReadMet(plan, level, this.answered | (this.asked & ~this.doubtful))) return
      if ((this.useful & ~this.asked & (1 << i)) !== 0) this.ask(i)
    }
  }

  /** Asks for a state unless one has come, or is on its way. */
  private ask(i: number): void {
    const bit = 1 << i
    this.asked |= bit
    const { nodes } = this.start.plan.owners
    if ((this.answered | (this.askedWhole & ~this.doubtful)) !== 0) {
      this.digestAsks = appended(this.digestAsks, nodes[i])
    } else {
      this.askedWhole |= bit
      this.asks = appended(this.asks, nodes[i])
    }
  }

  /** Takes each digest of a state that has come as that state. */
  private matchDigests(): void {
    const { digests, states } = this
    const { count } = this.start.plan.owners
    for (let from = 0; from < count; from++) {
      const state = states[from]
      if (state === undefined || (this.answered & (1 << from)) === 0) continue
      const digest = hash64(state)
      for (let i = 0; i < count; i++) {
        if ((this.digested & (1 << i)) === 0 || digests?.[i] !== digest) continue
        states[i] = state
        this.digested &= ~(1 << i)
        this.answered |= 1 << i
      }
      if (this.digested === 0) return
    }
  }

  /** Asks for the states of those whose digests are nobody's; where no state has come, nor will, for one of them. */
  private askForUnmatched(): void {
    const { nodes, count } = this.start.plan.owners
    for (let i = 0; i < count; i++) {
      if ((this.digested & ~this.askedWhole & (1 << i)) === 0) continue
      if (this.answered === 0 && (this.askedWhole & ~this.doubtful) !== 0) return
      this.askedWhole |= 1 << i
      this.asks = appended(this.asks, nodes[i])
    }
  }

  private askAgain(): void {
    const { nodes, count } = this.start.plan.owners
    for (let i = 0; i < count; i++) {
      const bit = 1 << i
      if ((this.behind & bit) === 0) continue
      if (this.phase !== "asking") this.repairs = appended(this.repairs, nodes[i])
      else if ((this.askedWhole & bit) !== 0) this.asks = appended(this.asks, nodes[i])
      else this.digestAsks = appended(this.digestAsks, nodes[i])
    }
    this.behind = 0
    this.askAgainAfterMs *= 2
  }

  // ---- Merging and repairing

  private merge(nowMs: MonotonicMs): void {
    const { count, readMask, writeMask } = this.start.plan.owners
    let state: Uint8Array | undefined
    for (let i = 0; i < count; i++) {
      const other = (this.answered & (1 << i)) === 0 ? undefined : this.states[i]
      if (other !== undefined) state = mergeStates(state, other)
    }
    this.state = state
    this.merged = this.answered
    for (let i = 0; i < count; i++) {
      const bit = 1 << i
      if ((this.answered & bit) !== 0 && isSame(this.states[i], state)) this.held |= bit
    }
    // Digests that the level did not need and that are nobody's.
    this.answered |= this.digested
    this.digested = 0
    this.states = []
    this.asked &= ~this.behind
    this.behind = 0
    const lacking = this.answered & ~this.held
    if (state === undefined || state.length > stateBytesMax || lacking === 0) return this.show()
    this.phase = "repairing"
    this.doubtful = this.failed
    this.askedAtMs = nowMs
    // Who is being filled may be past this key.
    this.repair(lacking | (writeMask & ~readMask))
    this.advance(nowMs)
  }

  private repair(mask: number): void {
    const { nodes, count } = this.start.plan.owners
    this.repaired |= mask
    for (let i = 0; i < count; i++) {
      if ((mask & (1 << i)) !== 0) this.repairs = appended(this.repairs, nodes[i])
    }
  }

  /** Shows the state when enough owners hold it; sends it to spares for those that are slow. */
  private advanceRepair(nowMs: MonotonicMs): void {
    const { plan, level } = this.start
    if (level === "one" || isReadMet(plan, level, this.held)) return this.show()
    for (let i = 0; i < plan.owners.count; i++) {
      if (isReadMet(plan, level, this.held | (this.repaired & ~this.doubtful))) break
      const bit = 1 << i
      if ((this.useful & ~this.held & ~this.repaired & ~this.failed & bit) === 0) continue
      this.repair(bit)
      this.askedAtMs = nowMs
    }
    const possible = this.held | (this.useful & ~this.failed)
    if (this.moved === 0 && !isReadMet(plan, level, possible)) this.refuse()
  }

  /** Somebody answers who was not needed, or not in time. */
  private late(bit: number, isEqual: boolean, nowMs: MonotonicMs): void {
    if (isEqual) this.held |= bit
    else if ((this.repaired & bit) === 0) this.repair(bit)
    this.advance(nowMs)
  }

  private show(): void {
    const { owners } = this.start.plan
    const answered = nodesIn(owners, this.merged)
    const repairs = this.repaired === 0 ? none : nodesIn(owners, this.repaired)
    this.phase = "replied"
    this.reply = { _tag: "read", state: this.state, answered, repairs }
    this.settle()
  }

  /** After the reply: whether a late answer could still change anything. */
  private settle(): void {
    const { state } = this
    const isFinal = state === undefined || state.length > stateBytesMax
    this.done ||= isFinal || (this.asked & ~this.answered & ~this.failed) === 0
  }

  private refuse(): void {
    if (this.phase === "replied") return
    this.phase = "replied"
    const answered = nodesIn(this.start.plan.owners, this.answered)
    this.reply = { _tag: "QuorumUnavailable", answered }
    this.done = true
  }

  // ---- Owners by bits

  /** The bit of an owner from which something is awaited, or 0. */
  private unsettled(node: NodeId): number {
    const i = this.indexOf(node)
    if (this.done || i < 0) return 0
    const awaited = (this.asked & ~this.answered) | (this.repaired & ~this.held)
    return awaited & (1 << i)
  }

  private indexOf(node: NodeId): number {
    const { owners } = this.start.plan
    for (let i = 0; i < owners.count; i++) if (owners.nodes[i] === node) return i
    return -1
  }
}

function isSame(left: Uint8Array | undefined, right: Uint8Array | undefined): boolean {
  if (left === undefined || right === undefined) return left === right
  return left === right || equalBytes(left, right)
}

/** `list` with a node more; the empty list is shared. */
function appended(list: ReadonlyArray<NodeId>, node: NodeId): ReadonlyArray<NodeId> {
  return list.length === 0 ? [node] : [...list, node]
}
