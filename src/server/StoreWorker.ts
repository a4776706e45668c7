/**
 * The worker thread of a node: it carries out the store loop's jobs on files, one after the other, over a `Disk` of its own on the same
 * directory. `workerData` is not shared; the first message names the directory.
 */
import { FileDisk } from "../disk/FileDisk.ts"
import { runStoreJob, type StoreJob, type StoreJobResult } from "./storeJobs.ts"

export type ToWorker =
  | { readonly _tag: "Open"; readonly root: string }
  | { readonly _tag: "Job"; readonly job: StoreJob }

export type FromWorker =
  | { readonly _tag: "Done"; readonly result: StoreJobResult }
  | { readonly _tag: "Failed"; readonly message: string; readonly reason: string | undefined }

declare const self: {
  onmessage: ((event: { readonly data: ToWorker }) => void) | null
  postMessage: (message: FromWorker) => void
}

let disk: FileDisk | undefined

self.onmessage = ({ data }) => {
  if (data._tag === "Open") {
    disk = new FileDisk(data.root)
    return
  }
  if (disk === undefined) throw new Error("a job before the directory was named")
  try {
    self.postMessage({ _tag: "Done", result: runStoreJob(disk, data.job) })
  } catch (error) {
    const reason = (error as { reason?: unknown }).reason
    self.postMessage({
      _tag: "Failed",
      message: error instanceof Error ? error.message : String(error),
      reason: typeof reason === "string" ? reason : undefined,
    })
  }
}
