import type { Disk } from "../disk/disk.ts"
import { assert } from "../lib/assert.ts"
import { compareBytes } from "../lib/bytes.ts"
import type { BlockCache } from "./blockCache.ts"
import { manifestPath, parseName, tablePath } from "./format.ts"
import type { ManifestEnd } from "./manifest.ts"
import { Table } from "./tableReader.ts"
import type { Fragment, Version } from "./version.ts"

/**
 * The open tables of an engine: one for each file that a kept version holds. A file that none holds
 * any more is obsolete.
 */
export class TableSet {
  private readonly disk: Disk
  private readonly directory: string
  private readonly cache: BlockCache
  private readonly tables = new Map<number, Table>()
  private obsolete: Array<string> = []

  constructor(disk: Disk, directory: string, cache: BlockCache) {
    this.disk = disk
    this.directory = directory
    this.cache = cache
  }

  /** The table of a fragment of a kept version. */
  readonly of = (fragment: Fragment): Table => {
    const table = this.tables.get(fragment.fileNumber)
    assert(table !== undefined, () => `table ${fragment.fileNumber} belongs to a kept version`)
    return table
  }

  /** About the bytes of a fragment in [lower, upper). */
  readonly measure = (fragment: Fragment, lower: Uint8Array, upper: Uint8Array): number => {
    const isWhole =
      compareBytes(lower, fragment.lower) <= 0 && compareBytes(fragment.upper, upper) <= 0
    if (isWhole) return fragment.liveBytes
    const from = compareBytes(lower, fragment.lower) > 0 ? lower : fragment.lower
    const to = compareBytes(upper, fragment.upper) < 0 ? upper : fragment.upper
    return this.of(fragment).bytesBetween(from, to)
  }

  /** Adds a holder to a version; the first one makes its tables known. */
  hold(version: Version): void {
    if (version.holders++ > 0) return
    for (const fragment of version.fragments) {
      if (this.tables.has(fragment.fileNumber)) continue
      const table = new Table(this.disk, this.directory, fragment, this.cache)
      this.tables.set(fragment.fileNumber, table)
    }
    for (const file of version.files()) (this.tables.get(file) as Table).holders++
  }

  /** Takes a holder away; tables that only this version held become obsolete. */
  drop(version: Version): void {
    assert(version.holders > 0, "a version that is dropped was held")
    if (--version.holders > 0) return
    for (const file of version.files()) {
      const table = this.tables.get(file) as Table
      if (--table.holders > 0) continue
      table.close()
      this.tables.delete(file)
      this.obsolete.push(table.path)
    }
  }

  manifestReplaced(end: ManifestEnd): void {
    this.obsolete.push(manifestPath(this.directory, end.fileNumber))
  }

  /**
   * Lists what a job that failed left, all tables from a number on; returns a file number above
   * them.
   */
  abandonFrom(firstFileNumber: number): number {
    let next = firstFileNumber
    for (const name of this.disk.list(this.directory)) {
      const parsed = parseName(name)
      if (parsed?.kind !== "table" || parsed.fileNumber < firstFileNumber) continue
      this.obsolete.push(tablePath(this.directory, parsed.fileNumber))
      next = Math.max(next, parsed.fileNumber + 1)
    }
    return next
  }

  takeObsolete(): ReadonlyArray<string> {
    const result = this.obsolete
    this.obsolete = []
    return result
  }

  close(): void {
    for (const table of this.tables.values()) table.close()
  }
}
