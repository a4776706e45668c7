import {
  batchHeaderBytes,
  RecordView,
  recordHeaderBytes,
  recordLength,
  recordTypes,
} from "./format.ts"
import type { Replay } from "./replay.ts"
import type { SegmentBytes, Span } from "./spans.ts"
import { standingLengths } from "./standing.ts"

/** A record that is as it was written, and which one of its batch it is. */
interface Found {
  readonly offset: number
  readonly lengthBytes: number
  /** From 0; counted from the end it would be less than 0. */
  readonly ordinal: number
}

/** What is left of a batch. */
interface Remains {
  /** In order. */
  readonly found: ReadonlyArray<Found>
  /** Ordinals that were passed over one by one; `undefined` when it is not known how many are lost. */
  readonly damaged: ReadonlyArray<number> | undefined
  /** Records found before the first damaged one. */
  readonly before: number
}

/**
 * Gives a replay what can be read of a damaged place in the journal, and tells it what may be lost there.
 *
 * A record is believed only under its checksum, which its place is part of, and only where one can begin: behind the record before it, also behind a
 * damaged one of which the length is right, or, for standing records, in front of the end of the batch. So user data is never taken for a record.
 *
 * - All but a standing record is there: nothing is lost.
 * - All standing records of the batch are there: what is lost concerns their groups only, and they say where those stand.
 * - Else anything may be lost, of any group.
 */
export class Salvage {
  private readonly replay: Replay
  private readonly segment: SegmentBytes
  private readonly record = new RecordView()

  constructor(replay: Replay, segment: SegmentBytes) {
    this.replay = replay
    this.segment = segment
  }

  /** A batch with a good header. `isFirst`: it opens the oldest segment, and its checkpoint records are all there is about what they say. */
  batch(span: Extract<Span, { _tag: "BrokenBatch" }>, isFirst: boolean): void {
    const { recordCount, standingCount, checkpointCount } = span.header
    const remains = this.walk(span.offset + batchHeaderBytes, span.end, recordCount)
    const standings = this.standingsBefore(span.end, span.offset + batchHeaderBytes)
    const isHarmless = (ordinal: number) =>
      ordinal >= recordCount - standingCount || (ordinal < checkpointCount && !isFirst)
    const isWhole = remains.damaged?.every(isHarmless) === true
    this.apply(remains.found.slice(0, remains.before))
    if (!isWhole && standings.length === standingCount) {
      for (const { offset } of standings) {
        this.parse(offset)
        this.replay.lostOf(this.record, recordCount - remains.found.length)
      }
    } else if (!isWhole) this.replay.lost()
    this.apply(remains.found.slice(remains.before))
  }

  /** Bytes without a good batch header, up to `end`. */
  gap(offset: number, end: number): void {
    const remains = this.walk(offset + batchHeaderBytes, end, undefined)
    const last = remains.found[remains.before - 1]
    const walked = last === undefined ? offset + batchHeaderBytes : last.offset + last.lengthBytes
    this.apply(remains.found.slice(0, remains.before))
    // Else nothing but the header is damaged: its records are followed by the next batch.
    if (walked !== end) this.replay.lost()
    this.apply(remains.found.slice(remains.before))
  }

  private walk(start: number, end: number, recordCount: number | undefined): Remains {
    const found: Array<Found> = []
    const damaged: Array<number> = []
    let before: number | undefined
    const standings = this.standingsBefore(end, start)
    const standingStart = standings[0]?.offset ?? end
    let at = start
    let ordinal = 0
    while (at < end) {
      const lengthBytes = this.lengthAt(at, end)
      if (lengthBytes > 0) found.push({ offset: at, lengthBytes, ordinal })
      else before ??= found.length
      const passed = lengthBytes > 0 ? lengthBytes : this.lengthOfDamaged(at, end, standingStart)
      if (passed === 0 || recordCount === undefined) {
        if (lengthBytes === 0) break
      } else if (lengthBytes === 0) damaged.push(ordinal)
      at += passed
      ordinal++
    }
    before ??= found.length
    if (at === end && (recordCount === undefined || ordinal === recordCount)) {
      return { found, damaged, before }
    }
    found.push(...standings.filter(({ offset }) => offset >= at))
    return { found, damaged: undefined, before }
  }

  private lengthAt(offset: number, end: number): number {
    const { bytes, view, baseLsn } = this.segment
    return recordLength(bytes, view, offset, end, baseLsn + offset)
  }

  /**
   * The length that a damaged record states, or that a record of its kind has, or that leads to the standing records, if a good record or the end of the
   * batch follows there; else 0.
   */
  private lengthOfDamaged(offset: number, end: number, standingStart: number): number {
    if (offset + recordHeaderBytes > end) return 0
    const stated = this.segment.view.getUint32(offset + 4, true)
    const usual = [recordHeaderBytes, ...standingLengths, standingStart - offset]
    for (const length of [stated, ...usual]) {
      if (length < recordHeaderBytes || length > end - offset) continue
      const next = offset + length
      if (next === end || this.lengthAt(next, end) > 0) return length
    }
    return 0
  }

  /** Standing records that lie one before the other in front of `end`, and not before `start`. */
  private standingsBefore(end: number, start: number): ReadonlyArray<Found> {
    const found: Array<Found> = []
    let at = end
    for (;;) {
      const lengthBytes = standingLengths.find((length) => {
        const offset = at - length
        if (offset < start || this.lengthAt(offset, at) !== length) return false
        return this.typeAt(offset) === recordTypes.standing
      })
      if (lengthBytes === undefined) return found
      at -= lengthBytes
      found.unshift({ offset: at, lengthBytes, ordinal: -1 - found.length })
    }
  }

  private typeAt(offset: number): number {
    return this.segment.bytes[offset + 8] as number
  }

  private parse(offset: number): void {
    const { bytes, view, baseLsn } = this.segment
    this.record.parse(bytes, view, offset, baseLsn + offset)
  }

  private apply(found: ReadonlyArray<Found>): void {
    for (const { offset } of found) {
      this.parse(offset)
      this.replay.apply(this.record)
    }
  }
}
