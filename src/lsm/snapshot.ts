import type { Memtable } from "./memtable.ts"
import type { Version } from "./version.ts"

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
  private readonly onRelease: (view: ReadView) => void
  private released = false

  constructor(options: {
    sequence: number
    memtables: ReadonlyArray<Memtable>
    version: Version
    onRelease: (view: ReadView) => void
  }) {
    this.sequence = options.sequence
    this.memtables = options.memtables
    this.version = options.version
    this.onRelease = options.onRelease
  }

  get isReleased(): boolean {
    return this.released
  }

  /** A second call does nothing. */
  release(): void {
    if (this.released) return
    this.released = true
    this.onRelease(this)
  }
}
