import { StorageCorruption } from "../disk/disk.ts"
import type { LogStorage } from "../raft/log.ts"
import { RaftNode } from "../raft/raftNode.ts"
import type { RangeMachine } from "./apply.ts"
import { Replica } from "./replica.ts"
import type { Storage } from "./storage.ts"
import type { StoreLoopOptions } from "./storeLoop.ts"

/** The replicas of an existing directory, or those that bootstrap places here; in order of range id. */
export function openReplicas(options: StoreLoopOptions, storage: Storage): ReadonlyArray<Replica> {
  const stored = storage.loadMachines()
  const machines = stored.length > 0 ? stored : bootstrapMachines(options, storage)
  return machines.map((machine) => openReplica(machine, options, storage))
}

function bootstrapMachines(
  options: StoreLoopOptions,
  storage: Storage,
): ReadonlyArray<RangeMachine> {
  const machines: Array<RangeMachine> = []
  for (const descriptor of options.descriptors) {
    const place = descriptor.replicas.find((candidate) => candidate.node === options.node)
    if (place === undefined) continue
    const { replica } = place
    const zero = { appliedIndex: 0, appliedTerm: 0, rangeTime: 0, chain: 0 }
    machines.push(storage.newMachine({ descriptor, replica, ...zero }))
  }
  return machines
}

/**
 * Puts a range's state and its log together. The engine wins: a log that ends below what the state has applied, or differs there, begins
 * there. Throws `StorageCorruption` when entries between the two are missing.
 */
function openReplica(machine: RangeMachine, options: StoreLoopOptions, storage: Storage): Replica {
  const { settings, clock } = options
  const { descriptor, replica, appliedIndex, appliedTerm } = machine
  const log = storage.journal.group({ range: descriptor.id, replica })
  if (log.lastIndex < appliedIndex || log.term(appliedIndex) !== appliedTerm) {
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
  const stored = log.hardState
  const commit = Math.max(stored.commit, appliedIndex)
  // A snapshot of a later term can be in force before the journal holds that term. No vote was given in it: votes leave only
  // when they are durable.
  const isBehind = stored.term < appliedTerm
  const hardState = isBehind ? { term: appliedTerm, vote: 0, commit } : { ...stored, commit }
  if (isBehind) log.setHardState(hardState)
  const Node = options.parts?.RaftNode ?? RaftNode
  const raft = new Node({
    id: replica,
    voters: descriptor.replicas.map((place) => place.replica),
    // What comes back is what was appended: the kinds are those of raft/message.ts.
    storage: log as LogStorage,
    hardState,
    appliedIndex,
    prng: options.prng.fork(),
    nowMs: clock.monotonicMs,
    electionTicksMin: settings.electionTicksMin,
    electionTicksMax: settings.electionTicksMax,
    heartbeatTicks: settings.heartbeatTicks,
    voteSilenceMs: settings.voteSilenceMs,
    preVote: settings.preVote,
    checkQuorum: settings.checkQuorum,
    maxInflightAppends: settings.maxInflightAppends,
    maxAppendBytes: settings.maxAppendBytes,
    maxCommittedBytes: settings.maxCommittedBytes,
    maxUncommittedBytes: settings.maxUncommittedBytes,
  })
  return new Replica({ raft, log, machine, settings, flushedIndex: appliedIndex })
}
