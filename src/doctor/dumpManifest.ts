import type { Disk } from "../disk/disk.ts"
import { type ManifestEdit, readCurrent, readManifestEdits } from "../lsm/manifest/manifest.ts"
import type { Fragment } from "../lsm/manifest/version.ts"
import { manifestPath } from "../lsm/table/format.ts"
import { compressionName } from "./dumpTable.ts"
import { intervalText } from "./keyText.ts"

/** The edits of a manifest in words, up to its end or to the first damage. */
export function* dumpManifest(
  disk: Disk,
  directory: string,
  fileNumber: number,
): Generator<string, void> {
  const { edits, end, torn, damage } = readManifestEdits(disk, directory, fileNumber)
  yield `manifest ${fileNumber}: ${edits.length} edits up to byte ${end.offset}`
  for (const { offset, number, edit } of edits) {
    yield `${offset}  edit ${number}  ${countersText(edit)}`
    for (const { id, name } of edit.trees) yield `  tree ${id} ${name}`
    for (const file of edit.removedFiles) yield `  remove table ${file}`
    for (const fragment of edit.added) yield `  add ${fragmentText(fragment)}`
  }
  if (torn) yield `${end.offset}  a torn edit that never counted`
  if (damage !== undefined) yield `DAMAGED: ${damage.message}`
}

export function dumpCurrent(disk: Disk, directory: string): ReadonlyArray<string> {
  return [`in force: ${manifestPath(directory, readCurrent(disk, directory))}`]
}

function countersText(edit: ManifestEdit): string {
  const { flushedThrough, lastSequence, nextFileNumber, written } = edit
  const { userBytes, flushedBytes, compactedBytes, ingestedBytes } = written
  return [
    `flushed through memtable ${flushedThrough}`,
    `last sequence ${lastSequence}`,
    `next file ${nextFileNumber}`,
    `bytes: user ${userBytes} flushed ${flushedBytes} compacted ${compactedBytes} ingested ${ingestedBytes}`,
  ].join("  ")
}

function fragmentText(fragment: Fragment): string {
  const { level, run, fileNumber, tableId, baseSequence, lower, upper } = fragment
  const words = [
    `table ${fileNumber}`,
    `L${level}${level === 0 ? ` run ${run}` : ""}`,
    intervalText({ lower, upper }),
    `${fragment.liveBytes} of ${fragment.sizeBytes} bytes`,
    `${fragment.entries} entries`,
    `${fragment.deletes} deletes`,
    `${fragment.tombstones} tombstones`,
    compressionName(fragment.compression),
    `checksum ${fragment.checksum}`,
  ]
  if (tableId !== fileNumber)
    words.push(`made elsewhere as ${tableId}, from sequence ${baseSequence}`)
  return words.join("  ")
}
