import { StorageCorruption } from "../disk/disk.ts"
import type { LogIndex } from "../types.ts"
import { RecordView, recordLength } from "./format.ts"
import type { GroupKey } from "./group.ts"
import type { GroupIndex } from "./groupIndex.ts"
import type { Segments } from "./segments.ts"

/** Read at once when entries that follow on each other are read. */
const windowBytes = 1024 * 1024
const noBytes = new Uint8Array(0)
const noView = new DataView(noBytes.buffer)

/** Reads entries of one group back from the journal's files, and checks that they are those. */
export class EntryReader {
  private readonly key: GroupKey
  private readonly places: GroupIndex
  private readonly segments: Segments
  private readonly record = new RecordView()
  private bytes = noBytes
  private view = noView
  private windowLsn = 0
  private filledBytes = 0

  constructor(key: GroupKey, places: GroupIndex, segments: Segments) {
    this.key = key
    this.places = places
    this.segments = segments
  }

  /** The record of an entry, read by itself. Its data is the caller's to keep. */
  read(index: LogIndex): RecordView {
    // What was read before is somebody's already.
    this.bytes = noBytes
    this.load(index, this.places.sizeAt(index))
    return this.check(index)
  }

  /** As `read`, for one index after the other: the data is valid until the next call. */
  readOn(index: LogIndex): RecordView {
    const lsn = this.places.lsnAt(index)
    const end = lsn + this.places.sizeAt(index)
    const isInside = lsn >= this.windowLsn && end <= this.windowLsn + this.filledBytes
    if (!isInside) this.load(index, Math.max(windowBytes, end - lsn))
    return this.check(index)
  }

  private load(index: LogIndex, wantedBytes: number): void {
    const lsn = this.places.lsnAt(index)
    const segment = this.segments.find(lsn)
    const count = Math.min(wantedBytes, segment.baseLsn + segment.sizeBytes - lsn)
    if (this.bytes.length < count) {
      // The buffer first: asked for afterwards, it costs more than the reading.
      const buffer = new ArrayBuffer(count)
      this.bytes = new Uint8Array(buffer)
      this.view = new DataView(buffer)
    }
    const { bytes } = this
    this.segments.read(count === bytes.length ? bytes : bytes.subarray(0, count), lsn)
    this.windowLsn = lsn
    this.filledBytes = count
  }

  private check(index: LogIndex): RecordView {
    const { record, places, bytes, view } = this
    const lsn = places.lsnAt(index)
    const sizeBytes = places.sizeAt(index)
    const at = lsn - this.windowLsn
    const whole = recordLength(bytes, view, at, at + sizeBytes, lsn) === sizeBytes
    if (whole) record.parse(bytes, view, at, lsn)
    const { range, replica } = this.key
    const term = places.termAt(index)
    const same = record.range === range && record.replica === replica && record.index === index
    if (whole && same && record.term === term) return record
    const segment = this.segments.find(lsn)
    throw new StorageCorruption({
      path: segment.path,
      offset: lsn - segment.baseLsn,
      expected: `entry ${index} of term ${term} of range ${range}, replica ${replica}`,
      actual: whole ? "another record" : "a damaged record",
    })
  }
}
