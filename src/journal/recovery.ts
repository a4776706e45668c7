import type { Disk, DiskFile } from "../disk/disk.ts"
import { StorageCorruption } from "../disk/disk.ts"
import type { Lsn } from "../types.ts"
import {
  type BatchHeader,
  batchHeaderBytes,
  batchMagic,
  decodeSegmentHeader,
  RecordView,
  readBatchHeader,
  recordLength,
  segmentHeaderBytes,
} from "./format.ts"
import { Replay } from "./replay.ts"
import {
  isUnfinished,
  prepareSegment,
  removeSegments,
  type Segment,
  segmentJob,
  segmentNumber,
  segmentPath,
} from "./segments.ts"

/**
 * What the files hold. Flow:
 *
 * 1. List the segments; refuse a gap, a wrong length, a newer format.
 * 2. Oldest first, replay batch by batch up to the first one that is not whole. When the next
 *    segment opens with a batch, that one says where this segment's content ends: short of it is a
 *    hole, and what lies beyond it is a sealing batch.
 * 3. Where no segment follows, look through all the bytes after the end for batch headers. One that
 *    states a durable LSN beyond the end makes the damage a hole; else it is a torn tail, whole
 *    batches in it included.
 * 4. Remove the segments after the end, write zeros over the torn tail, write again what nobody
 *    states to be durable, and sync: from here on all that was read is durable, and nothing of the
 *    tail can come back under a later batch. (A failed fsync may leave pages in the cache that look
 *    clean and are not on the disk: syncing alone would not do.)
 */
export interface RecoveredFiles {
  readonly replay: Replay
  /** Segments with content, oldest first; the last one is written on. */
  readonly held: ReadonlyArray<Segment>
  /** Where the next batch goes. All before it is durable. */
  readonly endLsn: Lsn
  /** The largest durable LSN that a batch states. */
  readonly statedLsn: Lsn
  /** There was no journal: this is a new one. */
  readonly created: boolean
}

interface Scan {
  /** Offset after the last whole batch. */
  readonly end: number
  /** Offset of the first byte found wrong: `end`, or a record behind a good batch header. */
  readonly bad: number
  /** Offset after the last batch that holds records. */
  readonly contentEnd: number
  readonly statedLsn: Lsn
}

export function recoverFiles(disk: Disk, directory: string, segmentBytes: number): RecoveredFiles {
  disk.makeDirectory(directory)
  disk.syncDirectory(directory.slice(0, Math.max(0, directory.lastIndexOf("/"))))
  const names = disk.list(directory)
  for (const name of names) if (isUnfinished(name)) disk.remove(`${directory}/${name}`)
  // A process that was killed may have left a segment whose name would not survive a power loss.
  disk.syncDirectory(directory)
  const numbers = names.map(segmentNumber).filter((number) => number !== undefined)
  numbers.sort((left, right) => left - right)
  const first = numbers[0]
  const replay = new Replay()
  if (first === undefined) {
    const shape = { number: 1, baseLsn: 0, sizeBytes: segmentBytes }
    const job = segmentJob(directory, shape)
    prepareSegment(disk, job)
    const segment = { ...shape, path: job.path, liveCount: 0, liveBytes: 0 }
    const endLsn = segmentHeaderBytes
    return { replay, held: [segment], endLsn, statedLsn: endLsn, created: true }
  }
  const segments = openSegments(disk, directory, numbers)
  try {
    return new Recovery(disk, segments, replay).run()
  } finally {
    for (const segment of segments) segment.file.close()
  }
}

interface OpenSegment extends Segment {
  readonly file: DiskFile
}

function openSegments(
  disk: Disk,
  directory: string,
  numbers: ReadonlyArray<number>,
): ReadonlyArray<OpenSegment> {
  const segments: Array<OpenSegment> = []
  for (const number of numbers) {
    const previous = segments[segments.length - 1]
    const path = segmentPath(directory, number)
    if (previous !== undefined && number !== previous.number + 1) {
      throw new StorageCorruption({
        path: segmentPath(directory, previous.number + 1),
        offset: 0,
        expected: `a segment between ${previous.path} and ${path}`,
        actual: "no such file",
      })
    }
    const file = disk.open(path)
    const bytes = new Uint8Array(Math.min(segmentHeaderBytes, file.sizeBytes))
    file.read(bytes, 0)
    const header = decodeSegmentHeader(path, bytes)
    const baseLsn = previous === undefined ? header.baseLsn : previous.baseLsn + previous.sizeBytes
    const refuse = (offset: number, expected: string, actual: string) => {
      if (expected !== actual) throw new StorageCorruption({ path, offset, expected, actual })
    }
    refuse(16, `segment ${number}`, `segment ${header.number}`)
    refuse(24, `base LSN ${baseLsn}`, `base LSN ${header.baseLsn}`)
    refuse(file.sizeBytes, `${header.sizeBytes} bytes in all`, `${file.sizeBytes} bytes in all`)
    segments.push({ ...header, path, file, liveCount: 0, liveBytes: 0 })
  }
  return segments
}

/**
 * One reading of the files. Its steps are methods, so that a test can leave one out and see what
 * breaks.
 */
export class Recovery {
  private readonly disk: Disk
  private readonly segments: ReadonlyArray<OpenSegment>
  private readonly replay: Replay
  private readonly record = new RecordView()
  private loaded: OpenSegment | undefined
  /** Bytes of the segment that is loaded. */
  private bytes = new Uint8Array(0)
  private view = new DataView(this.bytes.buffer)

  constructor(disk: Disk, segments: ReadonlyArray<OpenSegment>, replay: Replay) {
    this.disk = disk
    this.segments = segments
    this.replay = replay
  }

  run(): RecoveredFiles {
    const { segments, replay } = this
    let position = 0
    let scan = this.scanSegment(0)
    for (;;) {
      const segment = segments[position] as OpenSegment
      const next = segments[position + 1]
      const opening = next && this.openingBatch(next)
      if (next === undefined || opening === undefined) break
      this.checkSegmentEnd(segment, scan, opening)
      const nextScan = this.scanSegment(position + 1)
      if (nextScan.end === segmentHeaderBytes) {
        this.refuseHole(position, scan, { segment: next, offset: nextScan.bad })
        break
      }
      position++
      scan = nextScan
    }
    this.refuseHole(position, scan)
    const segment = segments[position] as OpenSegment
    if (scan.end === segmentHeaderBytes && segment.number > 1) throw hole(segment, scan.bad)
    replay.end((segments[0] as OpenSegment).path)
    this.cleanTail(position, scan)
    return {
      replay,
      held: segments.slice(0, position + 1).map(({ file: _, ...held }) => held),
      endLsn: segment.baseLsn + scan.end,
      statedLsn: scan.statedLsn,
      created: false,
    }
  }

  private readSegment(segment: OpenSegment): void {
    if (this.loaded === segment) return
    this.loaded = segment
    if (this.bytes.length !== segment.sizeBytes) {
      this.bytes = new Uint8Array(segment.file.sizeBytes)
      this.view = new DataView(this.bytes.buffer)
    }
    segment.file.read(this.bytes, 0)
  }

  /**
   * The header of the batch that opens a segment; `undefined` when it was never written, or is
   * damaged.
   */
  private openingBatch(segment: OpenSegment): BatchHeader | undefined {
    this.readSegment(segment)
    const lsn = segment.baseLsn + segmentHeaderBytes
    return readBatchHeader(this.bytes, this.view, segmentHeaderBytes, lsn)
  }

  /** Replays the whole batches of a segment up to the first that is not. */
  private scanSegment(position: number): Scan {
    const segment = this.segments[position] as OpenSegment
    const { path, baseLsn } = segment
    this.readSegment(segment)
    this.replay.beginSegment({ path, baseLsn, oldest: position === 0 })
    let end = segmentHeaderBytes
    let contentEnd = end
    let statedLsn = 0
    for (;;) {
      const header = readBatchHeader(this.bytes, this.view, end, baseLsn + end)
      if (header === undefined) return { end, bad: end, contentEnd, statedLsn }
      statedLsn = Math.max(statedLsn, header.durableLsn)
      const bad = this.firstBadRecord(header, end)
      if (bad !== undefined) return { end, bad, contentEnd, statedLsn }
      this.replayBatch(header, end, baseLsn)
      end += header.lengthBytes
      if (header.recordCount > 0) contentEnd = end
    }
  }

  /** Offset of the first record of a batch that is not as it was written. */
  private firstBadRecord(header: BatchHeader, start: number): number | undefined {
    const limit = start + header.lengthBytes
    let at = start + batchHeaderBytes
    for (let i = 0; i < header.recordCount; i++) {
      const length = recordLength(this.bytes, this.view, at, limit, header.lsn + (at - start))
      if (length === 0) return at
      at += length
    }
    return at === limit ? undefined : at
  }

  private replayBatch(header: BatchHeader, start: number, baseLsn: Lsn): void {
    const { recordCount, checkpointCount } = header
    let at = start + batchHeaderBytes
    for (let i = 0; i <= recordCount; i++) {
      if (i === checkpointCount && start === segmentHeaderBytes) {
        this.replay.endCheckpoint(checkpointCount)
      }
      if (i === recordCount) break
      this.record.parse(this.bytes, this.view, at, baseLsn + at)
      this.replay.apply(this.record)
      at += this.record.lengthBytes
    }
  }

  private checkSegmentEnd(segment: OpenSegment, scan: Scan, opening: BatchHeader): void {
    if (opening.durableLsn > segment.baseLsn + scan.end) throw hole(segment, scan.bad)
    if (opening.durableLsn < segment.baseLsn + scan.contentEnd) {
      throw new StorageCorruption({
        path: segment.path,
        offset: opening.durableLsn - segment.baseLsn,
        expected: "the end of the segment's content, as the next segment has it",
        actual: "more records",
      })
    }
  }

  /**
   * Throws if a batch after the end of `scan` states that bytes beyond that end were durable.
   * `damaged` is where the next segment's first batch is broken, when the end is that of the
   * segment before it.
   */
  private refuseHole(
    position: number,
    scan: Scan,
    damaged?: { readonly segment: OpenSegment; readonly offset: number },
  ): void {
    const segment = this.segments[position] as OpenSegment
    const endLsn = segment.baseLsn + scan.end
    for (let i = position; i < this.segments.length; i++) {
      const later = this.segments[i] as OpenSegment
      this.readSegment(later)
      const from = i === position ? scan.end + 1 : segmentHeaderBytes
      const statedLsn = this.largestStatement(later, from)
      if (statedLsn <= endLsn) continue
      const next = this.segments[position + 1]
      if (damaged !== undefined) throw hole(damaged.segment, damaged.offset)
      if (next !== undefined && statedLsn > next.baseLsn + segmentHeaderBytes) {
        throw hole(next, segmentHeaderBytes)
      }
      throw hole(segment, scan.bad)
    }
  }

  /**
   * The largest durable LSN in any valid batch header of the segment from offset `from` on,
   * wherever it lies; else 0.
   */
  private largestStatement(segment: OpenSegment, from: number): Lsn {
    const buffer = Buffer.from(this.bytes.buffer)
    let largest = 0
    let at = buffer.indexOf(batchMagic, from)
    while (at >= 0) {
      const header = readBatchHeader(this.bytes, this.view, at, segment.baseLsn + at)
      if (header !== undefined) largest = Math.max(largest, header.durableLsn)
      at = buffer.indexOf(batchMagic, at + 1)
    }
    return largest
  }

  private cleanTail(position: number, scan: Scan): void {
    const unused = this.segments.slice(position + 1).map((segment) => segment.path)
    // The newest first: a crash in between must not leave a gap.
    removeSegments(this.disk, unused.reverse())
    const segment = this.segments[position] as OpenSegment
    this.readSegment(segment)
    const { file, baseLsn } = segment
    const dirtyEnd = endOfNonZero(this.bytes)
    if (dirtyEnd > scan.end) file.write(new Uint8Array(dirtyEnd - scan.end), scan.end)
    const from = Math.max(segmentHeaderBytes, scan.statedLsn - baseLsn)
    if (from < scan.end) file.write(this.bytes.subarray(from, scan.end), from)
    file.sync()
  }
}

/** Offset after the last byte that is not zero. */
function endOfNonZero(bytes: Uint8Array): number {
  let end = bytes.length
  if (end % 4 === 0) {
    // Four bytes at a time at first: most of a segment is zeros.
    const words = new Int32Array(bytes.buffer, bytes.byteOffset, end / 4)
    let count = words.length
    while (count > 0 && words[count - 1] === 0) count--
    end = count * 4
  }
  while (end > 0 && bytes[end - 1] === 0) end--
  return end
}

function hole(segment: Segment, offset: number): StorageCorruption {
  return new StorageCorruption({
    path: segment.path,
    offset,
    expected: "a batch that was durable",
    actual: "other bytes (a hole in the journal)",
  })
}
