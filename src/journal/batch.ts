import { emptyBytes } from "../lib/bytes.ts"
import { ByteWriter } from "../lib/byteWriter.ts"
import type { LogIndex, Lsn, Term } from "../types.ts"
import { batchHeaderBytes, type RecordFields, writeRecord } from "./format.ts"
import type { JournalGroup } from "./group.ts"
import type { Segment } from "./segments.ts"

/** An entry copied to a newer segment, whose old place counts until the batch is durable; or one that was missing (`oldLsn` = noLsn). */
export interface Rewrite {
  readonly group: JournalGroup
  readonly index: LogIndex
  readonly term: Term
  readonly oldLsn: Lsn
  readonly sizeBytes: number
  /**
   * Offset of the copy among the batch's records; its LSN from the cut on, or -1 when the entry had
   * gone by then.
   */
  place: number
}

export interface Freed {
  count: number
  bytes: number
}

/** A buffer that one huge batch has grown beyond this is not kept. */
const keptBufferBytes = 8 * 1024 * 1024
const placeholder = new Uint8Array(batchHeaderBytes)

/**
 * Records gathered for the next write, in the buffer that will be written, and what follows once
 * that write is durable. Two of these take turns: one gathers while the other is being written.
 */
export class Batch {
  writer = new ByteWriter(64 * 1024)
  recordCount = 0
  /**
   * Whether anything waits for the write. Commit indexes and releases alone are worth no write of
   * their own.
   */
  forced = false
  /** Groups with a record in this batch, in the order of their first. */
  readonly touched: Array<JournalGroup> = []
  /** Groups that have a commit index or a release to add when the batch is cut. */
  readonly lagging: Array<JournalGroup> = []
  /** Places that no log needs once the batch is durable. */
  readonly freed = new Map<Segment, Freed>()
  readonly rewrites: Array<Rewrite> = []

  constructor() {
    this.writer.raw(placeholder)
  }

  get recordBytes(): number {
    return this.writer.length - batchHeaderBytes
  }

  reset(): void {
    if (this.writer.length > keptBufferBytes) this.writer = new ByteWriter(64 * 1024)
    this.writer.reset()
    this.writer.raw(placeholder)
    this.recordCount = 0
    this.forced = false
    this.touched.length = 0
    this.lagging.length = 0
    this.freed.clear()
    this.rewrites.length = 0
  }

  /** Adds a record; returns its offset among the records. */
  record(fields: RecordFields, data: Uint8Array = emptyBytes): number {
    const offset = this.recordBytes
    writeRecord(this.writer, fields, data)
    this.recordCount++
    return offset
  }

  /** Takes the records out, as a copy; `recordCount` still counts them. */
  takeRecords(): Uint8Array {
    const records = this.writer.take().subarray(batchHeaderBytes)
    this.writer.raw(placeholder)
    return records
  }

  free(segment: Segment, sizeBytes: number): void {
    const freed = this.freed.get(segment)
    if (freed === undefined) this.freed.set(segment, { count: 1, bytes: sizeBytes })
    else {
      freed.count++
      freed.bytes += sizeBytes
    }
  }
}
