import type { JournalGroup } from "../journal/group.ts"
import type { AppendRequest, Message } from "../raft/message.ts"
import type { LogIndex, MonotonicMs, NodeId, ReplicaId } from "../types.ts"
import type { EntriesFound, EntriesWanted, LogMark } from "./lostEntries.ts"
import type { PeerMessage } from "./peerMessage.ts"
import type { Replica } from "./replica.ts"

/** What this room needs of the loop. */
export interface HoleHost {
  readonly clock: { readonly monotonicMs: MonotonicMs }
  /** Data of the entries of one message. */
  readonly maxBytes: number
  /** Questions are numbered from here on, so that answers to an earlier life of this node are void. */
  readonly firstSequence: number
  send(to: NodeId, message: PeerMessage): void
  /** A line for the operator, said once. */
  note(message: string): void
  /** State keys and data of what is applied go to tables soon. */
  flush(): void
  /** Puts a core over all of the log in place of the replica's. */
  restart(replica: Replica): void
}

/**
 * What a replica that damage has hurt is at: `filling` = others are asked; `unfillable` = all others have answered and none has what is missing, so that
 * only a leader's snapshot can bring it up again, or its removal; `alone` = there is nobody to ask.
 */
export type HoleState = "whole" | "filling" | "unfillable" | "alone"

/** A question that is out. */
interface Search {
  readonly sequence: number
  readonly askedAtMs: MonotonicMs
  readonly answers: Map<ReplicaId, EntriesFound>
  /** The first entry wanted; 0 = none, it is about promises. */
  readonly first: LogIndex
}

interface Repair {
  search: Search | undefined
  state: HoleState
  /** Its core was made while promises were unknown, and does nothing. */
  wasUnsure: boolean
  /** Repeats wait longer each time. */
  tries: number
  questions: number
  /** Questions in a row that everyone answered with nothing. */
  fruitless: number
  /** Who has said that it does not have what is missing first. */
  readonly lacking: Set<ReplicaId>
}

const retryMs = 200
const retryMaxMs = 5000
/** Some 20 s without any progress: whoever could help is down, or has nothing. */
const hopelessTries = 8
/** Some 3 s in which the leader has not said whether it has what is missing. */
const patientTries = 4
const tellMs = 1000
/** Entries that stood next to a gap and turned out to be others' leavings are given up so many at a time. */
const disownedAtOnce = 64

/**
 * Gets back from the other replicas what damage took from the logs of this node (DESIGN section 3; RELIABILITY pitfall 36).
 *
 * - Gaps: every other voter, leader or not, is asked for the entries by index, together with an entry behind them: who has that very entry answers
 *   with what it has before it, where it misses nothing in between (Raft paper 5.3, Log Matching); anyone, with entries of that entry's term. They are put in place, and when none is missing
 *   the replica gets a core over its whole log. Meanwhile its core sees the log up to the first gap: as a follower it takes what a leader sends in place of
 *   the rest once that one has said that it lacks what is missing (`keepsFrom`), and votes for nobody who does not have it (`voteFloor`). A gap below what is
 *   flushed needs no filling, so one that is applied and that nobody fills ends with a flush.
 * - A core knows the log as it was when it began: with what was lost since, and without what was put back since. One over what can be read takes its place when what is
 *   missing will not come, so that it takes a snapshot, and before an append would cut off what it does not know of.
 * - An unsure replica does not know its term, its votes, and how far it has acknowledged. Its core takes no part until every other voter has said, since
 *   this start, in which term it is and where its log ends. It goes on in the largest of those terms, in which it votes for nobody: no vote that it
 *   gave can be for a later one, because the candidate is one of those asked. And it counts for no log that ends before the furthest of theirs: an entry that
 *   was committed with its help is held by one of them. Answers of replicas that are unsure themselves say nothing; where two of three are, only the operator can help.
 *   Where a voter never answers, and where it has no state to know any from, it asks to be replaced: the leader reports it as it does odd ones (comparison.ts).
 * - A leader that is asked sends again what the replica had acknowledged, from where its log breaks off.
 * - What nobody else ever had was not committed: the replica owes it no longer, and may be elected without it (`waive`).
 * - A leader whose own entry is lost before it has reached anyone can send nothing from there on: it steps down, and whoever leads then puts other entries in its
 *   place (storeLoop.ts).
 *
 * One question a replica is out at a time, about one gap; answers hold at most `maxBytes` of data. What is held of answers is one of each voter.
 *
 * Left out: a vote given to a candidate that this replica does not know to be a voter, in a change of members that was lost with it.
 */
export class HoleFilling {
  private readonly host: HoleHost
  private readonly repairs = new Map<Replica, Repair>()
  /** When a leader was last told of a loss; weak, as replicas come and go. */
  private readonly toldAtMs = new WeakMap<Replica, MonotonicMs>()
  private sequence: number

  constructor(host: HoleHost) {
    this.host = host
    this.sequence = host.firstSequence
  }

  stateOf(replica: Replica): HoleState {
    return this.repairs.get(replica)?.state ?? "whole"
  }

  /** Every other voter has said that it does not have what is missing here. */
  isUnfillable(replica: Replica): boolean {
    return this.repairs.get(replica)?.state === "unfillable"
  }

  /** It misses entries that no other replica has, or that none has shown for a long time. */
  isHopeless(replica: Replica): boolean {
    const repair = this.repairs.get(replica)
    return repair !== undefined && (repair.state === "unfillable" || repair.tries >= hopelessTries)
  }

  /** Call at every tick, with all replicas of the node. */
  tick(replicas: ReadonlyArray<Replica>): void {
    for (const replica of replicas) {
      const { log } = replica
      if (log.isUnsure || log.missingCount > 0 || this.repairs.has(replica)) this.advance(replica)
      else if (log.voteFloor !== undefined) this.tellLoss(replica)
    }
    if (this.repairs.size > replicas.length) this.forgetGone(replicas)
  }

  /** Its log ends before what it has acknowledged, with nothing to fill: the leader, who may count on that, is told to send it again. */
  private tellLoss(replica: Replica): void {
    const { raft, log, machine, range } = replica
    const { leader } = raft
    const node = leader === undefined ? undefined : replica.nodeOf(leader)
    if (leader === undefined || node === undefined) return
    const nowMs = this.host.clock.monotonicMs
    if (nowMs - (this.toldAtMs.get(replica) ?? -retryMaxMs) < tellMs) return
    this.toldAtMs.set(replica, nowMs)
    this.host.send(node, {
      ...{ _tag: "EntriesWanted", range, from: machine.replica, to: leader },
      ...{ sequence: this.sequence++, first: 0, last: 0, anchor: { index: 0, term: 0 } },
      readableTo: Math.max(machine.appliedIndex, log.lastReadable),
    })
  }

  private forgetGone(replicas: ReadonlyArray<Replica>): void {
    for (const replica of this.repairs.keys()) {
      if (!replicas.includes(replica)) this.repairs.delete(replica)
    }
  }

  private advance(replica: Replica): void {
    const { log } = replica
    if (log.isDestroyed) return void this.repairs.delete(replica)
    dropNeedless(replica)
    const repair = this.repairOf(replica)
    if (!log.isUnsure && (repair.wasUnsure || log.missingCount === 0)) {
      return this.mend(replica, repair)
    }
    this.align(replica, repair)
    const { search } = repair
    const nowMs = this.host.clock.monotonicMs
    const waitMs = Math.min(retryMs * 2 ** repair.tries, retryMaxMs)
    const isNews = search !== undefined && log.firstMissing(search.first) !== search.first
    if (isNews && search.first > 0) {
      repair.tries = 0
      repair.lacking.clear()
    } else if (search !== undefined && nowMs - search.askedAtMs < waitMs) return
    else repair.tries++
    if (log.isUnsure && repair.tries >= hopelessTries)
      tellLost(replica, (to, message) => this.host.send(to, message))
    this.ask(replica, repair)
  }

  private repairOf(replica: Replica): Repair {
    const known = this.repairs.get(replica)
    if (known !== undefined) return known
    const { isUnsure: wasUnsure } = replica.log
    const repair: Repair = {
      search: undefined,
      state: "filling",
      wasUnsure,
      tries: 0,
      questions: 0,
      fruitless: 0,
      lacking: new Set(),
    }
    this.repairs.set(replica, repair)
    return repair
  }

  /**
   * Its promises are known again, or nothing is missing any more: the core, which knows a part only, makes room for one that knows all there is. What may
   * still be missing after a doubt has ended is a gap like any other.
   */
  private mend(replica: Replica, repair: Repair): void {
    const { log, raft } = replica
    if (repair.wasUnsure || raft.lastIndex < log.lastIndex) {
      if (!isReadableDurable(log) || replica.installing || replica.isLeader) return
      log.mended()
      this.host.restart(replica)
    } else log.mended()
    if (log.missingCount > 0) {
      repair.wasUnsure = false
      return
    }
    this.repairs.delete(replica)
    this.host.note(`${nameOf(replica)}: what damage took from its log is there again`)
  }

  /**
   * What is missing will not come by filling. A core that has known of it since before it was damaged would tell the leader that it needs no snapshot, and one that
   * began before an earlier gap was filled knows less than can be read. One over what can be read takes its place, as at a start.
   */
  private align(replica: Replica, repair: Repair): void {
    const { log, raft, machine, installing, isLeader } = replica
    const { leader } = raft
    const isLacking = leader !== undefined && repair.lacking.has(leader)
    if (log.isUnsure || !(isLacking || repair.state === "unfillable")) return
    if (raft.lastIndex === log.lastReadable || installing || isLeader) return
    // What is applied is needed no more once it is flushed.
    if (machine.appliedIndex > log.lastReadable) return
    if (isReadableDurable(log)) this.host.restart(replica)
  }

  private ask(replica: Replica, repair: Repair): void {
    const { log } = replica
    const { gaps } = log
    // The newest in turns with the oldest: where two replicas miss entries by turns, each can prove at first only what it has behind all gaps of the other.
    const gap = repair.questions++ % 2 === 0 ? gaps[0] : gaps[gaps.length - 1]
    // What is applied, and nobody can give back, is needed no more when it is in tables.
    if (repair.fruitless > 0 && (gaps[0]?.from ?? 0) <= replica.machine.appliedIndex) {
      this.host.flush()
    }
    const others = othersOf(replica)
    if (others.length === 0) repair.state = "alone"
    // One without data is told by a leader's messages whom to turn to (`tellLost`).
    if (others.length === 0 && !replica.isEmpty) {
      const lost = gap === undefined ? "its promises" : `entry ${gap.from}`
      this.host.note(
        `${nameOf(replica)}: damage took ${lost}, and there is no other replica to ask: stop the node and look at \`kvorum recover unsafe-quorum --dry-run\``,
      )
    }
    const first = gap?.from ?? 0
    const search = {
      sequence: this.sequence++,
      askedAtMs: this.host.clock.monotonicMs,
      answers: new Map<ReplicaId, EntriesFound>(),
      first,
    }
    repair.search = search
    for (const other of others) {
      const node = replica.nodeOf(other)
      if (node === undefined) continue
      this.host.send(node, {
        _tag: "EntriesWanted",
        range: replica.range,
        from: replica.machine.replica,
        to: other,
        sequence: search.sequence,
        first,
        last: gap?.to ?? 0,
        anchor: gap?.anchor ?? { index: 0, term: 0 },
        readableTo: Math.max(replica.machine.appliedIndex, log.lastReadable),
      })
    }
  }

  /** Another replica asks: it is told what this one has. */
  asked(replica: Replica, wanted: EntriesWanted, from: NodeId): void {
    const { log } = replica
    const { index: anchor, term } = wanted.anchor
    const hasAnchor = wanted.first > 0 && log.term(anchor) === term && !missesIn(log, wanted)
    const isHeld = hasAnchor && wanted.first >= log.firstIndex && anchor <= log.lastIndex
    const { first, last, sequence, range } = wanted
    const end = (isHeld ? last : lastOfTerm(log, wanted)) + 1
    const entries = first < end ? log.entries(first, end, this.host.maxBytes) : []
    this.host.send(from, {
      _tag: "EntriesFound",
      range,
      from: replica.machine.replica,
      to: wanted.from,
      sequence,
      isSure: log.mayVote,
      term: Math.max(replica.raft.term, log.hardState.term),
      last: endOf(replica),
      previousTerm: entries.length > 0 ? Math.max(0, log.term(first - 1) ?? 0) : 0,
      entries,
    })
    replica.raft.reportLost(wanted.from, wanted.readableTo)
  }

  /** The answer of another replica. */
  answered(replica: Replica, found: EntriesFound): void {
    const repair = this.repairs.get(replica)
    const search = repair?.search
    if (repair === undefined || search?.sequence !== found.sequence) return
    if (search.answers.has(found.from)) return
    search.answers.set(found.from, found)
    if (found.entries.length > 0) this.take(replica, found)
    else if (search.first === replica.log.gaps[0]?.from) repair.lacking.add(found.from)
    const others = othersOf(replica)
    if (!others.every((other) => search.answers.has(other))) return
    if (replica.log.isUnsure) this.settle(replica, [...search.answers.values()])
    else if ([...search.answers.values()].some(({ entries }) => entries.length > 0)) {
      repair.fruitless = 0
    } else if (++repair.fruitless >= 2) {
      if (isNobodys(replica, search)) this.waive(replica, repair, search.first)
      else this.unfillable(replica, repair)
    }
  }

  /**
   * A lost entry that no majority can have held was never committed: it binds nobody, and who has lost it may be elected without it. It may be the one that has what all
   * others miss.
   */
  private waive(replica: Replica, repair: Repair, first: LogIndex): void {
    repair.state = "filling"
    replica.log.waive(first)
    this.host.note(
      `${nameOf(replica)}: damage took entry ${first}, which no other replica ever had: it was not committed, and is given up`,
    )
  }

  /** Puts what was found where it is missing, unless the log differs from the other one before it. */
  private take(replica: Replica, found: EntriesFound): void {
    const { log, machine } = replica
    const gap = log.gaps.find(({ from }) => from === found.entries[0]?.index)
    if (gap === undefined) return
    const { previousTerm } = found
    const { before } = gap
    // Whoever misses the entry before it too proves what it found, but not that the log here leads up to it, unless one leader wrote both.
    const isProven = before.index <= machine.appliedIndex || before.term === found.entries[0]?.term
    if (previousTerm === 0 && !isProven) return
    if (previousTerm !== 0 && gap.before.term >= 0 && previousTerm !== gap.before.term) {
      // The record that replaced those entries is lost as well. What is applied was committed: there it cannot be.
      const from = Math.max(machine.appliedIndex + 1, gap.from - disownedAtOnce)
      if (from < gap.from) log.disown(from, gap.from - 1)
      return
    }
    log.fill(found.entries)
  }

  /**
   * Whether an append of the leader's is to wait. The core sees the log up to the first gap, and would let it take the place of all that is there behind it: good
   * entries, of which another replica may lose its copy before they have come again. So first the leader is asked for what is missing. When it has not
   * got it, or does not answer for long, it may replace the rest.
   */
  keepsFrom(replica: Replica, message: Message): boolean {
    const { log } = replica
    if (message._tag !== "AppendRequest") return false
    if (this.isBehind(replica, message)) {
      if (isReadableDurable(log)) this.host.restart(replica)
      return true
    }
    if (log.missingCount === 0) return false
    const [gap] = log.gaps
    if (gap === undefined || gap.to >= log.lastIndex) return false
    const { previousIndex, entries, from } = message
    if (previousIndex >= gap.from || previousIndex + entries.length < gap.from) return false
    // Of one term and index there is one entry: the leader brings the very one that is missing, and what is behind it stays.
    const missing = entries.filter(
      ({ index, term }) => index >= gap.from && index <= gap.to && log.term(index) === term,
    )
    if (missing.length > 0) {
      log.fill(missing)
      return true
    }
    const repair = this.repairs.get(replica)
    return repair === undefined || !(repair.lacking.has(from) || repair.tries >= patientTries)
  }

  /** The core does not know yet of entries that were put back, and would let the leader's take the place of all from there on. */
  private isBehind(replica: Replica, { previousIndex, entries }: AppendRequest): boolean {
    const { log, raft } = replica
    if (!this.repairs.has(replica) || !log.mayVote || replica.installing) return false
    // Where it has truncated its log just now, it has entries that are not written.
    if (raft.lastIndex >= log.lastReadable || raft.durableIndex < raft.lastIndex) return false
    return previousIndex + entries.length > raft.lastIndex
  }

  /**
   * Whether a leader counts on more than is there. It tells a follower no more to be committed than that has acknowledged to it, so what is missing was lost
   * since, and looked like a write that never ended.
   */
  heard({ log, raft, installing }: Replica, message: Message): void {
    if (message._tag !== "Heartbeat" || message.commit <= raft.lastIndex) return
    if (message.term < raft.term || installing || log.missingCount > 0) return
    log.owe({ index: message.commit, term: message.term })
  }

  private unfillable(replica: Replica, repair: Repair): void {
    if (repair.state === "unfillable") return
    repair.state = "unfillable"
    const [gap] = replica.log.gaps
    if (gap === undefined) return
    this.host.note(
      `${nameOf(replica)}: no other replica has entries ${gap.from} to ${gap.to}, which damage took; it waits for a snapshot`,
    )
  }

  /** Every other voter has said where it stands. */
  private settle(replica: Replica, answers: ReadonlyArray<EntriesFound>): void {
    if (!answers.every(({ isSure }) => isSure)) {
      this.host.note(
        `${nameOf(replica)}: damage took its promises, and those of another replica: it takes no part before that one does`,
      )
      return
    }
    let term = 0
    let furthest: LogMark = { index: 0, term: 0 }
    for (const answer of answers) {
      term = Math.max(term, answer.term)
      const { last } = answer
      const isFurther =
        last.term > furthest.term || (last.term === furthest.term && last.index > furthest.index)
      if (isFurther) furthest = last
    }
    if (othersOf(replica).length > 0) replica.log.settle(term, furthest)
  }
}

/** What a replica needs does not come back: the leader, if there is one, is asked to have it replaced. */
export function tellLost(replica: Replica, send: (to: NodeId, message: PeerMessage) => void): void {
  const { range, machine } = replica
  const from = machine.replica
  for (const [to, node] of replica.knownNodes()) {
    if (to === from) continue
    send(node, {
      ...{ _tag: "Chain", kind: "lost", range, from, to },
      ...{ index: machine.appliedIndex, chain: machine.chain },
    })
  }
}

/** Entries up to what is flushed are in tables: a gap there ends with the log's release. */
function dropNeedless(replica: Replica): void {
  const { log, flushedIndex } = replica
  const missing = log.firstMissing(0)
  if (missing === undefined || missing > flushedIndex || flushedIndex > log.lastIndex) return
  if ((log.term(flushedIndex) ?? -1) >= 0) log.release(flushedIndex)
}

/** A core takes all that it finds in the log for durable. */
function isReadableDurable(log: JournalGroup): boolean {
  return log.lastReadable < log.firstIndex || log.isDurable(log.lastReadable)
}

/** All others whose votes count, by the membership in force here. */
function othersOf(replica: Replica): ReadonlyArray<ReplicaId> {
  const { voters, outgoing } = replica.raft.membership
  const own = replica.machine.replica
  return [...new Set([...voters, ...outgoing])].filter((other) => other !== own)
}

/**
 * Whether the first missing entry was held by nobody else: each other member, asked after it was written here, says that neither its log nor anything that it has
 * acknowledged reaches there. So do the entries behind it not count, a change of members among them: that is decided by the members before it too (Raft paper 6).
 */
function isNobodys({ log, raft, machine }: Replica, { first, answers }: Search): boolean {
  // The core is to know of all that is before it: what was acknowledged of that is owed.
  if (first === 0 || first !== log.gaps[0]?.from || raft.lastIndex !== first - 1) return false
  const known = Math.max(machine.appliedIndex, raft.commitIndex, log.hardState.commit)
  return known < first && [...answers.values()].every((a) => a.isSure && a.last.index < first)
}

/** Whether something is missing between the entries wanted and the one that proves them. */
function missesIn(log: JournalGroup, { first, anchor }: EntriesWanted): boolean {
  const missing = log.firstMissing(first)
  return missing !== undefined && missing <= anchor.index
}

/**
 * The last entry, from the first one wanted on, that is here and of the term of the one that proves them. In one term there is one leader, and its log only
 * grows: who has an entry of that term has all that this leader wrote before it. So these need no proof by what lies between.
 */
function lastOfTerm(log: JournalGroup, { first, last, anchor }: EntriesWanted): LogIndex {
  if (first === 0 || first < log.firstIndex) return first - 1
  const end = Math.min(last, log.lastIndex, (log.firstMissing(first) ?? last + 1) - 1)
  let index = first
  while (index <= end && log.term(index) === anchor.term) index++
  return index - 1
}

/** The furthest log that a replica holds or may have acknowledged. */
function endOf({ log, raft }: Replica): LogMark {
  const floor = log.mayVote ? log.voteFloor : undefined
  if (floor !== undefined) return floor
  const index = Math.min(raft.lastIndex, log.lastIndex)
  return { index, term: Math.max(0, log.term(index) ?? 0) }
}

function nameOf(replica: Replica): string {
  return `range ${replica.range}, replica ${replica.machine.replica}`
}
