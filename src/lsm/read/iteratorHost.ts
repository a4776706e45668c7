import type { Fragment, Run } from "../manifest/version.ts"
import type { Table } from "../table/tableReader.ts"
import { RunCursor } from "./runCursor.ts"

/** Enough for a few iterators that are open at a time. */
const keptCursors = 32
const noRun: Run = []

/** What the iterators of an engine share: its tables, and cursors that are used again. */
export class IteratorHost {
  readonly tableOf: (fragment: Fragment) => Table
  /** Is told of whatever a read threw. */
  readonly readFailed: (error: unknown) => void
  /** Free cursors over runs, with the buffers that they have grown. */
  private readonly kept: Array<RunCursor> = []

  constructor(tableOf: (fragment: Fragment) => Table, readFailed: (error: unknown) => void) {
    this.tableOf = tableOf
    this.readFailed = readFailed
  }

  /** A cursor that goes forward over what lies within bounds. */
  takeCursor(run: Run, lower: Uint8Array | undefined, upper: Uint8Array | undefined): RunCursor {
    const { tableOf } = this
    const cursor = this.kept.pop()
    if (cursor === undefined) return new RunCursor(run, { tableOf, reverse: false, lower, upper })
    cursor.reverse = false
    cursor.reset(run, lower, upper)
    return cursor
  }

  giveCursor(cursor: RunCursor): void {
    if (this.kept.length === keptCursors) return
    // Lets go of the table and its blocks.
    cursor.reset(noRun, undefined, undefined)
    this.kept.push(cursor)
  }
}
