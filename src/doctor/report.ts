import { StorageCorruption } from "../disk/disk.ts"
import type { EngineReport } from "./engineCheck.ts"
import type { JournalReport } from "./journalCheck.ts"

/** Stored bytes that are not what was written: where, what was looked for, and what they stood for. */
export interface Damage {
  readonly path: string
  readonly offset: number
  readonly expected: string
  readonly found: string
  /** What cannot be read because of it, in words. */
  readonly covers: string
}

/** What one data directory holds. Plain data. */
export interface Report {
  readonly directory: string
  /** Whose data it is, in words; `undefined` when it has no identity file. */
  readonly identity: string | undefined
  readonly engine: EngineReport | undefined
  readonly journal: JournalReport | undefined
  /** In the order in which they were found; empty = sound. */
  readonly damages: ReadonlyArray<Damage>
  /** Harmless things that are worth a line: a torn tail, files that the next start removes. */
  readonly notes: ReadonlyArray<string>
}

/** How far an examination has come. */
export interface Progress {
  /** What is being read. */
  readonly path: string
  readonly doneBytes: number
  readonly totalBytes: number
}

/** Gathers what is wrong, each place once. */
export class Findings {
  readonly damages: Array<Damage> = []
  readonly notes: Array<string> = []
  private readonly places = new Set<string>()

  add(damage: Damage): void {
    const place = `${damage.path} ${damage.offset}`
    if (this.places.has(place)) return
    this.places.add(place)
    this.damages.push(damage)
  }

  corruption(error: StorageCorruption, covers: string): void {
    const { path, offset, expected, actual } = error
    this.add({ path, offset, expected, found: actual, covers })
  }

  /**
   * Runs `read`; what it throws about the stored bytes becomes a damage and `undefined`. Formats of other versions are
   * not damage, but cannot be read either.
   */
  attempt<A>(
    covers: string | ((error: StorageCorruption) => string),
    read: () => A,
    path: string,
  ): A | undefined {
    const words = (error: StorageCorruption) =>
      typeof covers === "string" ? covers : covers(error)
    try {
      return read()
    } catch (error) {
      if (error instanceof StorageCorruption) this.corruption(error, words(error))
      else this.add({ path, offset: 0, ...explain(error), covers: "the file as a whole" })
      return undefined
    }
  }
}

/** Errors that are no `StorageCorruption`: a file that cannot be opened, another version's format, malformed bytes. */
function explain(error: unknown): { expected: string; found: string } {
  if (!(error instanceof Error)) throw error
  // A failed assert or a type error would be a bug in here, but the rest of the directory is still worth reading.
  return { expected: "a file that can be read", found: `${error.name}: ${error.message}` }
}
