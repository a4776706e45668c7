import type { Disk } from "../disk/disk.ts"
import { prepareSegment, removeSegments, type SegmentJob } from "../journal/segments.ts"
import {
  type EngineJob,
  type EngineJobResult,
  type ManifestWrite,
  runJob,
  runManifestWrite,
} from "../lsm/jobs.ts"

/**
 * Work on files that must not hold the loop: it is data, so that a worker thread can do it in production and an event in the simulator.
 * Jobs are carried out one after the other, in the order in which the loop gave them out.
 */
export type StoreJob =
  | { readonly _tag: "Engine"; readonly job: EngineJob }
  | { readonly _tag: "Manifest"; readonly write: ManifestWrite }
  | { readonly _tag: "Segment"; readonly job: SegmentJob }
  /** Appends received pairs to a spill file; an `offset` of 0 begins it anew. */
  | {
      readonly _tag: "Spill"
      readonly path: string
      readonly offset: number
      readonly bytes: Uint8Array
    }
  /** Journal segments, oldest first. */
  | { readonly _tag: "RemoveSegments"; readonly paths: ReadonlyArray<string> }
  /** Files that nothing refers to any more. A crash may bring them back: opening removes them again. */
  | { readonly _tag: "Remove"; readonly paths: ReadonlyArray<string> }

export type StoreJobResult =
  | { readonly _tag: "Engine"; readonly result: EngineJobResult }
  | { readonly _tag: "Done" }

const done: StoreJobResult = { _tag: "Done" }

/** Carries out a job. Throws `DiskError` or `StorageCorruption`: both stop the node. */
export function runStoreJob(disk: Disk, job: StoreJob): StoreJobResult {
  switch (job._tag) {
    case "Engine":
      return { _tag: "Engine", result: runJob(disk, job.job) }
    case "Manifest":
      runManifestWrite(disk, job.write)
      return done
    case "Segment":
      prepareSegment(disk, job.job)
      return done
    case "Spill":
      spill(disk, job)
      return done
    case "RemoveSegments":
      removeSegments(disk, job.paths)
      return done
    case "Remove":
      for (const path of job.paths) if (disk.exists(path)) disk.remove(path)
      return done
    default:
      return job satisfies never
  }
}

function spill(disk: Disk, job: Extract<StoreJob, { _tag: "Spill" }>): void {
  if (job.offset === 0 && disk.exists(job.path)) disk.remove(job.path)
  const file = job.offset === 0 ? disk.create(job.path) : disk.open(job.path)
  file.write(job.bytes, job.offset)
  file.close()
}
