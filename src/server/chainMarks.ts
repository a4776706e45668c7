import { assert } from "../lib/assert.ts"
import type { LogIndex, ReplicaId } from "../types.ts"

/** The chain of a range (apply.ts) as it stood once an index was applied. */
export interface ChainMark {
  readonly index: LogIndex
  readonly chain: number
}

/**
 * Chains at the indexes that all replicas remember: the multiples of `every`, the newest `capacity` of them. Two replicas that were at the same
 * index with another chain have made different writes of the same log.
 */
export class ChainMarks {
  private readonly every: number
  private readonly capacity: number
  private readonly marks: Array<ChainMark> = []

  constructor(options: { readonly every: number; readonly capacity: number }) {
    assert(options.every >= 1 && options.capacity >= 1, "marks are kept")
    this.every = options.every
    this.capacity = options.capacity
  }

  /** Call after each entry applied. True when it is one to remember. */
  note(index: LogIndex, chain: number): boolean {
    if (index % this.every !== 0) return false
    const last = this.marks[this.marks.length - 1]
    assert(last === undefined || last.index < index, () => `${index} is applied once`)
    this.marks.push({ index, chain })
    if (this.marks.length > this.capacity) this.marks.shift()
    return true
  }

  get newest(): ChainMark | undefined {
    return this.marks[this.marks.length - 1]
  }

  find(index: LogIndex): ChainMark | undefined {
    for (let i = this.marks.length - 1; i >= 0; i--) {
      const mark = this.marks[i] as ChainMark
      if (mark.index === index) return mark
      if (mark.index < index) return undefined
    }
    return undefined
  }
}

/** What the leader knows once the replicas have said what they hold at one index. */
export type Verdict =
  | { readonly _tag: "Equal" }
  /** These differ from what most hold. */
  | { readonly _tag: "Differ"; readonly replicas: ReadonlyArray<ReplicaId> }
  /** They differ, and no answer is that of a majority of all replicas: nobody can say who is right. */
  | { readonly _tag: "Undecided"; readonly replicas: ReadonlyArray<ReplicaId> }

/**
 * Compares what replicas hold at one index: `values` has one number for each that has answered, and `members` counts all that the range has. With three
 * replicas the odd one out is known; with two, or while answers are missing, only that there is one.
 */
export function compareReplicas(values: ReadonlyMap<ReplicaId, number>, members: number): Verdict {
  const counts = new Map<number, number>()
  for (const value of values.values()) counts.set(value, (counts.get(value) ?? 0) + 1)
  if (counts.size <= 1) return { _tag: "Equal" }
  const ids = [...values.keys()].sort((left, right) => left - right)
  for (const [value, count] of counts) {
    if (2 * count <= members) continue
    return { _tag: "Differ", replicas: ids.filter((id) => values.get(id) !== value) }
  }
  return { _tag: "Undecided", replicas: ids }
}
