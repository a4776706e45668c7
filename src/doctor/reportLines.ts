import type { WrittenBytes } from "../lsm/manifest/manifest.ts"
import type { EngineReport } from "./engineCheck.ts"
import type { GroupReport, JournalReport } from "./journalCheck.ts"
import { sizeText } from "./keyText.ts"
import type { Damage, Report } from "./report.ts"

/** More groups than this are summed up: a node can have thousands. */
const groupsShown = 20

/** A report in words, for people. */
export function reportLines(report: Report): ReadonlyArray<string> {
  const { directory, identity, engine, journal, damages, notes } = report
  return [
    identity === undefined ? directory : `${directory}: ${identity}`,
    ...(engine === undefined ? [] : ["", ...engineLines(engine)]),
    ...(journal === undefined ? [] : ["", ...journalLines(journal)]),
    ...(notes.length === 0 ? [] : ["", "notes", ...notes.map((note) => `  ${note}`)]),
    "",
    ...verdictLines(damages),
  ]
}

function verdictLines(damages: ReadonlyArray<Damage>): ReadonlyArray<string> {
  if (damages.length === 0) return ["sound: every byte is as it was written"]
  const places = damages.length === 1 ? "1 place" : `${damages.length} places`
  return [
    `DAMAGED in ${places}`,
    ...damages.flatMap(({ path, offset, expected, found, covers }) => [
      `  ${path} at byte ${offset}: expected ${expected}, found ${found}`,
      `    covers ${covers}`,
    ]),
  ]
}

function engineLines(engine: EngineReport): ReadonlyArray<string> {
  const { manifest, edits, lastSequence, levels, trees, tableBytes, liveBytes, written } = engine
  if (manifest === undefined && tableBytes === 0) return ["engine: none"]
  if (manifest === undefined) {
    return ["engine: no manifest can be read; each table was verified by itself"]
  }
  const head = `engine: ${manifest} with ${count(edits, "edit")}, last sequence ${lastSequence}`
  if (levels.length === 0) return [head, "  no tables"]
  const amplification = liveBytes === 0 ? "-" : (tableBytes / liveBytes).toFixed(2)
  const sizes = `${sizeText(tableBytes)} of table files for about ${sizeText(liveBytes)} live`
  return [
    head,
    ...aligned([
      ["level", "tables", "size", "entries", "deletes", "tombstones", "raw/file"],
      ...levels.map((level) => [
        `L${level.level}`,
        level.tables,
        sizeText(level.sizeBytes),
        level.entries,
        level.deletes,
        level.tombstones,
        level.compressionRatio === undefined ? "-" : level.compressionRatio.toFixed(2),
      ]),
    ]),
    ...aligned([
      ["tree", "tables", "size", "entries"],
      ...trees.map(({ tree, name, tables, sizeBytes, entries }) => [
        name === undefined ? `${tree}` : `${tree} ${name}`,
        tables,
        sizeText(sizeBytes),
        entries,
      ]),
    ]),
    `  space amplification ${amplification}: ${sizes}`,
    ...(written === undefined ? [] : [writtenLine(written)]),
  ]
}

/** Bytes that users put, against those that flushes and compactions wrote for them. */
function writtenLine(written: WrittenBytes): string {
  const { userBytes, flushedBytes, compactedBytes, ingestedBytes } = written
  const amplification =
    userBytes === 0 ? "-" : ((flushedBytes + compactedBytes) / userBytes).toFixed(2)
  const parts = `${sizeText(userBytes)} put, ${sizeText(flushedBytes)} flushed, ${sizeText(compactedBytes)} compacted`
  const ingested = ingestedBytes === 0 ? "" : `, ${sizeText(ingestedBytes)} ingested`
  return `  write amplification ${amplification} without the journal: ${parts}${ingested}`
}

function journalLines({ segments, groups }: JournalReport): ReadonlyArray<string> {
  const bytes = segments.reduce((total, { sizeBytes }) => total + sizeBytes, 0)
  const head = `journal: ${count(segments.length, "segment")}, ${sizeText(bytes)}`
  return [
    head,
    ...aligned([
      ["segment", "batches", "records", "used", "size"],
      ...segments.map(({ path, batches, records, contentBytes, sizeBytes }) => [
        path,
        batches,
        records,
        sizeText(contentBytes),
        sizeText(sizeBytes),
      ]),
    ]),
    ...(groups === undefined
      ? ["  groups: unknown, a start refuses this journal"]
      : groupLines(groups)),
  ]
}

function groupLines(groups: ReadonlyArray<GroupReport>): ReadonlyArray<string> {
  if (groups.length === 0) return ["  no groups"]
  const shown = groups.slice(0, groupsShown)
  const rest = groups.length - shown.length
  return [
    ...aligned([
      ["group", "term", "commit", "entries", "size"],
      ...shown.map(({ range, replica, term, commit, firstIndex, lastIndex, sizeBytes }) => [
        `${range}/${replica}`,
        term,
        commit,
        lastIndex < firstIndex ? "none" : `${firstIndex} to ${lastIndex}`,
        sizeText(sizeBytes),
      ]),
    ]),
    ...(rest === 0 ? [] : [`  and ${count(rest, "more group")}`]),
    ...groups.flatMap(lossLines),
  ]
}

/** What holes in the journal took from a group, and what becomes of it. */
function lossLines({ range, replica, missing, isUnsure }: GroupReport): ReadonlyArray<string> {
  const group = `  ${range}/${replica}`
  const runs = missing.map(({ from, to }) => (from === to ? `${from}` : `${from} to ${to}`))
  const isOne = missing.length === 1 && missing[0]?.from === missing[0]?.to
  return [
    ...(runs.length === 0
      ? []
      : [
          `${group} misses ${isOne ? "entry" : "entries"} ${runs.join(", ")}: a node that starts asks the other replicas, and leads nobody before`,
        ]),
    ...(isUnsure
      ? [
          `${group} may have promised what is lost: it takes no part before all other replicas have said where they stand`,
        ]
      : []),
  ]
}

function count(number: number, noun: string): string {
  return number === 1 ? `1 ${noun}` : `${number} ${noun}s`
}

/** Rows as columns, the first to the left and the others to the right. */
function aligned(rows: ReadonlyArray<ReadonlyArray<string | number>>): ReadonlyArray<string> {
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.max(...rows.map((row) => `${row[column]}`.length)),
  )
  return rows.map((row) => {
    const cells = row.map((cell, column) => {
      const width = widths[column] as number
      return column === 0 ? `${cell}`.padEnd(width) : `${cell}`.padStart(width)
    })
    return `  ${cells.join("  ")}`
  })
}
