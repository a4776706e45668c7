import { type Disk, StorageCorruption } from "../disk/disk.ts"
import type { JournalGroup, LoggedEntry } from "../journal/group.ts"
import { assert } from "../lib/assert.ts"
import { compareBytes, emptyBytes } from "../lib/bytes.ts"
import { Prng } from "../lib/prng.ts"
import { entryKinds } from "../raft/message.ts"
import type {
  LogIndex,
  NodeId,
  RangeDescriptor,
  ReplicaId,
  ReplicaPlace,
  Term,
  WallMs,
} from "../types.ts"
import { bootstrapDescriptors } from "./bootstrap.ts"
import { entryLastVersion } from "./entryData.ts"
import { membershipOf } from "./membershipOf.ts"
import { decodeMembersChange, encodeMembersChange } from "./rangeEntries.ts"
import type { Replica } from "./replica.ts"
import type { StoreSettings } from "./settings.ts"
import { attemptStoreJob } from "./storeJobs.ts"
import { StoreLoop } from "./storeLoop.ts"
import { nextBase } from "./versionClock.ts"

/**
 * The loss of a quorum for good: most voters of a range are gone with their disks, and no election can ever be won again. What survives may lack
 * writes that were acknowledged; no rule can tell. So a person decides, offline, and knows what the price may be (CockroachDB's "loss of quorum recovery",
 * TiKV's "unsafe recovery").
 *
 * 1. `openStopped` opens the node's store without peers and at a clock that stands still, and applies what it knows to be committed, so that splits and
 *    changes of members that are not flushed yet count; `surveyRanges` says what it holds of each range: members in force, log, what it knows committed.
 * 2. `planRecovery` puts the surveys of all surviving nodes together: a range with a majority of whole replicas is left alone; of any other the replica with the last log is
 *    chosen, as an election would choose (Raft paper 5.4.1).
 * 3. `makeSoleVoter` adds one entry to the chosen log, of a new term: a membership of that replica alone. When its node starts, it elects itself and
 *    commits its whole log.
 *
 * The other survivors of such a range, and the lost nodes if they ever come back, are no members of the new membership, whose version is far above theirs: they
 * are destroyed when they hear of it. Until then nodes that were declared lost and are not could go on by themselves: they must never start again.
 */

/** What one node holds of one range. */
export interface SurveyedRange {
  readonly node: NodeId
  readonly replica: ReplicaId
  /** As applied. */
  readonly descriptor: RangeDescriptor
  /** Those in force: of the last membership in the log, committed or not. */
  readonly replicas: ReadonlyArray<ReplicaPlace>
  /** Of the log as far as it can be read. */
  readonly lastIndex: LogIndex
  readonly lastTerm: Term
  /**
   * Damage took so many entries of the log after that, and maybe promises too: the replica cannot lead before others have given them back. `undefined` = it is
   * whole.
   */
  readonly damagedEntries: number | undefined
  /** Known here to be committed. */
  readonly commitIndex: LogIndex
}

/** A range that has lost its majority. */
export interface LostRange {
  readonly descriptor: RangeDescriptor
  readonly voters: ReadonlyArray<NodeId>
  readonly lost: ReadonlyArray<NodeId>
  readonly chosen: SurveyedRange
  /** Surviving replicas that the chosen one replaces; they are destroyed when they hear of it. */
  readonly others: ReadonlyArray<SurveyedRange>
}

export interface RecoveryPlan {
  readonly ranges: ReadonlyArray<LostRange>
  /** Ranges that still have their majority. */
  readonly untouched: ReadonlyArray<RangeDescriptor>
  /** Intervals of positions of which nothing survives; `end` is empty at the end of the space. */
  readonly gone: ReadonlyArray<{ readonly start: Uint8Array; readonly end: Uint8Array }>
  /** Nodes that the ranges name, that are not lost and whose directory was not given. */
  readonly missing: ReadonlyArray<NodeId>
}

/** Far above what the lost members can have reached by themselves. */
const membersVersionStep = 1000

function inForce(replica: Replica): ReadonlyArray<ReplicaPlace> {
  const { machine, log } = replica
  for (let index = readableEnd(replica); index > machine.appliedIndex; index--) {
    const [entry] = log.entries(index, index + 1, 0)
    if (entry?.kind === entryKinds.members) return decodeMembersChange(entry.data).replicas
  }
  return machine.descriptor.replicas
}

/** A node's store, to be looked at and changed while the node is stopped. */
export interface Stopped {
  readonly node: NodeId
  readonly disk: Disk
  readonly loop: StoreLoop
}

/**
 * Opens the store of a node that is stopped. `founders` are the nodes that its cluster began with; none for a node that joined. On a disk that takes no writes it changes nothing.
 * Throws `StorageCorruption`, `DiskError`.
 */
export function openStopped(options: {
  readonly disk: Disk
  readonly node: NodeId
  readonly founders: ReadonlyArray<NodeId>
  readonly settings: StoreSettings
  readonly wallMs: WallMs
  /** Ranges of the first namespace at bootstrap, where not the usual number. */
  readonly ranges?: number
}): Stopped {
  const { disk, node, founders, settings, wallMs } = options
  const clock = { monotonicMs: 0, wallMs }
  const descriptors = founders.length === 0 ? [] : bootstrapDescriptors(founders, options.ranges)
  const bootstrap = founders.length > 0
  const prng = new Prng(1)
  const loop = StoreLoop.open({ node, disk, settings, descriptors, bootstrap, clock, prng })
  const stopped = { node, disk, loop }
  while (runTurn(stopped)) {
    // Until nothing is left that could be applied. What is not flushed fits the memtables, as it did before the node was stopped.
  }
  return stopped
}

/** One turn; true when it left work. Time stands still, so nobody campaigns, and nothing that is sent arrives. */
function runTurn({ loop, disk }: Stopped): boolean {
  const { journal, jobs, more } = loop.turn(loop.clock)
  // Other jobs can wait for the node's own start.
  for (const job of jobs) {
    if (job._tag === "Segment") loop.jobDone(job, attemptStoreJob(disk, job))
  }
  if (journal === undefined) return more
  const file = disk.open(journal.path)
  file.write(journal.bytes, journal.offset)
  file.sync()
  file.close()
  loop.journalDurable(journal)
  return true
}

/** The last entry before the first that damage took from what is not applied yet. */
function readableEnd({ machine, log }: Replica): LogIndex {
  const missing = log.firstMissing(machine.appliedIndex + 1)
  return missing === undefined ? Math.max(log.lastIndex, machine.appliedIndex) : missing - 1
}

/** Every range that the node's storage holds, in order of id. Throws `StorageCorruption` where its log is damaged. */
export function surveyRanges({ loop, node }: Stopped): ReadonlyArray<SurveyedRange> {
  const held = [...loop.replicas.values()].filter((replica) => !replica.isEmpty)
  return held.map((replica) => {
    const { machine, log } = replica
    const lastIndex = readableEnd(replica)
    const isWhole = log.voteFloor === undefined
    return {
      node,
      replica: machine.replica,
      descriptor: machine.descriptor,
      replicas: inForce(replica),
      lastIndex,
      lastTerm:
        lastIndex === machine.appliedIndex ? machine.appliedTerm : (log.term(lastIndex) as Term),
      damagedEntries: isWhole ? undefined : log.lastIndex - lastIndex,
      commitIndex: Math.min(replica.raft.commitIndex, lastIndex),
    }
  })
}

/** What is to be done so that every range of which a replica survives has a leader again. */
export function planRecovery(options: {
  readonly surveys: ReadonlyArray<SurveyedRange>
  readonly survivors: ReadonlySet<NodeId>
  readonly lost: ReadonlySet<NodeId>
}): RecoveryPlan {
  const { surveys, survivors, lost } = options
  const byRange = new Map<number, Array<SurveyedRange>>()
  for (const survey of surveys) {
    const known = byRange.get(survey.descriptor.id)
    if (known === undefined) byRange.set(survey.descriptor.id, [survey])
    else known.push(survey)
  }
  const ranges: Array<LostRange> = []
  const untouched: Array<RangeDescriptor> = []
  const missing = new Set<NodeId>()
  for (const [, replicas] of [...byRange].sort(([left], [right]) => left - right)) {
    const [chosen, ...others] = replicas.sort(laterLogFirst) as [SurveyedRange]
    for (const { node } of chosen.replicas) {
      if (!lost.has(node) && !survivors.has(node)) missing.add(node)
    }
    const able = replicas.filter(({ damagedEntries }) => damagedEntries === undefined)
    if (hasMajority(chosen.replicas, new Set(able.map(({ node }) => node))))
      untouched.push(chosen.descriptor)
    else {
      const voters = chosen.replicas.filter(({ role }) => role !== "learner").map(nodeOf)
      const gone = voters.filter((node) => lost.has(node))
      ranges.push({ descriptor: chosen.descriptor, voters, lost: gone, chosen, others })
    }
  }
  const held = [...ranges.map(({ descriptor }) => descriptor), ...untouched]
  return { ranges, untouched, gone: gapsBetween(held), missing: [...missing].sort(ascending) }
}

const nodeOf = ({ node }: ReplicaPlace) => node
const ascending = (left: number, right: number) => left - right

/** The log that an election would choose comes first; among equals a voter's. */
function laterLogFirst(left: SurveyedRange, right: SurveyedRange): number {
  const votes = ({ replica, replicas }: SurveyedRange) =>
    replicas.some((place) => place.replica === replica && place.role !== "learner") ? 1 : 0
  return (
    right.lastTerm - left.lastTerm ||
    right.lastIndex - left.lastIndex ||
    votes(right) - votes(left) ||
    left.node - right.node
  )
}

/** Whether the survivors are a majority of the voters, and of those before a change that is under way. */
function hasMajority(places: ReadonlyArray<ReplicaPlace>, survivors: ReadonlySet<NodeId>): boolean {
  const { voters, outgoing } = membershipOf(places)
  const alive = (replica: ReplicaId) =>
    places.some((place) => place.replica === replica && survivors.has(place.node))
  const reached = (all: ReadonlyArray<ReplicaId>) => 2 * all.filter(alive).length > all.length
  return reached(voters) && (outgoing.length === 0 || reached(outgoing))
}

/** What the descriptors leave uncovered of the space. */
function gapsBetween(
  held: ReadonlyArray<RangeDescriptor>,
): ReadonlyArray<{ start: Uint8Array; end: Uint8Array }> {
  const sorted = [...held].sort((left, right) => compareBytes(left.start, right.start))
  const gaps: Array<{ start: Uint8Array; end: Uint8Array }> = []
  let covered: Uint8Array | undefined = emptyBytes
  for (const { start, end } of sorted) {
    if (covered === undefined) break
    if (compareBytes(start, covered) > 0) gaps.push({ start: covered, end: start })
    if (end.length === 0) covered = undefined
    else if (compareBytes(end, covered) > 0) covered = end
  }
  if (covered !== undefined) gaps.push({ start: covered, end: emptyBytes })
  return gaps
}

/** Makes the surveyed replica the only voter of its range, durably. */
export function makeSoleVoter(stopped: Stopped, survey: SurveyedRange): void {
  const { loop } = stopped
  const replicaHere = loop.replicas.get(survey.descriptor.id) as Replica
  const { range, machine, log, raft } = replicaHere
  const { replica, lastIndex, lastTerm, commitIndex, node } = survey
  assert(lastIndex === readableEnd(replicaHere), () => `range ${range} is as it was surveyed`)
  if (log.isUnsure) {
    // Nobody can say any more what damage took from it: it goes on with what it has, as the person decided who calls this.
    log.settle(raft.term, { index: 0, term: 0 })
    log.mended()
  }
  const term = Math.max(raft.term, log.hardState.term, lastTerm) + 1
  const places: ReadonlyArray<ReplicaPlace> = [{ node, replica, role: "voter" }]
  // What damage took from below is applied and needs no log; what it took behind goes with the append.
  if ((log.firstMissing(0) ?? lastIndex + 1) <= machine.appliedIndex)
    log.release(machine.appliedIndex)
  const unapplied = entriesBetween(log, machine.appliedIndex, lastIndex)
  const versions = unapplied
    .filter(({ kind }) => kind === entryKinds.members)
    .map(({ data }) => decodeMembersChange(data).membersVersion)
  const membersVersion =
    Math.max(machine.descriptor.membersVersion, ...versions) + membersVersionStep
  const stamps = unapplied.flatMap((entry) => entryLastVersion(entry) ?? [])
  const base = nextBase(loop.clock.wallMs, Math.max(machine.rangeTime, ...stamps))
  const change = { membersVersion, replicas: places }
  const data = encodeMembersChange(base, membershipOf(places), change)
  log.setHardState({ term, vote: replica, commit: commitIndex })
  log.append([{ index: lastIndex + 1, term, kind: entryKinds.members, data }])
  writeOut(stopped)
}

/** The entries above `index`, up to `last`. */
function entriesBetween(
  log: JournalGroup,
  index: LogIndex,
  last: LogIndex,
): ReadonlyArray<LoggedEntry> {
  const entries: Array<LoggedEntry> = []
  while (index + entries.length < last) {
    const next = index + 1 + entries.length
    const read = log.entries(next, last + 1, 1 << 20)
    if (read.length === 0) {
      const expected = `entry ${next} of range ${log.key.range}`
      throw new StorageCorruption({ path: "journal", offset: 0, expected, actual: "damage" })
    }
    entries.push(...read)
  }
  return entries
}

/** Writes and syncs what the journal has gathered. */
function writeOut(stopped: Stopped): void {
  for (let turns = 0; runTurn(stopped); turns++) {
    assert(turns < 1000, "the journal takes what it is given")
  }
}
