import type { JournalGroup } from "../journal/group.ts"
import type { LogStorage } from "../raft/log.ts"
import type { Entry } from "../raft/message.ts"
import type { LogIndex, Term } from "../types.ts"

/**
 * A group's log as a core that begins over it sees it: up to the first entry that damage has taken. What the log has behind that is kept, as long as no leader's
 * entries take its place.
 */
export class LogView implements LogStorage {
  private readonly log: JournalGroup

  constructor(log: JournalGroup) {
    this.log = log
  }

  get firstIndex(): LogIndex {
    return this.log.firstIndex
  }

  get lastIndex(): LogIndex {
    return this.log.lastReadable
  }

  term(index: LogIndex): Term | undefined {
    const term = this.log.term(index)
    return term !== undefined && term >= 0 ? term : undefined
  }

  entries(from: LogIndex, to: LogIndex, maxBytes: number): ReadonlyArray<Entry> {
    // What comes back is what was appended: the kinds are those of raft/message.ts.
    return this.log.entries(from, to, maxBytes) as ReadonlyArray<Entry>
  }

  firstMissing(from: LogIndex): LogIndex | undefined {
    return this.log.firstMissing(from)
  }

  get voteFloor() {
    return this.log.voteFloor
  }
}
