import type { Disk } from "../disk/disk.ts"
import { StorageCorruption } from "../disk/disk.ts"
import { ByteWriter } from "../lib/byteWriter.ts"
import type { Lsn } from "../types.ts"
import {
  type BatchHeader,
  batchHeaderBytes,
  patchBatchHeader,
  RecordView,
  readBatchHeader,
  segmentHeaderBytes,
} from "./format.ts"
import { type OpenSegment, openSegments } from "./openSegments.ts"
import { Replay } from "./replay.ts"
import { Salvage } from "./salvage.ts"
import {
  isUnfinished,
  prepareSegment,
  removeSegments,
  type Segment,
  segmentJob,
  segmentNumber,
} from "./segments.ts"
import { type SegmentBytes, type Span, spans } from "./spans.ts"

/**
 * What the files hold. Flow:
 *
 * 1. List the segments; refuse a gap, a wrong length, a newer format; make damaged headers anew (openSegments.ts).
 * 2. Oldest first, replay batch by batch. A place without a whole batch is a *hole* if a batch behind it states that bytes beyond its beginning were
 *    durable: it is salvaged (salvage.ts), and what comes after counts. The batch that opens the next segment states where this one's content ends: what
 *    lies beyond is a sealing batch.
 * 3. Else it is a *torn tail*: the journal ends there, whole batches behind it included.
 * 4. Remove the segments after the end, write zeros over the torn tail, write again what nobody
 *    states to be durable, and sync: from here on all that was read is durable, and nothing of the
 *    tail can come back under a later batch. (A failed fsync may leave pages in the cache that look
 *    clean and are not on the disk: syncing alone would not do.) What only the tail states to be durable is stated
 *    again, in a sealing batch: a hole stays one, however often recovery runs.
 */
export interface RecoveredFiles {
  readonly replay: Replay
  /** Segments with content, oldest first; the last one is written on. */
  readonly held: ReadonlyArray<Segment>
  /** Where the next batch goes. All before it is durable. */
  readonly endLsn: Lsn
  /** The largest durable LSN that a batch states. */
  readonly statedLsn: Lsn
  /** Durable bytes that are not what was written: headers of segments, then the others in order of their place. */
  readonly holes: ReadonlyArray<StorageCorruption>
  /** There was no journal: this is a new one. */
  readonly created: boolean
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
    return { replay, held: [segment], endLsn, statedLsn: endLsn, holes: [], created: true }
  }
  const { segments, damages } = openSegments(disk, directory, { numbers, segmentBytes })
  try {
    const files = new Recovery(disk, segments, replay).run()
    return { ...files, holes: [...damages, ...files.holes] }
  } finally {
    for (const segment of segments) segment.file.close()
  }
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
  /** Segments that are in memory: the one being read and the next one. */
  private readonly loaded = new Map<OpenSegment, SegmentBytes>()
  private readonly holes: Array<StorageCorruption> = []
  /** The largest durable LSN that a batch met so far states. */
  private statedLsn: Lsn = 0
  /** The largest that any batch states, once somebody asked. */
  private finalStatement: Lsn | undefined

  constructor(disk: Disk, segments: ReadonlyArray<OpenSegment>, replay: Replay) {
    this.disk = disk
    this.segments = segments
    this.replay = replay
  }

  run(): RecoveredFiles {
    const { segments, replay, holes } = this
    let position = 0
    let end = segmentHeaderBytes
    for (let at = 0; at < segments.length; at++) {
      if (at > 0 && !this.isInUse(at)) break
      position = at
      const read = this.readSegment(at)
      end = read.end
      if (read.isLast) break
    }
    const segment = segments[position] as OpenSegment
    if (end === segmentHeaderBytes && segment.number > 1) throw hole(segment, end)
    end = this.cleanTail(position, end)
    return {
      replay,
      held: segments.slice(0, position + 1).map(({ file: _, ...held }) => held),
      endLsn: segment.baseLsn + end,
      statedLsn: this.statedLsn,
      holes,
      created: false,
    }
  }

  private load(position: number): SegmentBytes {
    const segment = this.segments[position] as OpenSegment
    const known = this.loaded.get(segment)
    if (known !== undefined) return known
    const kept = this.segments[position - 1]
    for (const other of this.loaded.keys()) if (other !== kept) this.loaded.delete(other)
    const bytes = new Uint8Array(segment.file.sizeBytes)
    segment.file.read(bytes, 0)
    const view = new DataView(bytes.buffer)
    const loaded = { bytes, view, baseLsn: segment.baseLsn }
    this.loaded.set(segment, loaded)
    return loaded
  }

  /** The header of the batch that opens a segment; `undefined` when it was never written, or is damaged. */
  private openingBatch(position: number): BatchHeader | undefined {
    if (position >= this.segments.length) return undefined
    const { bytes, view, baseLsn } = this.load(position)
    return readBatchHeader(bytes, view, segmentHeaderBytes, baseLsn + segmentHeaderBytes)
  }

  /** Whether the batch that opens a segment is whole, or was durable once. */
  private isInUse(position: number): boolean {
    const segment = this.load(position)
    const [first] = spans(segment)
    if (first?._tag === "Batch") return true
    return this.stated(position) > segment.baseLsn + segmentHeaderBytes
  }

  /**
   * Replays a segment. `end`: the offset after its last batch, or of what is torn. `isLast`: the journal ends there.
   */
  private readSegment(position: number): { readonly end: number; readonly isLast: boolean } {
    const { path, baseLsn } = this.segments[position] as OpenSegment
    const opening = this.openingBatch(position + 1)
    const contentEnd = opening === undefined ? undefined : opening.durableLsn - baseLsn
    const segment = this.load(position)
    this.replay.beginSegment({ path, baseLsn, oldest: position === 0 })
    let end = segmentHeaderBytes
    for (const span of spans(segment)) {
      if (span._tag === "Batch") {
        this.statedLsn = Math.max(this.statedLsn, span.header.durableLsn)
        if (contentEnd !== undefined && span.end > contentEnd) {
          this.refuseRecords(position, span.header, contentEnd)
        } else this.replayBatch(span.header, segment)
        end = span.end
        continue
      }
      const statedEnd = contentEnd ?? this.stated(position) - baseLsn
      // Behind the content of a segment lies nothing, or a sealing batch that was lost.
      if (span.offset >= statedEnd) {
        if (contentEnd === undefined) return { end: span.offset, isLast: true }
        continue
      }
      const holeEnd = Math.min(span.end, statedEnd)
      this.passHole({ position, span, end: holeEnd })
      end = holeEnd
      if (contentEnd === undefined && holeEnd < span.end) return { end, isLast: true }
    }
    return { end, isLast: false }
  }

  private replayBatch(header: BatchHeader, { bytes, view, baseLsn }: SegmentBytes): void {
    const { recordCount, checkpointCount } = header
    const start = header.lsn - baseLsn
    let at = start + batchHeaderBytes
    for (let i = 0; i <= recordCount; i++) {
      if (i === checkpointCount && start === segmentHeaderBytes) {
        this.replay.endCheckpoint(checkpointCount)
      }
      if (i === recordCount) break
      this.record.parse(bytes, view, at, baseLsn + at)
      this.replay.apply(this.record)
      at += this.record.lengthBytes
    }
  }

  /** Takes what can be read of a damaged place, and notes it. */
  private passHole(place: { position: number; span: Span; end: number }): void {
    const { position, span, end } = place
    const segment = this.segments[position] as OpenSegment
    const salvage = new Salvage(this.replay, this.load(position))
    if (span._tag === "BrokenBatch") {
      this.statedLsn = Math.max(this.statedLsn, span.header.durableLsn)
      salvage.batch(span, position === 0 && span.offset === segmentHeaderBytes)
      this.holes.push(hole(segment, span.badOffset))
    } else if (this.isUnwritten(position, span)) {
      // Most likely nothing was ever written here; the batch that would say so is damaged, and noted when its turn comes.
      this.replay.lost()
    } else {
      salvage.gap(span.offset, end)
      this.holes.push(hole(segment, span.offset))
    }
  }

  /** Zeros up to the end of a segment that is not the last. */
  private isUnwritten(position: number, span: Span): boolean {
    const { sizeBytes } = this.segments[position] as OpenSegment
    const reachesEnd = span.end === sizeBytes && position + 1 < this.segments.length
    return span._tag === "Gap" && span.zeros && reachesEnd
  }

  private refuseRecords(position: number, header: BatchHeader, contentEnd: number): void {
    if (header.recordCount === 0) return
    throw new StorageCorruption({
      path: (this.segments[position] as OpenSegment).path,
      offset: contentEnd,
      expected: "the end of the segment's content, as the next segment has it",
      actual: "more records",
    })
  }

  /** The largest durable LSN that a batch in the segment at `position` or behind it states: those before state less than where they lie. */
  protected stated(position: number): Lsn {
    if (this.finalStatement !== undefined) return this.finalStatement
    let largest = 0
    for (let at = position; at < this.segments.length; at++) {
      for (const span of spans(this.load(at))) {
        if (span._tag !== "Gap") largest = Math.max(largest, span.header.durableLsn)
      }
    }
    this.finalStatement = largest
    return largest
  }

  /** Returns where the next batch goes. */
  private cleanTail(position: number, end: number): number {
    const { file, baseLsn } = this.segments[position] as OpenSegment
    const { bytes } = this.load(position)
    const from = Math.max(segmentHeaderBytes, this.statedLsn - baseLsn)
    const seal = this.lostStatement(position, end)
    if (seal !== undefined) file.write(seal, end)
    const cleanEnd = end + (seal?.length ?? 0)
    const dirtyEnd = endOfNonZero(bytes)
    if (dirtyEnd > cleanEnd) file.write(new Uint8Array(dirtyEnd - cleanEnd), cleanEnd)
    if (from < end) file.write(bytes.subarray(from, end), from)
    file.sync()
    const unused = this.segments.slice(position + 1).map((segment) => segment.path)
    // Not before what they state stands elsewhere; the newest first: a crash in between must not leave a gap.
    removeSegments(this.disk, unused.reverse())
    return cleanEnd
  }

  /**
   * A sealing batch with what only batches behind the end state, which are about to go: without it the next recovery would take a hole that they prove
   * for a torn tail, and a vote that was lost in it for none. `undefined` when there is no such thing, or no room, which only a segment that was full to the
   * last bytes lacks.
   */
  private lostStatement(position: number, end: number): Uint8Array | undefined {
    const { baseLsn, sizeBytes } = this.segments[position] as OpenSegment
    const durableLsn = this.finalStatement ?? 0
    if (this.holes.length === 0 || durableLsn <= this.statedLsn) return undefined
    if (end + batchHeaderBytes > sizeBytes) return undefined
    this.statedLsn = durableLsn
    const writer = new ByteWriter(batchHeaderBytes)
    writer.raw(new Uint8Array(batchHeaderBytes))
    const counts = { recordCount: 0, checkpointCount: 0, standingCount: 0 }
    const lsn = baseLsn + end
    patchBatchHeader(writer, { lengthBytes: batchHeaderBytes, ...counts, lsn, durableLsn })
    return writer.bytes()
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
