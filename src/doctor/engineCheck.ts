import type { Disk, StorageCorruption } from "../disk/disk.ts"
import {
  type ManifestState,
  readCurrent,
  readManifest,
  readManifestEdits,
  type WrittenBytes,
} from "../lsm/manifest/manifest.ts"
import type { Fragment } from "../lsm/manifest/version.ts"
import { currentPath, manifestPath, parseName, tablePath } from "../lsm/table/format.ts"
import { identifyTable, Table, type TableIdentity } from "../lsm/table/tableReader.ts"
import { bytesText, intervalText, sizeText } from "./keyText.ts"
import type { Findings } from "./report.ts"
import { checkRemains } from "./tableRemains.ts"

export interface LevelReport {
  readonly level: number
  readonly tables: number
  /** Bytes of the level's fragments. */
  readonly sizeBytes: number
  readonly entries: number
  readonly deletes: number
  readonly tombstones: number
  /** Bytes of keys and values for each byte of file; `undefined` when no table could be read. */
  readonly compressionRatio: number | undefined
}

export interface TreeReport {
  readonly tree: number
  readonly name: string | undefined
  readonly tables: number
  readonly sizeBytes: number
  readonly entries: number
}

export interface EngineReport {
  /** `undefined` when none can be read. */
  readonly manifest: string | undefined
  readonly edits: number
  readonly lastSequence: number | undefined
  readonly levels: ReadonlyArray<LevelReport>
  readonly trees: ReadonlyArray<TreeReport>
  /** Of all table files in the folder. */
  readonly tableBytes: number
  /** What the deepest level in use holds: about what would be left if everything were compacted. */
  readonly liveBytes: number
  /** Since the engine was made; `undefined` when no manifest tells. */
  readonly written: WrittenBytes | undefined
}

/** A table file, and the fragments that read from it. */
interface Checked {
  readonly path: string
  readonly identity: TableIdentity
  readonly fragments: ReadonlyArray<Fragment>
}

interface Measured {
  readonly rawBytes: number
  readonly sizeBytes: number
}

const emptyReport: EngineReport = {
  manifest: undefined,
  edits: 0,
  lastSequence: undefined,
  levels: [],
  trees: [],
  tableBytes: 0,
  liveBytes: 0,
  written: undefined,
}

/** What one call of `verify` reads, so that progress can be shown. */
const stepBytes = 2 * 1024 * 1024

/**
 * The engine's folder: CURRENT, the manifest in force, and every table that it names, each to its last byte and past whatever is
 * damaged. When the manifest cannot be read, the tables are checked each by itself.
 */
export class EngineCheck {
  private readonly disk: Disk
  private readonly directory: string
  private readonly findings: Findings
  /** By file number. */
  private readonly measured = new Map<number, Measured>()
  private readonly tableNumbers: Array<number> = []
  private readonly manifestNumbers: Array<number> = []
  private edits = 0

  constructor(options: { disk: Disk; directory: string; findings: Findings }) {
    this.disk = options.disk
    this.directory = options.directory
    this.findings = options.findings
  }

  /** Yields the path of each file that is being read, and the bytes of it that have been read since. */
  *run(): Generator<{ readonly path: string; readonly readBytes: number }, EngineReport> {
    const { disk, directory } = this
    this.list()
    if (this.isUnbegun()) {
      this.findings.notes.push(`${directory} holds no engine yet; the next start makes one`)
      return emptyReport
    }
    const manifestNumber = this.currentManifest()
    const state = manifestNumber === undefined ? undefined : this.manifestState(manifestNumber)
    this.noteOrphans(manifestNumber, state)
    for (const table of state === undefined ? this.loneTables() : this.tablesOf(state)) {
      yield { path: table.path, readBytes: 0 }
      yield* this.checkTable(table)
    }
    const fragments = state?.fragments ?? []
    const sizes = this.tableNumbers.map((number) => sizeOf(disk, tablePath(directory, number)))
    const levels = this.levels(fragments)
    return {
      manifest:
        state === undefined || manifestNumber === undefined
          ? undefined
          : manifestPath(directory, manifestNumber),
      edits: this.edits,
      lastSequence: state?.lastSequence,
      levels,
      trees: this.trees(fragments, state),
      tableBytes: sizes.reduce((sum, size) => sum + size, 0),
      liveBytes: levels.at(-1)?.sizeBytes ?? 0,
      written: state?.written,
    }
  }

  private list(): void {
    for (const name of this.disk.list(this.directory)) {
      const parsed = parseName(name)
      if (parsed === undefined) {
        this.findings.notes.push(`${this.directory}/${name} is no file of the engine`)
      } else if (parsed.kind === "table") this.tableNumbers.push(parsed.fileNumber)
      else if (parsed.kind === "manifest") this.manifestNumbers.push(parsed.fileNumber)
    }
  }

  /** A crash while an engine is made leaves its first manifest at most (lsm/manifest/recovery.ts). */
  private isUnbegun(): boolean {
    if (this.disk.exists(currentPath(this.directory))) return false
    return this.tableNumbers.length === 0 && this.manifestNumbers.every((number) => number === 1)
  }

  /** The manifest in force; the newest one when CURRENT does not say. */
  private currentManifest(): number | undefined {
    const { disk, directory, findings } = this
    const path = currentPath(directory)
    const covers = "which manifest is in force: the engine as a whole"
    const number = findings.attempt(covers, () => readCurrent(disk, directory), path)
    return number ?? this.manifestNumbers.at(-1)
  }

  private manifestState(number: number): ManifestState | undefined {
    const { disk, directory, findings } = this
    const path = manifestPath(directory, number)
    const covers = "which tables are live: the engine as a whole"
    const read = findings.attempt(covers, () => readManifest(disk, directory, number), path)
    if (read !== undefined) this.edits = readManifestEdits(disk, directory, number).edits.length
    if (read?.torn) {
      const at = `${path} from byte ${read.end.offset}`
      findings.notes.push(
        `${at}: a torn edit that never counted; the next start goes on without it`,
      )
    }
    return read?.state
  }

  private noteOrphans(manifestNumber: number | undefined, state: ManifestState | undefined): void {
    if (state === undefined) return
    const live = new Set(state.fragments.map(({ fileNumber }) => fileNumber))
    const orphan = (path: string) =>
      this.findings.notes.push(
        `${path} (${sizeText(sizeOf(this.disk, path))}) is an orphan; the next start removes it`,
      )
    for (const number of this.tableNumbers) {
      if (!live.has(number)) orphan(tablePath(this.directory, number))
    }
    for (const number of this.manifestNumbers) {
      if (number !== manifestNumber) orphan(manifestPath(this.directory, number))
    }
  }

  /** The live tables; one that is not there is found out when it is opened. */
  private tablesOf(state: ManifestState): ReadonlyArray<Checked> {
    const byFile = new Map<number, Array<Fragment>>()
    for (const fragment of state.fragments) {
      const known = byFile.get(fragment.fileNumber)
      if (known === undefined) byFile.set(fragment.fileNumber, [fragment])
      else known.push(fragment)
    }
    return [...byFile]
      .sort(([left], [right]) => left - right)
      .map(([fileNumber, fragments]) => ({
        path: tablePath(this.directory, fileNumber),
        identity: fragments[0] as Fragment,
        fragments,
      }))
  }

  private *loneTables(): Generator<Checked, void> {
    for (const fileNumber of this.tableNumbers) {
      const path = tablePath(this.directory, fileNumber)
      const covers = "a table of which no manifest tells"
      const read = () => identifyTable(this.disk, path)
      const identity = this.findings.attempt(covers, read, path)
      if (identity !== undefined) yield { path, identity, fragments: [] }
    }
  }

  /** Goes through the data blocks of a table; of one that cannot be opened, through whatever can be found (tableRemains.ts). */
  private *checkTable(checked: Checked): Generator<{ path: string; readBytes: number }, void> {
    const { path, identity, fragments } = checked
    const table = new Table({ disk: this.disk, path, identity })
    const whole = fragments.map((fragment) => fragmentText(fragment)).join("; ")
    try {
      const blocks = this.findings.attempt(whole, () => table.blockCount, path)
      if (blocks === undefined) {
        checkRemains({ disk: this.disk, path, identity, whole, findings: this.findings })
        yield { path, readBytes: identity.sizeBytes }
        return
      }
      const { rawBytes } = table.properties
      this.measured.set(identity.fileNumber, { rawBytes, sizeBytes: identity.sizeBytes })
      let readBytes = 0
      for (let next = 0; next < blocks; ) {
        // A block at a time after a damage: `verify` does not say at which one it has stopped.
        next = Math.max(next + 1, this.verifyFrom({ checked, table, from: next, blocks }))
        const bytes = Math.floor((identity.sizeBytes * next) / blocks) - readBytes
        readBytes += bytes
        yield { path, readBytes: bytes }
      }
    } finally {
      table.close()
    }
  }

  /** Verifies some blocks; returns the number of the next. */
  private verifyFrom(at: { checked: Checked; table: Table; from: number; blocks: number }): number {
    const { checked, table, from, blocks } = at
    try {
      return table.verify(from, stepBytes)
    } catch {
      for (let block = from; block < blocks; block++) {
        const before = this.findings.damages.length
        const covers = (error: StorageCorruption) =>
          error.offset < table.dataEnd
            ? blockText(checked, table, block)
            : "an index page, and the keys of the blocks that it names"
        this.findings.attempt(covers, () => table.verify(block, 1), checked.path)
        // With the first block come all index pages, and one that is damaged would hide it.
        if (block === 0) this.findings.attempt(covers, () => table.block(0), checked.path)
        if (this.findings.damages.length > before) return block + 1
      }
      return blocks
    }
  }

  private levels(fragments: ReadonlyArray<Fragment>): ReadonlyArray<LevelReport> {
    const numbers = [...new Set(fragments.map(({ level }) => level))].sort((a, b) => a - b)
    return numbers.map((level) => {
      const own = fragments.filter((fragment) => fragment.level === level)
      const files = new Set(own.map(({ fileNumber }) => fileNumber))
      const known = [...files].flatMap((file) => this.measured.get(file) ?? [])
      const fileBytes = sum(known, ({ sizeBytes }) => sizeBytes)
      const rawBytes = sum(known, (measured) => measured.rawBytes)
      return {
        level,
        tables: files.size,
        sizeBytes: sum(own, ({ liveBytes }) => liveBytes),
        entries: sum(own, shareOf("entries")),
        deletes: sum(own, shareOf("deletes")),
        tombstones: sum(own, shareOf("tombstones")),
        compressionRatio: fileBytes === 0 ? undefined : rawBytes / fileBytes,
      }
    })
  }

  private trees(
    fragments: ReadonlyArray<Fragment>,
    state: ManifestState | undefined,
  ): ReadonlyArray<TreeReport> {
    const byTree = new Map<number, Array<Fragment>>()
    for (const fragment of fragments) {
      const tree = fragment.lower[0] ?? 0
      const known = byTree.get(tree)
      if (known === undefined) byTree.set(tree, [fragment])
      else known.push(fragment)
    }
    return [...byTree]
      .sort(([left], [right]) => left - right)
      .map(([tree, own]) => ({
        tree,
        name: state?.trees.find(({ id }) => id === tree)?.name,
        tables: new Set(own.map(({ fileNumber }) => fileNumber)).size,
        sizeBytes: sum(own, ({ liveBytes }) => liveBytes),
        entries: sum(own, shareOf("entries")),
      }))
  }
}

function sum<A>(items: ReadonlyArray<A>, count: (item: A) => number): number {
  return items.reduce((total, item) => total + count(item), 0)
}

/** A count of the file, or the part of it that a cut fragment has by its bytes. */
function shareOf(field: "entries" | "deletes" | "tombstones"): (fragment: Fragment) => number {
  return (fragment) => {
    const { liveBytes, sizeBytes } = fragment
    return liveBytes >= sizeBytes
      ? fragment[field]
      : Math.round((fragment[field] * liveBytes) / sizeBytes)
  }
}

function fragmentText({ level, lower, upper }: Fragment): string {
  return `keys ${intervalText({ lower, upper })} of level ${level}`
}

/** The keys of one data block, as the index has them. */
function blockText({ fragments }: Checked, table: Table, block: number): string {
  const levels = [...new Set(fragments.map(({ level }) => level))]
  const place = levels.length === 0 ? "" : ` of level ${levels.join(", ")}`
  try {
    const last = bytesText(table.lastKey(block))
    return block === 0
      ? `keys up to ${last}${place}`
      : `keys (${bytesText(table.lastKey(block - 1))}, ${last}]${place}`
  } catch {
    return `data block ${block}${place}, whose keys the index no longer tells`
  }
}

function sizeOf(disk: Disk, path: string): number {
  if (!disk.exists(path)) return 0
  const file = disk.open(path)
  try {
    return file.sizeBytes
  } finally {
    file.close()
  }
}
