import type { JournalGroup, LoggedEntry } from "./group.ts"

/**
 * What an entry in memory costs beside its data: the object, its place in a map and in the queue.
 */
const entryOverheadBytes = 128

export interface Cached {
  readonly group: JournalGroup
  /** Undefined once the entry has left its group. */
  entry: LoggedEntry | undefined
}

/**
 * The newest entries of all groups in memory, oldest leaving first once they pass the budget. An
 * entry stays, whatever the budget, until it is durable: before that it can be read nowhere else.
 */
export class TailCache {
  private readonly limitBytes: number
  private usedBytes = 0
  private liveCount = 0
  private queue: Array<Cached> = []
  private head = 0

  constructor(limitBytes: number) {
    this.limitBytes = limitBytes
  }

  get sizeBytes(): number {
    return this.usedBytes
  }

  add(group: JournalGroup, entry: LoggedEntry): Cached {
    const cached: Cached = { group, entry }
    this.queue.push(cached)
    this.usedBytes += entry.data.length + entryOverheadBytes
    this.liveCount++
    return cached
  }

  /** The entry has left its group's log. */
  forget(cached: Cached): void {
    const entry = cached.entry
    if (entry === undefined) return
    cached.entry = undefined
    this.usedBytes -= entry.data.length + entryOverheadBytes
    this.liveCount--
    // Slots of forgotten entries behind one that stays would pile up for ever.
    if (this.queue.length > 2 * this.liveCount + 1024) this.compact()
  }

  private compact(): void {
    this.queue = this.queue.filter((cached, i) => i >= this.head && cached.entry !== undefined)
    this.head = 0
  }

  /** Lets the oldest durable entries go until the budget holds. */
  evict(): void {
    while (this.usedBytes > this.limitBytes && this.head < this.queue.length) {
      const cached = this.queue[this.head] as Cached
      const index = cached.entry?.index
      if (index !== undefined && !cached.group.isDurable(index)) break
      this.head++
      if (index !== undefined) cached.group.uncache(index)
    }
    if (this.head > 1024 && this.head * 2 > this.queue.length) this.compact()
  }
}
