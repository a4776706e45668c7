import { type KvorumError, OutcomeUnknown, QuorumUnavailable } from "../Errors.ts"
import type { MonotonicMs, NodeId } from "../types.ts"
import type { CallPlan } from "./plans.ts"

export type Outcome<A> = { readonly answer: A } | { readonly error: KvorumError }

/**
 * One call of a user from start to answer, over as many copies of its request as that takes. A copy whose answer was lost is
 * *uncertain*: it may have been carried out, or may yet be. A refusal leaves no trace, so its copy is settled. Only with no
 * uncertain copy may a mutation end in a refusal; else its outcome is unknown.
 */
export class Call<A> {
  readonly plan: CallPlan<A>
  readonly deadlineAt: MonotonicMs
  readonly deadlineMs: number
  private readonly done: (outcome: Outcome<A>) => void
  finished = false
  /** Copies handed to a connection, and those of them answered by a refusal. */
  sends = 0
  refusals = 0
  /** Hints followed without a pause since the last pause. */
  hops = 0
  pauses = 0
  renewals = 0
  /** Counts through the replicas when no leader is known. */
  rotation: number
  /** A replica would not answer although any might have: only the leader is asked from then on. */
  wantsLeader = false
  /** The node that failed the last try. */
  avoid: NodeId | undefined
  /** The copy waited for; others may still be answered. */
  current: object | undefined
  attemptDeadlineAt: MonotonicMs = Number.POSITIVE_INFINITY
  timer: ReturnType<typeof setTimeout> | undefined
  private lastError: KvorumError | undefined
  private lastTrouble = "no node answered"

  constructor(options: {
    readonly plan: CallPlan<A>
    readonly nowMs: MonotonicMs
    readonly deadlineMs: number
    readonly rotation: number
    readonly done: (outcome: Outcome<A>) => void
  }) {
    this.plan = options.plan
    this.deadlineMs = options.deadlineMs
    this.deadlineAt = options.nowMs + options.deadlineMs
    this.rotation = options.rotation
    this.done = options.done
  }

  get isUncertain(): boolean {
    return this.plan.isMutation && this.sends > this.refusals
  }

  /** What went wrong, in case nothing better is known at the deadline. */
  trouble(text: string): void {
    this.lastTrouble = text
  }

  refusedWith(error: KvorumError): void {
    this.lastError = error
  }

  succeed(answer: A): void {
    this.finish({ answer })
  }

  /** Ends with `error`, or with `OutcomeUnknown` where a copy is uncertain. */
  fail(error: KvorumError): void {
    if (!this.isUncertain || error._tag === "OutcomeUnknown") return this.finish({ error })
    const detail = `sent ${this.sends} times, last word: ${error._tag}: ${error.message}`
    this.finish({ error: new OutcomeUnknown({ detail }) })
  }

  /** Ends with an error that holds for every copy. */
  failForSure(error: KvorumError): void {
    this.finish({ error })
  }

  expire(): void {
    const detail = `no answer within ${this.deadlineMs} ms: ${this.lastTrouble}`
    if (this.isUncertain) return this.finish({ error: new OutcomeUnknown({ detail }) })
    this.finish({ error: this.lastError ?? new QuorumUnavailable({ detail }) })
  }

  private finish(outcome: Outcome<A>): void {
    if (this.finished) return
    this.release()
    this.done(outcome)
  }

  /** Ends it without an answer: nobody waits any more. */
  release(): void {
    if (this.finished) return
    this.finished = true
    clearTimeout(this.timer)
    this.plan.release()
  }
}
