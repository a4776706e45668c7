import type { Disk } from "../disk/disk.ts"
import { TableFile, type TableIdentity } from "../lsm/table/tableFile.ts"
import {
  hasWholeEntries,
  indexCount,
  indexEntry,
  isIndexPage,
  pageRecordBytes,
  topRecordBytes,
} from "../lsm/table/tableIndex.ts"
import type { Place } from "../lsm/table/tableParts.ts"
import { readU32 } from "../lsm/table/varint.ts"
import type { Findings } from "./report.ts"

/**
 * What is left of a table that cannot be opened because something besides its data blocks is damaged: every part that can still be
 * found is verified by its checksum, so that all damages are known at once.
 */
export function checkRemains(options: {
  readonly disk: Disk
  readonly path: string
  readonly identity: TableIdentity
  /** What the table as a whole covers. */
  readonly whole: string
  readonly findings: Findings
}): void {
  const { disk, path, identity, whole, findings } = options
  const { tableId, sizeBytes } = identity
  const file = new TableFile({ disk, path, tableId, sizeBytes })
  const attempt = <A>(covers: string, read: () => A) => findings.attempt(covers, read, path)
  try {
    attempt(whole, () => file.checkHeader())
    const footer = attempt(whole, () => file.readFooter(identity.checksum))
    if (footer === undefined) return
    const stated = attempt(whole, () => file.readProperties(footer))
    if (stated === undefined) return
    attempt(whole, () => file.block(stated.filterPlace))
    attempt(whole, () => file.block(stated.tombstonePlace))
    const top = attempt(whole, () => file.block(stated.indexPlace))
    if (top === undefined || !isEntries(top, topRecordBytes)) return
    for (const pagePlace of placesIn(top)) {
      const page = attempt(`an index page of the table: ${whole}`, () => file.block(pagePlace))
      if (page === undefined || !isEntries(page, pageRecordBytes)) continue
      for (const place of placesIn(page)) {
        attempt(`a data block of the table: ${whole}`, () => file.block(place))
      }
    }
  } finally {
    file.close()
  }
}

function isEntries(page: Uint8Array, recordBytes: number): boolean {
  return isIndexPage(page) && hasWholeEntries(page, recordBytes)
}

function* placesIn(page: Uint8Array): Generator<Place, void> {
  const count = indexCount(page)
  for (let i = 0; i < count; i++) {
    const at = indexEntry(page, i)
    yield {
      offset: readU32(page, at),
      sizeBytes: readU32(page, at + 4),
      checksum: readU32(page, at + 8),
    }
  }
}
