import type { Disk } from "../../disk/disk.ts"
import { StorageCorruption } from "../../disk/disk.ts"
import { assert } from "../../lib/assert.ts"
import { compareBytes } from "../../lib/bytes.ts"
import type { Caches } from "../cache/caches.ts"
import type { ManifestEnd } from "../manifest/manifest.ts"
import type { Edit, Fragment, Version } from "../manifest/version.ts"
import { clip } from "../memtable/rangeTombstone.ts"
import { manifestPath, parseName, tablePath } from "../table/format.ts"
import { Table } from "../table/tableReader.ts"
import { Quarantine } from "./quarantine.ts"

/** What a range tombstone is reckoned to take, when the bytes of a piece of a table are estimated. */
const tombstoneBytes = 32

/**
 * The tables of an engine: one for each file that a kept version holds, opened by its first use. A
 * file that none holds any more is obsolete.
 */
export class TableSet {
  readonly quarantine = new Quarantine()
  private readonly disk: Disk
  private readonly directory: string
  private readonly caches: Caches
  private readonly onDamage: (error: StorageCorruption) => void
  private readonly tables = new Map<number, Table>()
  private obsolete: Array<string> = []

  constructor(options: {
    disk: Disk
    directory: string
    caches: Caches
    /** Damage was met where no caller can be told. */
    onDamage: (error: StorageCorruption) => void
  }) {
    this.disk = options.disk
    this.directory = options.directory
    this.caches = options.caches
    this.onDamage = options.onDamage
  }

  /** The table of a fragment of a kept version. Throws `StorageCorruption` if it is in quarantine. */
  readonly of = (fragment: Fragment): Table => {
    if (!this.quarantine.isEmpty) this.quarantine.check(fragment.fileNumber)
    return this.known(fragment)
  }

  private known({ fileNumber }: Fragment): Table {
    const table = this.tables.get(fileNumber)
    assert(table !== undefined, () => `table ${fileNumber} belongs to a kept version`)
    return table
  }

  /**
   * About the bytes of a fragment in [lower, upper); 0 = nothing is there. Of a damaged table all
   * that it could be.
   */
  readonly measure = (fragment: Fragment, lower: Uint8Array, upper: Uint8Array): number => {
    const isCutBelow = compareBytes(lower, fragment.lower) > 0
    const isCutAbove = compareBytes(fragment.upper, upper) > 0
    if (!isCutBelow && !isCutAbove) return fragment.liveBytes
    if (this.quarantine.has(fragment.fileNumber)) return fragment.liveBytes
    const from = isCutBelow ? lower : fragment.lower
    const to = isCutAbove ? upper : fragment.upper
    try {
      const table = this.known(fragment)
      const bytes = table.bytesBetween(from, to)
      if (fragment.tombstones === 0) return bytes
      return bytes + tombstoneBytes * clip(table.tombstones, from, to).length
    } catch (error) {
      if (!(error instanceof StorageCorruption)) throw error
      this.onDamage(error)
      return fragment.liveBytes
    }
  }

  /** The number of the table at a path, if a kept version holds it. */
  numberOf(path: string): number | undefined {
    const number = parseName(path.slice(this.directory.length + 1))?.fileNumber
    if (number === undefined || tablePath(this.directory, number) !== path) return undefined
    return this.tables.has(number) ? number : undefined
  }

  /** Adds a holder to a version; the first one makes its tables known. */
  hold(version: Version): void {
    if (version.holders++ > 0) return
    for (const fragment of version.fragments) this.makeKnown(fragment)
    for (const file of version.files()) (this.tables.get(file) as Table).holders++
  }

  /** Takes a holder away; tables that only this version held become obsolete. */
  drop(version: Version): void {
    assert(version.holders > 0, "a version that is dropped was held")
    if (--version.holders > 0) return
    for (const file of version.files()) this.release(file)
  }

  /**
   * Holds the version after an edit in place of the one before it. Takes time by the edit, not by
   * the tables, unless a reader keeps the version before.
   */
  replace(options: { before: Version; after: Version; edit: Edit }): void {
    const { before, after, edit } = options
    if (before.holders > 1) {
      this.hold(after)
      this.drop(before)
      return
    }
    before.holders--
    after.holders++
    const stays = new Set<number>()
    for (const fragment of edit.added) {
      stays.add(fragment.fileNumber)
      if (this.tables.has(fragment.fileNumber)) continue
      this.makeKnown(fragment)
      this.known(fragment).holders++
    }
    for (const file of edit.removedFiles) if (!stays.has(file)) this.release(file)
  }

  private makeKnown(fragment: Fragment): void {
    if (this.tables.has(fragment.fileNumber)) return
    const { disk, caches } = this
    const path = tablePath(this.directory, fragment.fileNumber)
    const table = new Table({ disk, path, identity: fragment, caches })
    this.tables.set(fragment.fileNumber, table)
  }

  private release(file: number): void {
    const table = this.tables.get(file) as Table
    if (--table.holders > 0) return
    table.close()
    this.tables.delete(file)
    this.quarantine.forget(file)
    this.obsolete.push(table.path)
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

  /** Paths of all tables that some kept version holds. */
  heldFiles(): ReadonlyArray<string> {
    return [...this.tables.values()].map((table) => table.path).sort()
  }

  /** Memory that stays with open tables: their filters and the index of their pages. */
  residentBytes(): number {
    let sum = 0
    for (const table of this.tables.values()) sum += table.residentBytes
    return sum
  }

  close(): void {
    for (const table of this.tables.values()) table.close()
  }
}
