import { assert } from "../lib/assert.ts"
import type { Version } from "./manifest/version.ts"
import type { Memtable } from "./memtable/memtable.ts"

/**
 * The engine's content at one moment. It holds the memtables and the version that made it up, so
 * nothing that flushes, compactions and ingests do later shows; and it keeps their arenas and files
 * from being freed: release it soon.
 */
export interface EngineSnapshot {
  readonly sequence: number
  release(): void
}

/** What a read looks into: `sequence` hides later writes to the memtable that was active. */
export class ReadView implements EngineSnapshot {
  readonly sequence: number
  /** Newest first. */
  readonly memtables: ReadonlyArray<Memtable>
  readonly version: Version
  /** Neighbours in the list of views (`Views`), by age. */
  older: ReadView | undefined
  newer: ReadView | undefined
  isReleased = false
  private readonly views: Views

  constructor(
    views: Views,
    sequence: number,
    memtables: ReadonlyArray<Memtable>,
    version: Version,
  ) {
    this.views = views
    this.sequence = sequence
    this.memtables = memtables
    this.version = version
  }

  /** A second call does nothing. */
  release(): void {
    if (!this.isReleased) this.views.release(this)
  }
}

/** All views that are not released, in a chain by age: the newest one says what must be kept. */
export class Views {
  count = 0
  private newest: ReadView | undefined
  private readonly onRelease: (view: ReadView) => void

  constructor(onRelease: (view: ReadView) => void) {
    this.onRelease = onRelease
  }

  /** Versions up to it must be kept in the active memtable; -1 = none. */
  get pinnedSequence(): number {
    return this.newest === undefined ? -1 : this.newest.sequence
  }

  add(sequence: number, memtables: ReadonlyArray<Memtable>, version: Version): ReadView {
    const view = new ReadView(this, sequence, memtables, version)
    const { newest } = this
    assert(newest === undefined || newest.sequence <= sequence, "time goes on")
    view.older = newest
    if (newest !== undefined) newest.newer = view
    this.newest = view
    this.count++
    return view
  }

  release(view: ReadView): void {
    view.isReleased = true
    this.count--
    const { older, newer } = view
    if (older !== undefined) older.newer = newer
    if (newer !== undefined) newer.older = older
    else this.newest = older
    view.older = undefined
    view.newer = undefined
    this.onRelease(view)
  }
}
