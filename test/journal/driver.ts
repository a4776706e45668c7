import type { Disk } from "../../src/disk/disk.ts"
import { Journal, type JournalOptions, type JournalWrite } from "../../src/journal/journal.ts"
import { prepareSegment, removeSegments } from "../../src/journal/segments.ts"

export const directory = "journal"

/** Small enough that a few dozen batches fill several segments. */
export const smallOptions: JournalOptions = {
  segmentBytes: 4096,
  tailCacheBytes: 2048,
  rewriteThresholdSegments: 3,
  rewriteSliceBytes: 512,
}

/** Carries out what a journal asks for, as the store's driver does, but at once. */
export class JournalDriver {
  readonly disk: Disk
  journal: Journal
  readonly options: JournalOptions
  writes = 0

  constructor(disk: Disk, options: JournalOptions = smallOptions) {
    this.disk = disk
    this.options = options
    this.journal = Journal.recover(disk, directory, options).journal
  }

  /** Throws what recovery throws. */
  recover(): void {
    this.journal = Journal.recover(this.disk, directory, this.options).journal
  }

  prepare(): void {
    for (const job of this.journal.segmentsToPrepare()) {
      prepareSegment(this.disk, job)
      this.journal.segmentReady(job)
    }
  }

  /** Writes one batch of what was gathered, releases included, and makes it durable. */
  commit(): JournalWrite | undefined {
    const write = this.cut(() => this.journal.cut())
    if (write !== undefined) this.write(write)
    removeSegments(this.disk, this.journal.segmentsToDelete())
    return write
  }

  /** Prepares segments as long as a batch asks for one made to measure. */
  cut(cut: () => JournalWrite | undefined): JournalWrite | undefined {
    for (let round = 0; round < 3; round++) {
      this.prepare()
      const write = cut()
      if (write !== undefined) return write
    }
    return undefined
  }

  write(write: JournalWrite): void {
    const file = this.disk.open(write.path)
    file.write(write.bytes, write.offset)
    if (write.sync) file.sync()
    file.close()
    this.writes++
    this.journal.durable(write)
  }

  /** The sealing batch, if one is due. */
  seal(): JournalWrite | undefined {
    const write = this.cut(() => this.journal.sealIfIdle())
    if (write !== undefined) this.write(write)
    return write
  }
}

/** All that a journal holds, as text, one line a group. */
export function contents(journal: Journal): string {
  return journal
    .list()
    .map((group) => {
      const { firstIndex, lastIndex, hardState } = group
      const entries =
        lastIndex < firstIndex
          ? []
          : group.entries(firstIndex, lastIndex + 1, Number.POSITIVE_INFINITY)
      const log = entries.map(({ index, term, kind, data }) => {
        return `${index}@${term}/${kind}:${Buffer.from(data).toString("hex")}`
      })
      const state = `term=${hardState.term} vote=${hardState.vote} commit=${hardState.commit}`
      const base = `${firstIndex - 1}@${group.term(firstIndex - 1)}`
      return `${group.key.range}/${group.key.replica} ${state} base=${base} ${log.join(" ")}`
    })
    .join("\n")
}
