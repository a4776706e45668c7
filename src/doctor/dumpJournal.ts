import type { Disk } from "../disk/disk.ts"
import { decodeSegmentHeader, type RecordView, recordTypes } from "../journal/format.ts"
import { spans } from "../journal/spans.ts"
import { readStanding, standingText } from "../journal/standing.ts"
import { readWhole, recordName, recordsOf, segmentBytes } from "./journalCheck.ts"
import { bytesText } from "./keyText.ts"

const previewBytes = 32

/** A journal segment in words: a line per batch, and under it a line per record. Throws `StorageCorruption` for its header only. */
export function* dumpJournal(disk: Disk, path: string): Generator<string, void> {
  const bytes = readWhole(disk, path)
  const { number, baseLsn, sizeBytes } = decodeSegmentHeader(path, bytes)
  yield `journal segment ${number}: base LSN ${baseLsn}, ${sizeBytes} bytes`
  const segment = segmentBytes(bytes, baseLsn)
  for (const span of spans(segment)) {
    const { offset, end } = span
    if (span._tag === "Gap") {
      yield span.zeros
        ? `${offset}  zeros to ${end}`
        : `${offset}  NO BATCH to ${end}: torn or damaged`
      continue
    }
    const { lsn, durableLsn, recordCount } = span.header
    const words = `batch  LSN ${lsn}  ${end - offset} bytes  ${recordCount} records  durable ${durableLsn}`
    yield `${offset}  ${words}`
    if (span._tag === "BrokenBatch") {
      yield `${span.badOffset}    BROKEN RECORD, the rest of the batch is not shown`
      continue
    }
    for (const record of recordsOf(segment, span)) {
      yield `${record.lsn - baseLsn}    ${recordText(record)}`
    }
  }
}

function recordText(record: RecordView): string {
  const { type, kind, range, replica, index, term, previousTerm, data } = record
  const group = `${recordName(type)}  group ${range}/${replica}`
  switch (type) {
    case recordTypes.append:
    case recordTypes.rewrite: {
      const entry = `entry ${index}@${term} after term ${previousTerm}  kind ${kind}`
      return `${group}  ${entry}  ${data.length} bytes  ${bytesText(data, previewBytes)}`
    }
    case recordTypes.hardState:
      return `${group}  term ${term} vote ${previousTerm} commit ${index}`
    case recordTypes.release:
    case recordTypes.reset:
      return `${group}  log begins after ${index}@${term}`
    case recordTypes.checkpoint:
    case recordTypes.standing: {
      const standing = readStanding(record)
      return `${group}  ${standing === undefined ? `${data.length} bytes` : standingText(standing)}`
    }
    default:
      return group
  }
}
