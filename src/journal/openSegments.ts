import type { Disk, DiskFile } from "../disk/disk.ts"
import { StorageCorruption } from "../disk/disk.ts"
import type { Lsn } from "../types.ts"
import {
  decodeSegmentHeader,
  encodeSegmentHeader,
  readBatchHeader,
  type SegmentHeader,
  segmentHeaderBytes,
} from "./format.ts"
import { type Segment, segmentPath } from "./segments.ts"

export interface OpenSegment extends Segment {
  readonly file: DiskFile
}

interface Found {
  readonly path: string
  readonly number: number
  readonly file: DiskFile
  /** Why there is no header. */
  readonly damage: StorageCorruption | undefined
  readonly header: SegmentHeader | undefined
}

/**
 * Opens the segments with these numbers, oldest first. Refuses a gap between them, a wrong length, a newer format.
 *
 * All that a header says stands elsewhere too: its number in the file's name, its size in the file's, and its base LSN follows from its neighbours. So one
 * that is damaged is made anew, and told in `damages`, where nothing is left open: the next segment begins where this one ends by it, or, behind the last one,
 * the size is that of the others; and the first batch of this one or of the next one is where it must be. Else it is refused: a journal that ends in front of
 * it could have lost what was acknowledged, without a trace.
 */
export function openSegments(
  disk: Disk,
  directory: string,
  options: { readonly numbers: ReadonlyArray<number>; readonly segmentBytes: number },
): { readonly segments: ReadonlyArray<OpenSegment>; readonly damages: Array<StorageCorruption> } {
  const found = options.numbers.map((number) => find(disk, segmentPath(directory, number), number))
  const segments: Array<OpenSegment> = []
  const damages: Array<StorageCorruption> = []
  for (const [at, { path, number, file, header: stored, damage }] of found.entries()) {
    const previous = segments[at - 1]
    if (previous !== undefined && number !== previous.number + 1) {
      throw new StorageCorruption({
        path: segmentPath(directory, previous.number + 1),
        offset: 0,
        expected: `a segment between ${previous.path} and ${path}`,
        actual: "no such file",
      })
    }
    const header = stored ?? inferred(found, at, { previous, segmentBytes: options.segmentBytes })
    if (header === undefined) throw damage
    if (stored === undefined) {
      file.write(encodeSegmentHeader(header), 0)
      file.sync()
      if (damage !== undefined) damages.push(damage)
    }
    const baseLsn = previous === undefined ? header.baseLsn : endOf(previous)
    const refuse = (offset: number, expected: string, actual: string) => {
      if (expected !== actual) throw new StorageCorruption({ path, offset, expected, actual })
    }
    refuse(16, `segment ${number}`, `segment ${header.number}`)
    refuse(24, `base LSN ${baseLsn}`, `base LSN ${header.baseLsn}`)
    refuse(file.sizeBytes, `${header.sizeBytes} bytes in all`, `${file.sizeBytes} bytes in all`)
    segments.push({ ...header, path, file, liveCount: 0, liveBytes: 0 })
  }
  return { segments, damages }
}

function find(disk: Disk, path: string, number: number): Found {
  const file = disk.open(path)
  const bytes = new Uint8Array(Math.min(segmentHeaderBytes, file.sizeBytes))
  file.read(bytes, 0)
  try {
    return { path, number, file, header: decodeSegmentHeader(path, bytes), damage: undefined }
  } catch (error) {
    // A header of another format is whole, and so is not made anew.
    if (!(error instanceof StorageCorruption) || error.offset === versionOffset) throw error
    return { path, number, file, header: undefined, damage: error }
  }
}

const versionOffset = 8

function endOf({ baseLsn, sizeBytes }: SegmentHeader): Lsn {
  return baseLsn + sizeBytes
}

/** What the header of the segment at a place must have said; `undefined` when that can't be told for sure. */
function inferred(
  found: ReadonlyArray<Found>,
  at: number,
  {
    previous,
    segmentBytes,
  }: { readonly previous: Segment | undefined; readonly segmentBytes: number },
): SegmentHeader | undefined {
  const { number, file } = found[at] as Found
  const { sizeBytes } = file
  const next = found[at + 1]
  const following = next?.header
  if (next !== undefined && following === undefined) return undefined
  const isFirstEver = number === 1
  const baseLsn =
    previous !== undefined
      ? endOf(previous)
      : isFirstEver
        ? 0
        : following && following.baseLsn - sizeBytes
  if (baseLsn === undefined) return undefined
  const header = { number, baseLsn, sizeBytes }
  const fits =
    following === undefined
      ? sizeBytes === (previous?.sizeBytes ?? segmentBytes)
      : endOf(header) === following.baseLsn
  const isClosed = following !== undefined && hasOpeningBatch(next?.file as DiskFile, following)
  return fits && (isClosed || hasOpeningBatch(file, header)) ? header : undefined
}

function hasOpeningBatch(file: DiskFile, { baseLsn }: SegmentHeader): boolean {
  const bytes = new Uint8Array(file.sizeBytes)
  file.read(bytes, 0)
  const view = new DataView(bytes.buffer)
  const lsn = baseLsn + segmentHeaderBytes
  return readBatchHeader(bytes, view, segmentHeaderBytes, lsn) !== undefined
}
