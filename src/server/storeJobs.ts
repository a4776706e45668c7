import { type Disk, DiskError, StorageCorruption } from "../disk/disk.ts"
import { type SegmentSlice, verifySegment } from "../journal/scrub.ts"
import {
  abandonSegment,
  prepareSegment,
  removeSegments,
  type SegmentJob,
} from "../journal/segments.ts"
import {
  type EngineJob,
  type EngineJobResult,
  type ManifestWrite,
  runJob,
  runManifestWrite,
} from "../lsm/maintenance/jobs.ts"
import { JobCancelled, type Pace } from "./pace.ts"

/**
 * Work on files that must not hold the loop: it is data, so that a worker thread can do it in production and an event in the simulator.
 *
 * Jobs are of two lanes, which know nothing of each other: those of the engine and those of the journal. Jobs of one lane are carried out one after
 * the other, in the order in which they were given out. The lanes may run side by side, so that a segment never waits behind a compaction.
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
  /** Reads a part of a closed journal segment and checks it. */
  | { readonly _tag: "VerifySegment"; readonly slice: SegmentSlice }
  /** Files that nothing refers to any more. A crash may bring them back: opening removes them again. */
  | { readonly _tag: "Remove"; readonly paths: ReadonlyArray<string> }
  /** Fills a file of `sizeBytes` with real blocks, to be given back to the file system when it is full. */
  | { readonly _tag: "Reserve"; readonly path: string; readonly sizeBytes: number }

export type Lane = "engine" | "journal"

export function laneOf(job: StoreJob): Lane {
  const { _tag } = job
  return _tag === "Segment" || _tag === "RemoveSegments" || _tag === "VerifySegment"
    ? "journal"
    : "engine"
}

/** Why a job was not carried out, where that does not stop the node. */
export type JobFailure =
  /** The file system is full. What the job wrote is of no use. */
  | { readonly _tag: "NoSpace"; readonly path: string }
  /** Stored bytes that the job read are not what was written. */
  | {
      readonly _tag: "Corrupt"
      readonly path: string
      readonly offset: number
      readonly expected: string
      readonly actual: string
    }
  /** It was told to stop, or the thread that ran it ended. */
  | { readonly _tag: "Abandoned" }

export type StoreJobResult =
  | { readonly _tag: "Engine"; readonly result: EngineJobResult }
  /** Where the next part of a segment begins; `undefined` when it was the last. */
  | { readonly _tag: "Verified"; readonly next: number | undefined; readonly bytes: number }
  | { readonly _tag: "Done" }
  | { readonly _tag: "Failed"; readonly failure: JobFailure }

const done: StoreJobResult = { _tag: "Done" }

/** Carries out a job. Throws `DiskError`, `StorageCorruption` or `JobCancelled`. */
export function runStoreJob(disk: Disk, job: StoreJob, pace?: Pace): StoreJobResult {
  switch (job._tag) {
    case "Engine":
      return { _tag: "Engine", result: runJob(disk, job.job, pace) }
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
    case "VerifySegment":
      return { _tag: "Verified", ...verifySegment(disk, job.slice, pace) }
    case "Remove":
      for (const path of job.paths) removeIfThere(disk, path)
      return done
    case "Reserve":
      reserve(disk, job)
      return done
    default:
      return job satisfies never
  }
}

/**
 * Carries out a job as a worker does: a full disk, damage and cancelling are results, for the loop to deal with. Any other failure is thrown and stops the
 * node; above all a failed sync, after which nothing is known of what lies on the disk.
 */
export function attemptStoreJob(disk: Disk, job: StoreJob, pace?: Pace): StoreJobResult {
  try {
    return runStoreJob(disk, job, pace)
  } catch (error) {
    const failure = failureOf(error)
    if (failure === undefined) throw error
    if (failure._tag === "NoSpace") giveBack(disk, job)
    return { _tag: "Failed", failure }
  }
}

function failureOf(error: unknown): JobFailure | undefined {
  if (error instanceof JobCancelled) return { _tag: "Abandoned" }
  if (error instanceof DiskError && error.reason === "no-space") {
    return { _tag: "NoSpace", path: error.path }
  }
  if (error instanceof StorageCorruption) {
    const { path, offset, expected, actual } = error
    return { _tag: "Corrupt", path, offset, expected, actual }
  }
  return undefined
}

/** What a job began takes space that is needed now. An engine's tables are its own to remove. */
function giveBack(disk: Disk, job: StoreJob): void {
  if (job._tag === "Segment") return abandonSegment(disk, job.job)
  if (job._tag === "Reserve") return removeIfThere(disk, job.path)
  // A new manifest of which CURRENT says nothing yet: only the writes before that find no space.
  if (job._tag === "Manifest" && job.write.current !== undefined) {
    removeIfThere(disk, job.write.path)
  }
}

function removeIfThere(disk: Disk, path: string): void {
  if (disk.exists(path)) disk.remove(path)
}

function spill(disk: Disk, job: Extract<StoreJob, { _tag: "Spill" }>): void {
  if (job.offset === 0) removeIfThere(disk, job.path)
  const file = job.offset === 0 ? disk.create(job.path) : disk.open(job.path)
  try {
    file.write(job.bytes, job.offset)
  } finally {
    file.close()
  }
}

const reserveChunk = new Uint8Array(1024 * 1024)

/** Bytes that no file system stores as a hole or compresses away: a xorshift of 32 bits from a fixed start. */
function fillReserveChunk(): void {
  if (reserveChunk[0] !== 0) return
  const words = new Uint32Array(reserveChunk.buffer)
  let x = 0x9e3779b9
  for (let i = 0; i < words.length; i++) {
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
    words[i] = x
  }
}

function reserve(disk: Disk, job: Extract<StoreJob, { _tag: "Reserve" }>): void {
  fillReserveChunk()
  removeIfThere(disk, job.path)
  const file = disk.create(job.path)
  try {
    for (let at = 0; at < job.sizeBytes; at += reserveChunk.length) {
      file.write(reserveChunk.subarray(0, Math.min(reserveChunk.length, job.sizeBytes - at)), at)
    }
    file.sync()
  } finally {
    file.close()
  }
}
