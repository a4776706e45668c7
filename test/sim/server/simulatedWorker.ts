import type { FromWorker, ToWorker } from "../../../src/server/StoreWorker.ts"
import { attemptStoreJob, type StoreJob } from "../../../src/server/storeJobs.ts"
import { SimulatedCrash } from "../simulatedDisk.ts"
import type { Machine } from "./machine.ts"
import type { SimulatedProcess } from "./simulatedProcess.ts"

export type WorkerConstructor = new (url: URL) => SimulatedWorker

export interface WorkerWorld {
  readonly current: () => SimulatedProcess
  readonly machineOf: (process: SimulatedProcess) => Machine
  /** The machine lost power in the middle of a job. */
  readonly struck: (machine: Machine) => void
}

/**
 * The worker thread of a store (StoreWorker.ts): it carries out jobs on the machine's disk, one after the other, each as a whole at the moment in which
 * it ends.
 */
export class SimulatedWorker {
  onmessage: ((event: { readonly data: FromWorker }) => void) | null = null
  onerror: ((event: { readonly message: string }) => void) | null = null
  /** The job that the thread is at. */
  underWay: StoreJob | undefined
  private readonly world: WorkerWorld
  private readonly process: SimulatedProcess
  private readonly machine: Machine
  private readonly jobs: Array<StoreJob> = []
  private isOver = false

  constructor(world: WorkerWorld) {
    this.world = world
    this.process = world.current()
    this.machine = world.machineOf(this.process)
    this.machine.joined(this)
  }

  addEventListener(): void {}

  postMessage(message: ToWorker): void {
    if (message._tag !== "Job") return
    this.jobs.push(message.job)
    this.next()
  }

  terminate(): void {
    this.isOver = true
    this.machine.left(this)
  }

  private next(): void {
    if (this.isOver || this.underWay !== undefined) return
    this.underWay = this.jobs.shift()
    const job = this.underWay
    if (job === undefined) return
    this.machine.whenJobDone(() => {
      if (!this.isOver) this.finish(job)
    })
  }

  private finish(job: StoreJob): void {
    let data: FromWorker
    try {
      data = { _tag: "Done", result: attemptStoreJob(this.machine.disk, job) }
    } catch (error) {
      if (error instanceof SimulatedCrash) return this.world.struck(this.machine)
      data = { _tag: "Fatal", message: `${error}`, path: undefined }
    }
    this.underWay = undefined
    this.process.run(() => this.onmessage?.({ data }))
    this.next()
  }
}

/** The constructor that takes the place of the runtime's. */
export function workerOf(world: WorkerWorld): WorkerConstructor {
  return class extends SimulatedWorker {
    constructor() {
      super(world)
    }
  } as WorkerConstructor
}
