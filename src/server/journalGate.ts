import type { Journal, JournalWrite } from "../journal/journal.ts"
import type { Message } from "../raft/message.ts"
import type { LogIndex, NodeId, Term } from "../types.ts"
import type { PeerMessage } from "./peerMessage.ts"
import type { Replica } from "./replica.ts"

/** What waits for a journal batch to be durable. */
interface Waiting {
  readonly persisted: Array<{ replica: Replica; index: LogIndex; term: Term }>
  readonly messages: Array<{ replica: Replica; message: Message }>
  readonly sends: Array<{ to: NodeId; message: PeerMessage }>
  /** Of the eventual log; 0 = none. */
  mark: number
}

const emptyWaiting = (): Waiting => ({ persisted: [], messages: [], sends: [], mark: 0 })

function isEmpty({ persisted, messages, sends, mark }: Waiting): boolean {
  return persisted.length + messages.length + sends.length + mark === 0
}

/** What the gate hands back when its moment has come. */
export interface GateHost {
  /** A raft message leaves, or is stepped when it is addressed to the replica itself. */
  deliver(replica: Replica, message: Message): void
  send(to: NodeId, message: PeerMessage): void
  /** Entries of the eventual log up to this one are durable. */
  marked(mark: LogIndex): void
}

/**
 * Holds back what promises something until what it promises is durable. All that waits when a batch is cut waits for that batch; what comes while
 * a write is under way and needs no record of its own waits for that write; what comes when all is durable goes at once.
 */
export class JournalGate {
  private readonly journal: Journal
  private readonly host: GateHost
  private waiting = emptyWaiting()
  private inFlight: Waiting | undefined
  /** A tick passed since the last write. */
  private isIdle = false

  constructor(journal: Journal, host: GateHost) {
    this.journal = journal
    this.host = host
  }

  /** Entries up to (index, term) were given to the journal: tell the core when they are durable. */
  tellPersisted(replica: Replica, index: LogIndex, term: Term): void {
    this.waiting.persisted.push({ replica, index, term })
  }

  /** A message that must not leave before all given to the journal so far is durable. */
  hold(replica: Replica, message: Message): void {
    this.waiting.messages.push({ replica, message })
  }

  holdSend(to: NodeId, message: PeerMessage): void {
    this.waiting.sends.push({ to, message })
  }

  /** Entries of the eventual log up to this one were given to the journal. */
  tellMark(mark: LogIndex): void {
    this.waiting.mark = mark
  }

  /** The replica is gone: nothing that it waited to say is said, and its core is told nothing. */
  forget(replica: Replica): void {
    for (const waiting of [this.waiting, this.inFlight]) {
      if (waiting === undefined) continue
      drop(waiting.persisted, replica)
      drop(waiting.messages, replica)
    }
  }

  get isWriting(): boolean {
    return this.inFlight !== undefined
  }

  ticked(): void {
    this.isIdle = true
  }

  /** The write that `cut` returned is durable. */
  durable(write: JournalWrite): void {
    this.journal.durable(write)
    const waiting = this.inFlight
    this.inFlight = undefined
    if (waiting !== undefined) this.release(waiting)
  }

  /** The next batch, unless a write is under way or there is nothing to write. Lets go what waits for nothing. */
  cut(): JournalWrite | undefined {
    const { journal } = this
    if (journal.wantsWrite) {
      if (this.inFlight !== undefined) return undefined
      const write = journal.cut()
      // Without a write no segment is ready yet: all of it waits for a later turn.
      return write === undefined ? undefined : this.begin(write)
    }
    if (!isEmpty(this.waiting)) {
      const waiting = this.waiting
      this.waiting = emptyWaiting()
      if (this.inFlight === undefined) this.release(waiting)
      else {
        // Nothing was gathered since: what waits, waits for the write under way.
        this.inFlight.persisted.push(...waiting.persisted)
        this.inFlight.messages.push(...waiting.messages)
        this.inFlight.sends.push(...waiting.sends)
        this.inFlight.mark = Math.max(this.inFlight.mark, waiting.mark)
      }
    }
    if (this.inFlight !== undefined) return undefined
    if (!this.isIdle) return undefined
    this.isIdle = false
    const seal = journal.sealIfIdle()
    return seal === undefined ? undefined : this.begin(seal)
  }

  private begin(write: JournalWrite): JournalWrite {
    this.inFlight = this.waiting
    this.waiting = emptyWaiting()
    this.isIdle = false
    return write
  }

  private release(waiting: Waiting): void {
    for (const { replica, index, term } of waiting.persisted) replica.raft.persisted(index, term)
    for (const { replica, message } of waiting.messages) this.host.deliver(replica, message)
    for (const { to, message } of waiting.sends) this.host.send(to, message)
    if (waiting.mark > 0) this.host.marked(waiting.mark)
  }
}

function drop(list: Array<{ readonly replica: Replica }>, replica: Replica): void {
  const kept = list.filter((each) => each.replica !== replica)
  list.splice(0, list.length, ...kept)
}
