import type {
  EventualRefusal,
  EventualRefused,
  EventualReply,
  EventualRequest,
} from "../../dynamo/node/requests.ts"
import {
  InvalidRequest,
  type KvorumError,
  NotSupportedInMode,
  OutcomeUnknown,
  Overloaded,
  QuorumUnavailable,
  RangeMoved,
  StorageCorrupt,
  TooManySiblings,
} from "../../Errors.ts"
import type { MonotonicMs, NodeId, Slot } from "../../types.ts"
import type { Refusal } from "../../wire/answers.ts"
import type { Connection, Waiting } from "../Connection.ts"
import type { Directory, NodeAnswer } from "../Directory.ts"
import { errorOf } from "../Refusals.ts"

/** Where a request may be sent again after a copy whose answer was lost. */
export type Repeats =
  /** Sent again, it changes nothing more. */
  | "anywhere"
  /** To the node alone that may have taken it, which knows it again. */
  | "atFirst"
  | "never"

export interface EventualCallOptions {
  /** Decides who is asked first; `undefined`: whom `nodes` names. */
  readonly slot: Slot | undefined
  readonly copies: number
  /** Each asked once, in this order, and nobody else; `undefined`: the owners of the slot, then anybody, until the deadline. */
  readonly nodes: ReadonlyArray<NodeId> | undefined
  readonly request: (deadlineMs: number, isRetry: boolean) => EventualRequest
  readonly repeats: Repeats
  readonly deadlineMs: number
}

export type EventualOutcome = { readonly reply: EventualReply } | { readonly error: KvorumError }

const pauseMsMin = 5
const pauseMsMax = 200
/** How often calls are looked through for what has lasted too long. */
const sweepMs = 20

/**
 * Calls to eventual namespaces, in callbacks: one after another of the nodes that may coordinate, until one answers.
 *
 * A refusal leaves no trace, so whatever was refused may be asked of the next node. A write whose answer was lost may have been carried out, or may yet be: sent to another
 * node it would be a second write. So it ends in `OutcomeUnknown`, but for an increment, which its coordinator knows again by its id. A call ends in a refusal only if no
 * copy of it can have been carried out.
 */
export class EventualCalls {
  readonly directory: Directory
  readonly attemptTimeoutMs: number
  private readonly random: () => number
  private readonly active = new Set<EventualCall>()
  private sweeper: ReturnType<typeof setInterval> | undefined

  constructor(options: {
    readonly directory: Directory
    readonly attemptTimeoutMs: number
    readonly random: () => number
  }) {
    this.directory = options.directory
    this.attemptTimeoutMs = options.attemptTimeoutMs
    this.random = options.random
  }

  /** `done` is called once, and not after it was given up. Returns how to. */
  start(options: EventualCallOptions, done: (outcome: EventualOutcome) => void): () => void {
    const call = new EventualCall(this, options, done)
    this.active.add(call)
    // One timer for all: most calls are answered long before anything is due.
    this.sweeper ??= setInterval(() => this.sweep(), sweepMs)
    call.attempt()
    return () => call.cancel()
  }

  ended(call: EventualCall): void {
    this.active.delete(call)
  }

  private sweep(): void {
    if (this.active.size === 0) {
      clearInterval(this.sweeper)
      this.sweeper = undefined
      return
    }
    const nowMs = this.directory.nowMs()
    for (const call of this.active) call.look(nowMs)
  }

  /** A whole number that no other call has. */
  drawId(): number {
    return 1 + Math.floor(this.random() * (2 ** 53 - 2))
  }

  /** An owner that can be reached, drawn at random: nearly every call needs no other. */
  firstOf(slot: Slot, copies: number): NodeId | undefined {
    const node = this.directory.anyOwnerOf(slot, copies, this.random())
    return node !== undefined && this.directory.link(node)?.isDown === false ? node : undefined
  }

  /** Who may coordinate, those to ask first in front: owners that can be reached, then others that can, then the rest. */
  candidates(slot: Slot | undefined, copies: number): Array<NodeId> {
    const { directory } = this
    const owners = slot === undefined ? [] : directory.ownersOf(slot, copies)
    const start = Math.floor(this.random() * owners.length)
    const inTurn = [...owners.slice(start), ...owners.slice(0, start)]
    const isOpen = (node: NodeId) => directory.link(node)?.isDown === false
    const others = directory.nodeIds().filter((node) => !owners.includes(node))
    const ordered = [...inTurn, ...others]
    return [...ordered.filter(isOpen), ...ordered.filter((node) => !isOpen(node))]
  }

  pauseMs(pauses: number): number {
    const most = Math.min(pauseMsMax, pauseMsMin * 2 ** Math.min(pauses, 10))
    return most * (0.5 + this.random() / 2)
  }
}

/** A copy of a request on its way. */
class Copy implements Waiting {
  private readonly call: EventualCall
  readonly node: NodeId
  readonly connection: Connection
  readonly sentAt: MonotonicMs

  constructor(call: EventualCall, node: NodeId, connection: Connection, sentAt: MonotonicMs) {
    this.call = call
    this.node = node
    this.connection = connection
    this.sentAt = sentAt
  }

  answered(answer: NodeAnswer): void {
    this.call.answered(this, answer)
  }

  lost(reason: string): void {
    this.call.lost(this, reason)
  }
}

class EventualCall {
  private readonly calls: EventualCalls
  private readonly options: EventualCallOptions
  private readonly done: (outcome: EventualOutcome) => void
  private readonly deadlineAt: MonotonicMs
  /** The coordinator answers by itself at the deadline; this is for an answer on its way. */
  private readonly expiresAt: MonotonicMs
  private timer: ReturnType<typeof setTimeout> | undefined
  /** Who is still to be asked; `undefined`: nobody was yet, or the first alone. */
  private candidates: Array<NodeId> | undefined
  private first: NodeId | undefined
  private finished = false
  private pauses = 0
  /** The copy waited for. */
  private current: Copy | undefined
  /** Who may have carried out a copy whose answer was lost. */
  private taker: NodeId | undefined
  private trouble = "no node answered"
  private refusal: KvorumError | undefined

  constructor(
    calls: EventualCalls,
    options: EventualCallOptions,
    done: (outcome: EventualOutcome) => void,
  ) {
    this.calls = calls
    this.options = options
    this.done = done
    this.deadlineAt = calls.directory.nowMs() + options.deadlineMs
    this.expiresAt = this.deadlineAt + options.deadlineMs * 0.05 + 20
  }

  cancel(): void {
    if (this.finished) return
    this.finished = true
    this.calls.ended(this)
    if (this.timer !== undefined) clearTimeout(this.timer)
  }

  /** Ends what has lasted too long. */
  look(nowMs: MonotonicMs): void {
    const { current: copy, calls, options } = this
    if (nowMs >= this.expiresAt) return this.expire()
    // A write that must not be repeated waits for the one answer that there can be.
    if (copy === undefined || options.repeats !== "anywhere") return
    if (nowMs < copy.sentAt + calls.attemptTimeoutMs) return
    // Not a byte since this copy left: the node hangs, and so would every other call on this connection.
    if (copy.connection.heardAt < copy.sentAt) copy.connection.close("silent")
    this.lost(copy, "did not answer")
  }

  private finish(outcome: EventualOutcome): void {
    if (this.finished) return
    this.cancel()
    this.done(outcome)
  }

  /** Ends with `error`, or with `OutcomeUnknown` where a copy may have been carried out. */
  private fail(error: KvorumError): void {
    const { repeats } = this.options
    const isUnderWay = this.current !== undefined && repeats !== "anywhere"
    if ((this.taker === undefined && !isUnderWay) || error._tag === "OutcomeUnknown") {
      return this.finish({ error })
    }
    const detail = `sent, and not answered; last word: ${error.message}`
    this.finish({ error: new OutcomeUnknown({ detail }) })
  }

  private expire(): void {
    const { current, refusal } = this
    if (current !== undefined) this.trouble = `n${current.node} did not answer`
    const detail = `no answer within ${this.options.deadlineMs} ms: ${this.trouble}`
    this.fail(refusal ?? new QuorumUnavailable({ detail }))
  }

  /** Whom to ask one after another. */
  private round(): Array<NodeId> {
    const { calls, options, taker } = this
    if (taker !== undefined) return [taker]
    return options.nodes?.slice() ?? calls.candidates(options.slot, options.copies)
  }

  private nextNode(): NodeId | undefined {
    const { calls, options, first } = this
    if (this.candidates === undefined && first === undefined && options.nodes === undefined) {
      const { slot, copies } = options
      this.first = slot === undefined ? undefined : calls.firstOf(slot, copies)
      if (this.first !== undefined) return this.first
    }
    this.candidates ??= this.round().filter((node) => node !== first)
    return this.candidates.shift()
  }

  attempt(): void {
    if (this.finished) return
    const node = this.nextNode()
    if (node === undefined) return this.roundOver()
    const link = this.calls.directory.link(node)
    if (link === undefined) {
      this.trouble = `no address of n${node} is known`
      return this.attempt()
    }
    const connection = link.pick()
    if (connection !== undefined) return this.send(node, connection)
    link.want((opened) => {
      if (this.finished) return
      if (opened !== undefined) return this.send(node, opened)
      this.trouble = `n${node} at ${link.address}: ${link.lastReason}`
      this.attempt()
    })
  }

  /** All were asked: once more after a pause, by what is known then; unless that is of no use. */
  private roundOver(): void {
    const { calls, options, refusal, taker, trouble } = this
    if (taker === undefined) {
      if (refusal !== undefined && endsWithRound.has(refusal._tag)) return this.fail(refusal)
      if (options.nodes !== undefined) {
        return this.fail(refusal ?? new QuorumUnavailable({ detail: trouble }))
      }
    }
    this.pause(() => {
      calls.directory.refresh((reached) => {
        if (!reached) this.trouble = calls.directory.reachability()
        this.candidates = this.round()
        this.attempt()
      })
    })
  }

  private pause(next: () => void): void {
    clearTimeout(this.timer)
    this.timer = setTimeout(
      () => {
        if (!this.finished) next()
      },
      this.calls.pauseMs(this.pauses++),
    )
  }

  private send(node: NodeId, connection: Connection): void {
    const { calls, options } = this
    const sentAt = calls.directory.nowMs()
    const leftMs = Math.ceil(this.deadlineAt - sentAt)
    if (leftMs <= 0) return this.expire()
    const copy = new Copy(this, node, connection, sentAt)
    const request = options.request(leftMs, this.taker !== undefined)
    if (!connection.send({ _tag: "Eventual", id: 0, request }, copy)) {
      this.refusal = new Overloaded({ what: "the connection's queue" })
      return this.attempt()
    }
    this.current = copy
  }

  lost(copy: Copy, reason: string): void {
    if (this.finished || this.current !== copy) return
    const { node } = copy
    const { repeats } = this.options
    this.current = undefined
    this.trouble = `n${node}: ${reason}`
    if (repeats === "anywhere") return this.attempt()
    this.taker = node
    if (repeats === "never") {
      return this.fail(new OutcomeUnknown({ detail: `n${node}: ${reason}` }))
    }
    this.candidates = []
    this.attempt()
  }

  answered(copy: Copy, answer: NodeAnswer): void {
    if (this.finished) return
    if (answer._tag === "Eventual" && answer.reply._tag !== "EventualRefused") {
      return this.finish({ reply: answer.reply })
    }
    // Of an earlier copy only a result is of use.
    if (this.current !== copy) return
    if (answer._tag !== "Eventual" && answer._tag !== "Refused") {
      return this.lost(copy, `answered ${answer._tag}`)
    }
    this.current = undefined
    if (answer._tag === "Refused") {
      const { refusal } = answer
      return this.refused(copy, errorOf(refusal), goesElsewhere.has(refusal._tag))
    }
    const { refusal } = answer.reply as EventualRefused
    this.refused(copy, eventualErrorOf(refusal), goesElsewhere.has(refusal._tag))
  }

  private refused({ node }: Copy, error: KvorumError, elsewhere: boolean): void {
    if (!elsewhere) return this.fail(error)
    this.trouble = `n${node}: ${error.message}`
    // What an owner says of the level counts for more than that another node is none.
    const isSaid = this.refusal !== undefined && endsWithRound.has(this.refusal._tag)
    if (!isSaid || error._tag !== "RangeMoved") this.refusal = error
    this.attempt()
  }
}

/** Nothing was done, and another node, or the same one later, may do it. A node may not have heard of the namespace yet, and then the request is none to it. */
const goesElsewhere: ReadonlySet<EventualRefusal["_tag"] | Refusal["_tag"]> = new Set([
  "RingMoved",
  "Overloaded",
  "LevelUnavailable",
  "DiskFull",
  "StorageCorrupt",
  "InvalidRequest",
])

/** Once all were asked, there is nothing to wait for. */
const endsWithRound: ReadonlySet<KvorumError["_tag"]> = new Set([
  "QuorumUnavailable",
  "InvalidRequest",
])

/** A refusal as users see it. */
export function eventualErrorOf(refusal: EventualRefusal): KvorumError {
  switch (refusal._tag) {
    case "LevelUnavailable":
      return new QuorumUnavailable({
        detail: `too few nodes are up for level ${refusal.level}, or owners that differ could not be made equal in time: nothing new was written; ask for a lower level, or wait`,
      })
    case "WriteUnknown": {
      const held = refusal.receipt?.answered.map((node) => `n${node}`).join(", ")
      const detail = `the level was not reached in time; the write is held by ${held === undefined || held === "" ? "its coordinator" : held} and will spread`
      return new OutcomeUnknown({ detail })
    }
    case "RingMoved":
      return new RangeMoved({
        detail: `the key's owners are others, or out of reach (ring ${refusal.ringVersion})`,
      })
    case "TooManySiblings":
      return new TooManySiblings({ limit: refusal.limit })
    case "NotSupportedInMode":
      return new NotSupportedInMode({ detail: refusal.message })
    case "BadContext":
    case "ClockAhead":
    case "InvalidRequest":
      return new InvalidRequest({ detail: refusal.message })
    case "Overloaded":
      return new Overloaded({ what: refusal.what })
    case "DiskFull":
      return errorOf(refusal)
    case "StorageCorrupt":
      return new StorageCorrupt({ detail: refusal.message })
    default:
      return refusal satisfies never
  }
}
