import { DiskError } from "../disk/disk.ts"
import { HeldDescriptors } from "../disk/FileDisk.ts"
import { paceWords } from "./pace.ts"
import type { FromWorker, ToWorker } from "./StoreWorker.ts"
import type { StoreJob, StoreJobResult } from "./storeJobs.ts"

/** A thread that dies so often without having done a job is not replaced any more. */
const deathsMax = 5

/**
 * One lane of jobs in a thread of its own. A thread that dies is replaced: the engine's job that it had, of which there is one at most, is abandoned, so
 * that the engine hands it out again over new files, and any other is simply done again, because all others may be done twice. No new thread begins before the
 * old one has ended.
 */
export class JobWorker {
  private readonly root: string
  private readonly onResult: (job: StoreJob, result: StoreJobResult) => void
  private readonly onFatal: (error: Error) => void
  private readonly paceMemory = new SharedArrayBuffer(paceWords.length * 4)
  private readonly words = new Int32Array(this.paceMemory)
  /** What the thread has open, to be closed when it dies. */
  private readonly held = new HeldDescriptors()
  /** Given to the thread and not done, oldest first. */
  private readonly jobs: Array<StoreJob> = []
  private worker: Worker
  private stopped = false
  private deaths = 0

  constructor(options: {
    readonly root: string
    readonly onResult: (job: StoreJob, result: StoreJobResult) => void
    /** Called at most once: a failed sync, a broken invariant. */
    readonly onFatal: (error: Error) => void
  }) {
    this.root = options.root
    this.onResult = options.onResult
    this.onFatal = options.onFatal
    this.worker = this.begin()
  }

  get isIdle(): boolean {
    return this.jobs.length === 0
  }

  /** Bytes that the thread's jobs have read and written, to within a KiB each. */
  get spentBytes(): number {
    return Atomics.load(this.words, paceWords.spentKib) * 1024
  }

  post(job: StoreJob): void {
    this.jobs.push(job)
    this.worker.postMessage({ _tag: "Job", job } satisfies ToWorker)
  }

  /** From now on jobs may read and write so many bytes a second; 0 = as many as they can. */
  setPace(bytesPerSecond: number): void {
    const kib = bytesPerSecond <= 0 ? 0 : Math.max(1, Math.round(bytesPerSecond / 1024))
    if (Atomics.exchange(this.words, paceWords.kibPerSecond, kib) !== kib) this.changed()
  }

  private changed(): void {
    Atomics.add(this.words, paceWords.change, 1)
    Atomics.notify(this.words, paceWords.change)
  }

  /** Ends the thread, as a failure would; it is replaced. For tests. */
  kill(): void {
    this.worker.terminate()
  }

  /** Stops the job under way at its next block, then the thread. What is not done is dropped. */
  async stop(): Promise<void> {
    if (this.stopped) return
    this.stopped = true
    Atomics.store(this.words, paceWords.cancel, 1)
    this.changed()
    const { worker } = this
    await new Promise<void>((resolve) => {
      worker.onmessage = () => {
        if (this.jobs.shift() === undefined || this.jobs.length === 0) resolve()
      }
      worker.addEventListener("close", () => resolve())
      if (this.jobs.length === 0) resolve()
    })
    worker.terminate()
  }

  /** Ends the thread at once. */
  terminate(): void {
    this.stopped = true
    this.worker.terminate()
  }

  private begin(): Worker {
    const worker = new Worker(new URL("./StoreWorker.ts", import.meta.url))
    worker.onmessage = (event: MessageEvent<FromWorker>) => this.heard(event.data)
    worker.onerror = (event) => this.fatal(new Error(event.message))
    worker.addEventListener("close", () => this.died())
    const { root, paceMemory } = this
    const heldMemory = this.held.memory
    worker.postMessage({ _tag: "Open", root, paceMemory, heldMemory } satisfies ToWorker)
    return worker
  }

  private heard(message: FromWorker): void {
    if (this.stopped) return
    if (message._tag === "Fatal") {
      const { path } = message
      const cause = new Error(message.message)
      return this.fatal(path === undefined ? cause : new DiskError({ reason: "io", path, cause }))
    }
    const job = this.jobs.shift()
    if (job === undefined) return this.fatal(new Error("the worker answered no job"))
    this.deaths = 0
    this.onResult(job, message.result)
  }

  private died(): void {
    this.held.closeAll()
    if (this.stopped) return
    if (++this.deaths > deathsMax) {
      return this.fatal(new Error(`the worker thread ended ${this.deaths} times in a row`))
    }
    this.worker = this.begin()
    // Not only the oldest: the thread may have begun it behind one whose end was not heard of any more.
    const at = this.jobs.findIndex(({ _tag }) => _tag === "Engine")
    const [abandoned] = at < 0 ? [] : this.jobs.splice(at, 1)
    for (const job of this.jobs) this.worker.postMessage({ _tag: "Job", job } satisfies ToWorker)
    if (abandoned === undefined) return
    this.onResult(abandoned, { _tag: "Failed", failure: { _tag: "Abandoned" } })
  }

  private fatal(error: Error): void {
    if (this.stopped) return
    this.terminate()
    this.onFatal(error)
  }
}
