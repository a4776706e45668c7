import type { Disk } from "../disk/disk.ts"
import {
  batchHeaderBytes,
  decodeSegmentHeader,
  RecordView,
  recordTypes,
  segmentHeaderBytes,
} from "../journal/format.ts"
import { gapsOf } from "../journal/gaps.ts"
import { recoverFiles } from "../journal/recovery.ts"
import { isUnfinished, segmentNumber, segmentPath } from "../journal/segments.ts"
import { type SegmentBytes, type Span, spans } from "../journal/spans.ts"
import type { Lsn } from "../types.ts"
import { DryDisk } from "./dryDisk.ts"
import { sizeText } from "./keyText.ts"
import type { Findings } from "./report.ts"

export interface SegmentReport {
  readonly path: string
  readonly sizeBytes: number
  /** Bytes of whole batches, the header of the segment included. */
  readonly contentBytes: number
  readonly batches: number
  readonly records: number
}

export interface GroupReport {
  readonly range: number
  readonly replica: number
  readonly term: number
  readonly commit: number
  readonly firstIndex: number
  readonly lastIndex: number
  readonly sizeBytes: number
  /** Entries that damage took, in runs. */
  readonly missing: ReadonlyArray<{ readonly from: number; readonly to: number }>
  /** Damage may have taken what it promised. */
  readonly isUnsure: boolean
}

export interface JournalReport {
  readonly segments: ReadonlyArray<SegmentReport>
  /** As recovery finds them; `undefined` when it refuses the journal. */
  readonly groups: ReadonlyArray<GroupReport> | undefined
}

/** Runs of missing entries that are told of one group. */
const gapsShown = 8

/** A segment whose header could be read, or follows from its neighbours. */
interface KnownSegment {
  readonly path: string
  readonly number: number
  readonly baseLsn: Lsn
  readonly sizeBytes: number
}

/** A place that holds no whole batch, and may be a hole. */
interface Suspect {
  readonly path: string
  /** Of the first byte found wrong. */
  readonly offset: number
  /** Where the batch begins, if there is one. */
  readonly startOffset: number
  readonly lsn: Lsn
  readonly endLsn: Lsn
  /** Where the segment's content ends if there is nothing wrong: the rest of it, behind the last batch. */
  readonly trailing: boolean
  readonly zeros: boolean
  readonly words: string
}

const recordNames = new Map<number, string>(
  Object.entries(recordTypes).map(([name, value]) => [value, name]),
)

export function recordName(type: number): string {
  return recordNames.get(type) ?? `type ${type}`
}

/**
 * The journal, segment by segment and to its end whatever is wrong on the way, and then by the code that recovers it,
 * whose word is final on what a start would refuse.
 *
 * A place without a whole batch is a hole if a batch behind it states that bytes beyond that place were durable; otherwise
 * it is the torn tail of writes that were never acknowledged (journal/recovery.ts). What a hole took from each group, recovery tells: the node starts all the
 * same, and asks the other replicas for it.
 */
export class JournalCheck {
  private readonly disk: Disk
  private readonly directory: string
  private readonly findings: Findings
  private readonly segments: Array<SegmentReport> = []
  private readonly suspects: Array<Suspect> = []
  /** The largest durable LSN that a good batch header states. */
  private statedLsn: Lsn = 0
  /** What the batch that opens a segment states, by the base LSN of the segment. */
  private readonly openings = new Map<Lsn, Lsn>()
  private previous: KnownSegment | undefined

  constructor(options: { disk: Disk; directory: string; findings: Findings }) {
    this.disk = options.disk
    this.directory = options.directory
    this.findings = options.findings
  }

  /** Yields the path of each file that is about to be read, and its size when it has been. */
  *run(): Generator<{ readonly path: string; readonly readBytes: number }, JournalReport> {
    const numbers: Array<number> = []
    for (const name of this.disk.list(this.directory)) {
      const number = segmentNumber(name)
      if (number !== undefined) numbers.push(number)
      else if (isUnfinished(name)) {
        this.findings.notes.push(
          `${this.directory}/${name} is an unfinished segment; the next start removes it`,
        )
      } else this.findings.notes.push(`${this.directory}/${name} is no file of the journal`)
    }
    numbers.sort((left, right) => left - right)
    for (const number of numbers) {
      const path = segmentPath(this.directory, number)
      yield { path, readBytes: 0 }
      const readBytes = this.findings.attempt("a segment", () => this.segment(number, path), path)
      yield { path, readBytes: readBytes ?? 0 }
    }
    this.judge()
    return { segments: this.segments, groups: this.recover() }
  }

  private segment(number: number, path: string): number {
    const bytes = readWhole(this.disk, path)
    const known = this.knownSegment({ number, path, bytes })
    if (known !== undefined) {
      this.walk(known, bytes)
      this.previous = known
    }
    return bytes.length
  }

  /** The segment as its header and the one before it have it; what they disagree on is a damage. */
  private knownSegment(file: {
    number: number
    path: string
    bytes: Uint8Array
  }): KnownSegment | undefined {
    const { number, path, bytes } = file
    const { findings, previous } = this
    const follows = previous !== undefined && number === previous.number + 1
    if (previous !== undefined && !follows) {
      findings.add({
        path: segmentPath(this.directory, previous.number + 1),
        offset: 0,
        expected: `a segment between ${previous.path} and ${path}`,
        found: "no such file",
        covers: `the batches from LSN ${previous.baseLsn + previous.sizeBytes} to those of ${path}`,
      })
    }
    const covers = "where the batches of the segment belong"
    const header = findings.attempt(covers, () => decodeSegmentHeader(path, bytes), path)
    const expectedLsn = follows ? previous.baseLsn + previous.sizeBytes : header?.baseLsn
    if (expectedLsn === undefined) return undefined
    const check = (offset: number, expected: string, found: string) => {
      if (expected !== found) findings.add({ path, offset, expected, found, covers })
    }
    if (header !== undefined) {
      check(16, `segment ${number}`, `segment ${header.number}`)
      check(24, `base LSN ${expectedLsn}`, `base LSN ${header.baseLsn}`)
      check(bytes.length, `${header.sizeBytes} bytes in all`, `${bytes.length} bytes in all`)
    }
    return { path, number, baseLsn: expectedLsn, sizeBytes: header?.sizeBytes ?? bytes.length }
  }

  private walk({ path, baseLsn, sizeBytes }: KnownSegment, bytes: Uint8Array): void {
    let contentBytes = segmentHeaderBytes
    let batches = 0
    let records = 0
    for (const span of spans(segmentBytes(bytes, baseLsn))) {
      if (span._tag !== "Gap") {
        const { durableLsn } = span.header
        this.statedLsn = Math.max(this.statedLsn, durableLsn)
        if (span.offset === segmentHeaderBytes) this.openings.set(baseLsn, durableLsn)
      }
      if (span._tag === "Batch") {
        batches++
        records += span.header.recordCount
        contentBytes += span.end - span.offset
      } else {
        this.suspects.push(suspect(path, baseLsn, span, span.end === bytes.length))
      }
    }
    this.segments.push({ path, sizeBytes, contentBytes, batches, records })
  }

  /** Tells holes from torn tails. */
  private judge(): void {
    for (const place of this.suspects) {
      if (this.isHole(place)) this.addHole(place)
      else if (!place.zeros) {
        const bytes = place.endLsn - place.lsn
        this.findings.notes.push(
          `${place.path} from byte ${place.startOffset}: a torn tail (${sizeText(bytes)}) that was never acknowledged; the next start clears it`,
        )
      }
    }
  }

  private isHole(place: Suspect): boolean {
    if (place.trailing) {
      // What is left of a segment behind its last batch: the batch that opens the next one states where the content ended.
      const opening = this.openings.get(place.endLsn)
      if (opening !== undefined) return opening > place.lsn
      if (place.zeros) return false
    }
    // Batches before the place state less than where they lie themselves.
    return this.statedLsn > place.lsn
  }

  private addHole(place: Suspect): void {
    this.findings.add({
      path: place.path,
      offset: place.offset,
      expected: "a batch that was durable",
      found: "other bytes (a hole in the journal)",
      covers: place.words,
    })
  }

  private recover(): ReadonlyArray<GroupReport> | undefined {
    const { disk, directory, findings } = this
    if (this.segments.length === 0) return undefined
    return findings.attempt(
      "the journal as a whole: a start refuses it",
      () =>
        recoverFiles(new DryDisk(disk), directory, 1024 * 1024)
          .replay.groups()
          .map(({ key, hardState, places, isUnsure }) => ({
            range: key.range,
            replica: key.replica,
            term: hardState.term,
            commit: hardState.commit,
            firstIndex: places.baseIndex + 1,
            lastIndex: places.lastIndex,
            sizeBytes: places.sizeBytes,
            missing: gapsOf(places, gapsShown).map(({ from, to }) => ({ from, to })),
            isUnsure,
          })),
      directory,
    )
  }
}

function suspect(
  path: string,
  baseLsn: Lsn,
  span: Exclude<Span, { _tag: "Batch" }>,
  reachesEnd: boolean,
): Suspect {
  const { offset: startOffset, end } = span
  const lsn = baseLsn + startOffset
  const endLsn = baseLsn + end
  const lsns = `LSN ${lsn} to ${endLsn}`
  const place = { path, startOffset, lsn, endLsn }
  if (span._tag === "Gap") {
    const words = `${lsns}, whatever records lay there`
    return { ...place, offset: startOffset, trailing: reachesEnd, zeros: span.zeros, words }
  }
  const words = `${lsns}, a batch of ${span.header.recordCount} records`
  return { ...place, offset: span.badOffset, trailing: false, zeros: false, words }
}

export function segmentBytes(bytes: Uint8Array, baseLsn: Lsn): SegmentBytes {
  return { bytes, view: new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), baseLsn }
}

export function readWhole(disk: Disk, path: string): Uint8Array {
  const file = disk.open(path)
  try {
    const bytes = new Uint8Array(file.sizeBytes)
    return bytes.subarray(0, file.read(bytes, 0))
  } finally {
    file.close()
  }
}

/** The records of a batch at `offset` that is known to be whole. */
export function* recordsOf(
  segment: SegmentBytes,
  span: Extract<Span, { _tag: "Batch" }>,
): Generator<RecordView, void> {
  const record = new RecordView()
  let at = span.offset + batchHeaderBytes
  for (let i = 0; i < span.header.recordCount; i++) {
    record.parse(segment.bytes, segment.view, at, segment.baseLsn + at)
    yield record
    at += record.lengthBytes
  }
}
