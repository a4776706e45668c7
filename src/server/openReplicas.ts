import { StorageCorruption } from "../disk/disk.ts"
import type { JournalGroup } from "../journal/group.ts"
import { termMissing } from "../journal/groupIndex.ts"
import { assert } from "../lib/assert.ts"
import type { Prng } from "../lib/prng.ts"
import { noMembership } from "../raft/membership.ts"
import type { HardState } from "../raft/message.ts"
import { RaftNode } from "../raft/raftNode.ts"
import type { LogIndex, MonotonicMs, RangeDescriptor, RangeId, ReplicaId } from "../types.ts"
import type { RangeMachine } from "./apply.ts"
import { noDescriptor } from "./descriptors.ts"
import { LogView } from "./logView.ts"
import { membershipOf } from "./membershipOf.ts"
import { noMerges } from "./rangeState.ts"
import { Replica } from "./replica.ts"
import type { Storage } from "./storage.ts"
import type { StoreLoopOptions } from "./storeLoop.ts"

/** Where every range begins: at this index and term its state exists, and no entry stands for it. A log below it is an empty replica's. */
export const firstIndex: LogIndex = 1
export const firstTerm = 1

export interface OpenOptions {
  readonly nowMs: MonotonicMs
  /** The replica begins here and now, and has promised nothing before: it need not be silent for a while. */
  readonly isNew?: boolean
  /** Known to be committed, whatever the journal says. */
  readonly committed?: LogIndex
}

/** Puts replicas together from what engine and journal hold of them. */
export class ReplicaOpener {
  private readonly options: StoreLoopOptions
  private readonly storage: Storage
  private readonly prng: Prng

  constructor(options: StoreLoopOptions, storage: Storage) {
    this.options = options
    this.storage = storage
    this.prng = options.prng
  }

  /** The replicas that a bootstrap places on this node. */
  bootstrapMachines(): ReadonlyArray<RangeMachine> {
    const { descriptors, node } = this.options
    return descriptors.flatMap((descriptor) => {
      const place = descriptor.replicas.find((candidate) => candidate.node === node)
      return place === undefined ? [] : [this.firstMachine(descriptor, place.replica)]
    })
  }

  private firstMachine(descriptor: RangeDescriptor, replica: ReplicaId): RangeMachine {
    const at = {
      appliedIndex: firstIndex,
      appliedTerm: firstTerm,
      rangeTime: 0,
      chain: 0,
      ...noMerges,
    }
    const lastReplica = Math.max(...descriptor.replicas.map((place) => place.replica))
    return this.storage.newMachine({ descriptor, replica, ...at, lastReplica })
  }

  /** A machine that has nothing, until a snapshot or a split brings it. */
  private emptyMachine(range: RangeId, replica: ReplicaId): RangeMachine {
    const at = {
      appliedIndex: 0,
      appliedTerm: 0,
      rangeTime: 0,
      chain: 0,
      lastReplica: 0,
      ...noMerges,
    }
    return this.storage.newMachine({ descriptor: noDescriptor(range), replica, ...at })
  }

  /**
   * Puts a range's state and its log together. The engine wins: a log that ends below what the state has applied, or differs there, begins
   * there. Throws `StorageCorruption` when entries between the two are missing.
   */
  open(machine: RangeMachine, options: OpenOptions): Replica {
    const { descriptor, replica, appliedIndex } = machine
    const log = this.storage.journal.group({ range: descriptor.id, replica })
    this.fitLog(log, machine)
    const { settings } = this.options
    const raft = this.raftOf(machine, log, options)
    const opened = new Replica({ raft, log, machine, settings, flushedIndex: appliedIndex })
    opened.learnFromLog()
    this.options.parts?.opened?.(opened)
    return opened
  }

  openEmpty(range: RangeId, replica: ReplicaId, nowMs: MonotonicMs): Replica {
    const machine = this.emptyMachine(range, replica)
    const log = this.storage.journal.group({ range, replica })
    assert(log.lastIndex === 0, () => `range ${range} replica ${replica} has a log and no state`)
    return this.open(machine, { nowMs })
  }

  protected fitLog(
    log: JournalGroup,
    { descriptor, appliedIndex, appliedTerm }: RangeMachine,
  ): void {
    if (log.lastIndex >= appliedIndex && log.term(appliedIndex) === appliedTerm) {
      // What is missing up to there, nobody here needs any more.
      const missing = log.firstMissing(log.firstIndex)
      if (missing !== undefined && missing <= appliedIndex) log.release(appliedIndex)
      return
    }
    if (log.firstIndex <= appliedIndex && log.term(appliedIndex) === termMissing) {
      return log.release(appliedIndex, appliedTerm)
    }
    if (log.firstIndex > appliedIndex + 1) {
      throw new StorageCorruption({
        path: "journal",
        offset: 0,
        expected: `entry ${appliedIndex + 1} of range ${descriptor.id}`,
        actual: `a log that begins at ${log.firstIndex}`,
      })
    }
    log.resetTo(appliedIndex, appliedTerm)
  }

  /** A core over what the journal holds, as at a start. */
  raftOf(machine: RangeMachine, log: JournalGroup, options: OpenOptions): RaftNode {
    const { settings } = this.options
    const { descriptor, appliedIndex } = machine
    const isEmpty = appliedIndex === 0
    const Node = this.options.parts?.RaftNode ?? RaftNode
    return new Node({
      id: machine.replica,
      membership: isEmpty ? noMembership : membershipOf(descriptor.replicas),
      storage: new LogView(log),
      hardState: this.hardStateOf(machine, log, options.committed ?? 0),
      appliedIndex,
      prng: this.prng.fork(),
      nowMs: options.nowMs,
      startSilence: options.isNew !== true,
      electionTicksMin: settings.electionTicksMin,
      electionTicksMax: settings.electionTicksMax,
      heartbeatTicks: settings.heartbeatTicks,
      voteSilenceMs: settings.voteSilenceMs,
      leaseMs: settings.leaseMs,
      clockSlipMs: settings.clockSlipMs,
      preVote: settings.preVote,
      checkQuorum: settings.checkQuorum,
      maxInflightAppends: settings.maxInflightAppends,
      maxAppendBytes: settings.maxAppendBytes,
      maxCommittedBytes: settings.maxCommittedBytes,
      maxUncommittedBytes: settings.maxUncommittedBytes,
    })
  }

  private hardStateOf(
    { appliedIndex, appliedTerm }: RangeMachine,
    log: JournalGroup,
    committed: LogIndex,
  ): HardState {
    const stored = log.hardState
    // What it once knew to be committed may have been lost since; the leader's appends will tell again.
    const isWhole = log.voteFloor === undefined
    const commit = isWhole ? Math.max(stored.commit, appliedIndex, committed) : appliedIndex
    if (log.isUnsure) {
      const lastTerm = log.term(log.lastReadable) ?? 0
      return { term: Math.max(stored.term, lastTerm, appliedTerm), vote: 0, commit }
    }
    // A snapshot of a later term can be in force before the journal holds that term. No vote was given in it: votes leave only
    // when they are durable.
    if (stored.term >= appliedTerm) return { ...stored, commit }
    const hardState = { term: appliedTerm, vote: 0, commit }
    log.setHardState(hardState)
    return hardState
  }
}
