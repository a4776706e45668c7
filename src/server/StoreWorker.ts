/**
 * A worker thread of a store: it carries out jobs on files, one after the other, over a `Disk` of its own on the same directory. `workerData` is not
 * shared; the first message names the directory and brings the memory by which the thread is paced.
 */
import { DiskError } from "../disk/disk.ts"
import { FileDisk, HeldDescriptors } from "../disk/FileDisk.ts"
import { attemptStoreJob, type StoreJob, type StoreJobResult } from "./storeJobs.ts"
import { WorkerPace } from "./WorkerPace.ts"

export type ToWorker =
  | {
      readonly _tag: "Open"
      readonly root: string
      readonly paceMemory: SharedArrayBuffer
      readonly heldMemory: SharedArrayBuffer
    }
  | { readonly _tag: "Job"; readonly job: StoreJob }

export type FromWorker =
  | { readonly _tag: "Done"; readonly result: StoreJobResult }
  /** The store must stop. */
  | { readonly _tag: "Fatal"; readonly message: string; readonly path: string | undefined }

declare const self: {
  onmessage: ((event: { readonly data: ToWorker }) => void) | null
  postMessage: (message: FromWorker) => void
}

let opened: { readonly disk: FileDisk; readonly pace: WorkerPace } | undefined

self.onmessage = ({ data }) => {
  if (data._tag === "Open") {
    const held = new HeldDescriptors(data.heldMemory)
    opened = { disk: new FileDisk(data.root, held), pace: new WorkerPace(data.paceMemory) }
    return
  }
  if (opened === undefined) throw new Error("a job before the directory was named")
  try {
    self.postMessage({ _tag: "Done", result: attemptStoreJob(opened.disk, data.job, opened.pace) })
  } catch (error) {
    self.postMessage({
      _tag: "Fatal",
      message: describe(error),
      path: error instanceof DiskError ? error.path : undefined,
    })
  }
}

function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const cause = error.cause instanceof Error ? ` (${error.cause.message})` : ""
  return `${error.message}${cause}`
}
