import type { MonotonicMs, NodeId } from "../../types.ts"
import type { RunTask } from "./exchangeFills.ts"
import type { Pull } from "./exchangePull.ts"

/** What is known of how far another owner is from this one. */
export interface Divergence {
  readonly node: NodeId
  /** Keys found to differ when each shared run was last compared, less those taken over since. */
  readonly keys: number
  /** Shared runs of slots that have not been compared since the node was last out of reach: what differs there is not known. */
  readonly runsUnknown: number
  /** Milliseconds since the oldest of these differences was found; 0 for none. */
  readonly oldestMs: number
  /** Sent to it and received from it for exchanges. */
  readonly bytes: number
}

interface Found {
  readonly task: RunTask
  readonly keys: number
  readonly sinceMs: MonotonicMs
  /** When it was last looked at, and what it had then (`NodeStore.mark`). */
  lookedMs: MonotonicMs
  mark: number
}

/** Between two looks at what differs. */
const lookMs = 200

/** The numbers of one other owner. */
export class ExchangeDifferences {
  bytes = 0
  /** By run: what differs. */
  private readonly runs = new Map<string, Found>()
  private nextLookMs: MonotonicMs = 0

  /** After a pull. One that came to its end leaves what the other has still to take from here; one that broke off, all that it had found. */
  note(task: RunTask, { pull, isBroken, mark }: PullEnd, nowMs: MonotonicMs): void {
    const name = nameOf(task)
    const keys = isBroken ? pull.differing : pull.lacking
    if (keys > 0) {
      const sinceMs = isBroken ? this.runs.get(name)?.sinceMs : undefined
      this.runs.set(name, { task, keys, sinceMs: sinceMs ?? nowMs, lookedMs: nowMs, mark })
    } else if (!isBroken) this.runs.delete(name)
  }

  /** Runs that have not changed for `quietMs` since they were found to differ, or were returned last. */
  due(
    nowMs: MonotonicMs,
    quietMs: number,
    markOf: (task: RunTask) => number,
  ): ReadonlyArray<RunTask> {
    if (nowMs < this.nextLookMs || this.runs.size === 0) return none
    this.nextLookMs = nowMs + lookMs
    const due: Array<RunTask> = []
    for (const found of this.runs.values()) {
      if (nowMs - found.lookedMs < quietMs) continue
      const mark = markOf(found.task)
      if (mark === found.mark) due.push(found.task)
      found.mark = mark
      found.lookedMs = nowMs
    }
    return due
  }

  /** Forgets runs that are not compared any more. */
  keep(isShared: (task: RunTask) => boolean): void {
    for (const [name, { task }] of this.runs) if (!isShared(task)) this.runs.delete(name)
  }

  /** Of keys, and of the time since the oldest was found; `underWay` knows more of its run than what was noted last. */
  count(underWay: { readonly task: RunTask; readonly pull: Pull } | undefined, nowMs: MonotonicMs) {
    const name = underWay === undefined ? "" : nameOf(underWay.task)
    let keys = Math.max(underWay?.pull.differing ?? 0, this.runs.get(name)?.keys ?? 0)
    let sinceMs = nowMs
    for (const [run, found] of this.runs) {
      if (run !== name) keys += found.keys
      sinceMs = Math.min(sinceMs, found.sinceMs)
    }
    return { keys, oldestMs: nowMs - sinceMs }
  }
}

const none: ReadonlyArray<RunTask> = []

function nameOf({ namespace, start }: RunTask): string {
  return `${namespace}/${start}`
}

export interface PullEnd {
  readonly pull: Pull
  readonly isBroken: boolean
  /** Of what the run holds here. */
  readonly mark: number
}
