import type { Disk, DiskFile } from "../disk/disk.ts"
import { assert } from "../lib/assert.ts"
import type { Lsn } from "../types.ts"
import { batchHeaderBytes, encodeSegmentHeader, segmentHeaderBytes } from "./format.ts"

/**
 * A file of the journal that holds batches, or is the one to be written next. LSN of a byte = base
 * + its offset in the file.
 */
export interface Segment {
  readonly number: number
  readonly path: string
  readonly baseLsn: Lsn
  readonly sizeBytes: number
  /**
   * Records that are some log's only durable copy of an entry, or a rewritten one about to become
   * it.
   */
  liveCount: number
  liveBytes: number
}

/** A zero-filled segment that a worker has to make with `prepareSegment`. Plain data. */
export interface SegmentJob {
  readonly number: number
  readonly directory: string
  readonly path: string
  readonly sizeBytes: number
  readonly header: Uint8Array
}

const segmentName = /^(\d{8,15})\.log$/
const unfinishedSuffix = ".new"

export function segmentPath(directory: string, number: number): string {
  return `${directory}/${String(number).padStart(8, "0")}.log`
}

/** The number in a segment's file name, or `undefined` for other files. */
export function segmentNumber(name: string): number | undefined {
  const match = segmentName.exec(name)
  return match === null ? undefined : Number(match[1])
}

export function isUnfinished(name: string): boolean {
  return name.endsWith(unfinishedSuffix)
}

export function segmentJob(
  directory: string,
  segment: { number: number; baseLsn: Lsn; sizeBytes: number },
): SegmentJob {
  const { number, sizeBytes } = segment
  const path = segmentPath(directory, number)
  return { number, directory, path, sizeBytes, header: encodeSegmentHeader(segment) }
}

const zeros = new Uint8Array(1024 * 1024)

/**
 * Makes a segment, durable with its name when this returns. It is filled under another name and
 * renamed, so that a file with a segment's name is always whole; a file of that name that has no
 * batch yet is replaced. Zeros are written, not left as a hole in the file, so that a later
 * fdatasync has no allocation to record.
 */
export function prepareSegment(disk: Disk, job: SegmentJob): void {
  const unfinished = job.path + unfinishedSuffix
  if (disk.exists(unfinished)) disk.remove(unfinished)
  const file = disk.create(unfinished)
  try {
    file.write(job.header, 0)
    for (let at = job.header.length; at < job.sizeBytes; at += zeros.length) {
      file.write(zeros.subarray(0, Math.min(zeros.length, job.sizeBytes - at)), at)
    }
    file.sync()
  } finally {
    file.close()
  }
  disk.rename(unfinished, job.path)
  disk.syncDirectory(job.directory)
}

/** Removes what a `prepareSegment` that found no space began. The job may be tried again. */
export function abandonSegment(disk: Disk, job: SegmentJob): void {
  const unfinished = job.path + unfinishedSuffix
  if (disk.exists(unfinished)) disk.remove(unfinished)
}

/**
 * Removes segments in the order given, each durably before the next: were a later one gone and an
 * earlier one back after a power loss, recovery would refuse the gap.
 */
export function removeSegments(disk: Disk, paths: ReadonlyArray<string>): void {
  for (const path of paths) {
    if (!disk.exists(path)) continue
    disk.remove(path)
    disk.syncDirectory(path.slice(0, path.lastIndexOf("/")))
  }
}

/** True when `directory` holds any segment. */
export function isJournal(disk: Disk, directory: string): boolean {
  return disk.list(directory).some((name) => segmentNumber(name) !== undefined)
}

/** The segments held, oldest first, and the one that is being prepared to come after them. */
export class Segments {
  readonly directory: string
  private readonly disk: Disk
  private readonly held: Array<Segment>
  private readonly segmentBytes: number
  private readonly files = new Map<number, DiskFile>()
  /** Asked for, not ready yet. */
  private pending: SegmentJob | undefined
  private ready: SegmentJob | undefined
  /** Least size of the next segment for the batch that waits for it. */
  private wantedBytes = 0

  constructor(options: {
    disk: Disk
    directory: string
    segmentBytes: number
    held: ReadonlyArray<Segment>
  }) {
    assert(options.held.length > 0, "there is a segment to write to")
    this.disk = options.disk
    this.directory = options.directory
    this.segmentBytes = options.segmentBytes
    this.held = [...options.held]
  }

  get count(): number {
    return this.held.length
  }

  /** The segment being written. */
  get current(): Segment {
    return this.held[this.held.length - 1] as Segment
  }

  /** Whether the next segment is there, to be gone on to. */
  get isNextReady(): boolean {
    return this.ready !== undefined
  }

  at(position: number): Segment | undefined {
    return this.held[position]
  }

  get heldBytes(): number {
    return this.held.reduce((sum, segment) => sum + segment.sizeBytes, 0)
  }

  get liveBytes(): number {
    return this.held.reduce((sum, segment) => sum + segment.liveBytes, 0)
  }

  named(path: string): Segment | undefined {
    return this.held.find((segment) => segment.path === path)
  }

  /** The held segment in which `lsn` lies. */
  find(lsn: Lsn): Segment {
    let low = 0
    let high = this.held.length - 1
    while (low < high) {
      const middle = (low + high + 1) >>> 1
      if ((this.held[middle] as Segment).baseLsn <= lsn) low = middle
      else high = middle - 1
    }
    const segment = this.held[low] as Segment
    const inside = lsn >= segment.baseLsn && lsn < segment.baseLsn + segment.sizeBytes
    assert(inside, () => `LSN ${lsn} lies in a held segment`)
    return segment
  }

  /** Fills `target` from `lsn` on. */
  read(target: Uint8Array, lsn: Lsn): void {
    const segment = this.find(lsn)
    let file = this.files.get(segment.number)
    if (file === undefined) {
      file = this.disk.open(segment.path)
      this.files.set(segment.number, file)
    }
    file.read(target, lsn - segment.baseLsn)
  }

  /**
   * The segment to make next, if it has not been asked for. `checkpointBytes` is the size of a
   * checkpoint of all groups: a segment is at least four times that, so that checkpoints never
   * become most of what is written.
   */
  jobs(checkpointBytes: number): ReadonlyArray<SegmentJob> {
    const prepared = this.ready ?? this.pending
    if (prepared !== undefined && prepared.sizeBytes >= this.wantedBytes) return []
    const least = segmentHeaderBytes + batchHeaderBytes + 4 * checkpointBytes
    const { number, baseLsn, sizeBytes } = this.current
    const job = segmentJob(this.directory, {
      number: number + 1,
      baseLsn: baseLsn + sizeBytes,
      // Twice what is wanted, because more is gathered while the segment is made.
      sizeBytes: Math.max(this.segmentBytes, least, 2 * this.wantedBytes),
    })
    this.ready = undefined
    this.pending = job
    return [job]
  }

  /** A job found no space: it is asked for again by a later call of `jobs`. */
  jobFailed(job: SegmentJob): void {
    if (this.pending?.number === job.number && this.pending.sizeBytes === job.sizeBytes) {
      this.pending = undefined
    }
  }

  /** A job is done. One that a larger one has replaced since does not count. */
  jobDone(job: SegmentJob): void {
    const pending = this.pending
    if (pending?.number !== job.number || pending.sizeBytes !== job.sizeBytes) return
    this.pending = undefined
    this.ready = pending
  }

  /**
   * Goes on to the next segment if one of at least `bytes` is ready; else remembers to ask for it.
   */
  openNext(bytes: number): Segment | undefined {
    const job = this.ready
    if (job === undefined || job.sizeBytes < bytes) {
      this.wantedBytes = Math.max(this.wantedBytes, bytes)
      return undefined
    }
    const previous = this.current
    const segment: Segment = {
      number: job.number,
      path: job.path,
      baseLsn: previous.baseLsn + previous.sizeBytes,
      sizeBytes: job.sizeBytes,
      liveCount: 0,
      liveBytes: 0,
    }
    this.held.push(segment)
    this.ready = undefined
    this.wantedBytes = 0
    return segment
  }

  /** Forgets a segment whose file is about to be removed. */
  drop(segment: Segment): void {
    const position = this.held.indexOf(segment)
    assert(position >= 0 && segment !== this.current, () => `segment ${segment.number} can go`)
    this.held.splice(position, 1)
    this.files.get(segment.number)?.close()
    this.files.delete(segment.number)
  }

  /** Closes the files opened for reading. */
  close(): void {
    for (const file of this.files.values()) file.close()
    this.files.clear()
  }
}
