import { batchHeaderBytes, segmentHeaderBytes } from "../../src/journal/format.ts"
import { spans } from "../../src/journal/spans.ts"
import type { SimulatedDisk } from "../sim/simulatedDisk.ts"

/** A record in a node's journal. */
export interface Place {
  readonly path: string
  readonly batchStart: number
  readonly batchEnd: number
  /** Where its batch ends in the journal, and up to where that batch states the journal to be durable. */
  readonly endLsn: number
  readonly statedLsn: number
  readonly start: number
  readonly end: number
  readonly type: number
  readonly range: number
  readonly index: number
}

/** The records of a node's journal, oldest first. */
export function records(disk: SimulatedDisk): ReadonlyArray<Place> {
  const found: Array<Place> = []
  let baseLsn = 0
  for (const name of [...disk.list("journal")].sort()) {
    const path = `journal/${name}`
    const file = disk.open(path)
    const bytes = new Uint8Array(file.sizeBytes)
    file.read(bytes, 0)
    file.close()
    if (bytes.length < segmentHeaderBytes) continue
    const view = new DataView(bytes.buffer)
    baseLsn = view.getUint32(24, true)
    for (const span of spans({ bytes, view, baseLsn })) {
      if (span._tag !== "Batch") continue
      let start = span.offset + batchHeaderBytes
      while (start < span.end) {
        const type = bytes[start + 8] as number
        const range = view.getUint32(start + 12, true)
        const index = view.getUint32(start + 28, true)
        const end = start + view.getUint32(start + 4, true)
        found.push({
          path,
          batchStart: span.offset,
          batchEnd: span.end,
          endLsn: baseLsn + span.end,
          statedLsn: span.header.durableLsn,
          start,
          end,
          type,
          range,
          index,
        })
        start = end
      }
    }
  }
  return found
}
