import type { Prng } from "../../lib/prng.ts"
import type { MonotonicMs } from "../../types.ts"
import type { RunTask } from "./exchangeFills.ts"

/** A pass that has fallen behind makes up for so much of it at once. */
const behindMaxMs = 200
/** Where nothing is shared it is looked again after so long. */
const idleMs = 200

/**
 * The order in which runs are compared with one other node: all of them, evenly over the time of a pass, and each time in an order drawn anew. A pass that is hurried takes one run
 * after another without a pause: when the other node was out of reach, much may differ.
 */
export class ExchangePass {
  private readonly passMs: number
  private readonly prng: Prng
  /** The rest of the present pass, the next last. */
  private left: Array<RunTask> = []
  private stepMs = 0
  private isHurried = false
  private nextMs: MonotonicMs = 0

  constructor(passMs: number, prng: Prng) {
    this.passMs = passMs
    this.prng = prng
  }

  /** Begins a pass of these runs without pauses. */
  hurry(shared: ReadonlyArray<RunTask>): void {
    this.left = this.prng.shuffle([...shared])
    this.stepMs = 0
    this.nextMs = 0
    this.isHurried = true
  }

  /** Runs of a hurried pass that are still to come. */
  get waiting(): number {
    return this.isHurried ? this.left.length : 0
  }

  /** A run could not be compared to the end: in a hurried pass it comes again, last. */
  failed(task: RunTask): void {
    if (this.isHurried) this.left.unshift(task)
  }

  /** The next run, when its time has come. `shared` says which there are, once a pass. */
  next(nowMs: MonotonicMs, shared: () => ReadonlyArray<RunTask>): RunTask | undefined {
    if (nowMs < this.nextMs) return undefined
    if (this.left.length === 0) {
      this.left = this.prng.shuffle([...shared()])
      this.stepMs = this.passMs / this.left.length
      this.isHurried = false
    }
    const task = this.left.pop()
    if (task === undefined) this.nextMs = nowMs + idleMs
    else this.nextMs = Math.max(this.nextMs, nowMs - behindMaxMs) + this.stepMs
    return task
  }
}
