import { JobCancelled, type Pace, paceWords } from "./pace.ts"

/** Sleeps are at most so long, so that a change of pace is felt soon. */
const sleepMaxMs = 50
/** What may be spent at once after a pause. */
const burstMs = 20

/**
 * The pace of a worker thread: a token bucket over shared memory. `spend` sleeps when more was spent than the pace allows, and throws `JobCancelled` when
 * the store has asked for that.
 */
export class WorkerPace implements Pace {
  private readonly words: Int32Array
  private spentBytes = 0
  private reportedKib = 0
  /** When what was spent so far is paid for. */
  private paidUntilMs = 0

  constructor(memory: SharedArrayBuffer) {
    this.words = new Int32Array(memory)
  }

  spend(bytes: number): void {
    const { words } = this
    if (Atomics.load(words, paceWords.cancel) !== 0) throw new JobCancelled("the job was cancelled")
    this.spentBytes += bytes
    const kib = Math.floor(this.spentBytes / 1024)
    Atomics.add(words, paceWords.spentKib, kib - this.reportedKib)
    this.reportedKib = kib
    const kibPerSecond = Atomics.load(words, paceWords.kibPerSecond)
    if (kibPerSecond <= 0) return
    const nowMs = performance.now()
    const costMs = (bytes / 1024 / kibPerSecond) * 1000
    this.paidUntilMs = Math.max(this.paidUntilMs, nowMs - burstMs) + costMs
    if (this.paidUntilMs <= nowMs) return
    const change = Atomics.load(words, paceWords.change)
    Atomics.wait(words, paceWords.change, change, Math.min(sleepMaxMs, this.paidUntilMs - nowMs))
    if (Atomics.load(words, paceWords.cancel) !== 0) throw new JobCancelled("the job was cancelled")
  }
}
