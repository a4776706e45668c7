import { endingDefaults } from "../dynamo/node/endings.ts"
import type { EventualSettings } from "../dynamo/node/eventualNode.ts"
import { exchangeDefaults } from "../dynamo/node/exchanges.ts"
import { hintDefaults } from "../dynamo/node/hints.ts"
import { reapDefaults } from "../dynamo/node/reaper.ts"
import type { JournalOptions } from "../journal/journal.ts"
import { defaultEngineOptions, type EngineOptions } from "../lsm/engine.ts"
import { type SwimSettings, swimDefaults } from "../topology/swim/swim.ts"
import type { DiskLimits } from "./diskScore.ts"
import type { SpaceSettings } from "./diskSpace.ts"
import type { JournalScrubSettings } from "./journalScrubber.ts"
import type { PaceSettings } from "./pace.ts"
import type { SessionLimits } from "./sessions.ts"

/**
 * Every constant of the store loop. A node runs with `defaultSettings`; the simulator draws others, down to the smallest legal ones, so
 * that limits are met in seconds instead of years.
 */
export interface StoreSettings {
  /** Length of a tick; elections and heartbeats count them (DESIGN section 3, Timing). */
  readonly tickMs: number
  readonly heartbeatTicks: number
  readonly electionTicksMin: number
  readonly electionTicksMax: number
  /** How long a voter stays silent after it heard a leader, and after its start. */
  readonly voteSilenceMs: number
  /** A leader answers reads without asking its peers for so long after it sent the round that a quorum has echoed; 0 = never. */
  readonly leaseMs: number
  /** A round counts for the lease while wall and monotonic clocks have moved apart by less since. */
  readonly clockSlipMs: number
  /** A question for a read index that nobody answered is asked again after so long. */
  readonly readRetryMs: number
  /** A group that nobody has wanted anything of for so many ticks sleeps; 0 = never (beats.ts). */
  readonly sleepTicks: number
  readonly preVote: boolean
  readonly checkQuorum: boolean
  readonly maxInflightAppends: number
  readonly maxAppendBytes: number
  readonly maxCommittedBytes: number
  /** Proposals beyond this much uncommitted data of a group are refused as overloaded. */
  readonly maxUncommittedBytes: number
  /** A replica that holds more committed entries that it could not apply takes no new ones, and its leader sends none (unappliedLimit.ts). */
  readonly maxUnappliedBytes: number
  /** A new entry begins past either. */
  readonly commandsPerEntry: number
  readonly entryBytes: number
  /** Memory for replicas, each of which takes some 60 KiB when nobody uses it: a range is not split where that would take more. */
  readonly replicaMemoryBytes: number
  /** Messages from peers that wait for a turn; beyond, they are dropped as a network would. */
  readonly inboxMessages: number
  /** Requests under way in one range; beyond, they are refused as overloaded. */
  readonly requestsPerRange: number
  /** What one turn applies before other work gets its turn. */
  readonly applyBytesPerTurn: number
  /** What one turn copies into answers of reads before other work gets its turn. */
  readonly readBytesPerTurn: number
  /** A node whose journal write takes longer leads nothing and seeks no votes until it is done. */
  readonly stallMs: number
  /** When a disk counts as slow, and when as good again. */
  readonly disk: Omit<DiskLimits, "stallMs">
  /** What the replicas of a range that is to be merged into another may take to get ready, and how often they are asked (merge/merges.ts). */
  readonly mergeAskMs: number
  readonly mergeSilenceMs: number
  readonly mergeMs: number
  readonly snapshotFrameBytes: number
  readonly snapshotResendMs: number
  readonly snapshotGiveUpMs: number
  /** How long a snapshot that was broken off can be gone on with. */
  readonly snapshotKeepMs: number
  /** Snapshots leave at no less than the one rate, however requests fare, and at no more than the other (backgroundRate.ts). */
  readonly snapshotLeastBytesPerSecond: number
  readonly snapshotMostBytesPerSecond: number
  readonly scanPageEntries: number
  readonly scanPageBytes: number
  /** Log kept for slow followers, over all groups of the node, and the time for which it is kept even beyond that. */
  readonly retentionBytes: number
  readonly retentionMs: number
  /** Applied entries that a follower keeps, in case it must lead peers that are behind. */
  readonly retainedEntries: number
  /** Releases are reckoned anew every so many ticks. */
  readonly retentionTicks: number
  /** The memtable is sealed after this much journal at the latest, so that the journal's oldest segments can go. */
  readonly journalBytesPerSeal: number
  /** Replicas are compared at every so many indexes, a range so often at most. */
  readonly compareEntries: number
  readonly compareMs: number
  /** Sums over live keys: a slice of one range so often at most, and what all sums together read at a tick (sumComparison.ts). */
  readonly sumMs: number
  readonly sumSliceBytes: number
  readonly sumBytesPerTick: number
  readonly sessions: SessionLimits
  readonly journal: JournalOptions
  readonly engine: EngineOptions
  readonly space: SpaceSettings
  readonly journalScrub: JournalScrubSettings
  readonly pace: PaceSettings
  readonly eventual: EventualSettings
  /** How soon a node that is gone is noticed. */
  readonly swim: SwimSettings
}

const kibibyte = 1024
const mebibyte = 1024 * kibibyte

/** What a node runs with. Timing is that of DESIGN section 3: heartbeat 60 ms, election 300 to 600 ms. */
export const defaultSettings: StoreSettings = {
  tickMs: 30,
  heartbeatTicks: 2,
  electionTicksMin: 10,
  electionTicksMax: 20,
  voteSilenceMs: 300,
  leaseMs: 240,
  clockSlipMs: 20,
  readRetryMs: 120,
  sleepTicks: 100,
  preVote: true,
  checkQuorum: true,
  maxInflightAppends: 256,
  maxAppendBytes: mebibyte,
  maxCommittedBytes: mebibyte,
  maxUncommittedBytes: 16 * mebibyte,
  maxUnappliedBytes: 128 * mebibyte,
  commandsPerEntry: 256,
  entryBytes: mebibyte,
  replicaMemoryBytes: 256 * mebibyte,
  inboxMessages: 65_536,
  requestsPerRange: 16_384,
  applyBytesPerTurn: mebibyte / 2,
  readBytesPerTurn: 2 * mebibyte,
  stallMs: 1000,
  disk: { slowMs: 250, slowForMs: 2000, recoverMs: 10_000, recoverMsMax: 300_000 },
  mergeAskMs: 30,
  mergeSilenceMs: 150,
  mergeMs: 400,
  snapshotFrameBytes: mebibyte,
  snapshotResendMs: 1000,
  snapshotGiveUpMs: 10_000,
  snapshotKeepMs: 60_000,
  snapshotLeastBytesPerSecond: 16 * mebibyte,
  snapshotMostBytesPerSecond: 256 * mebibyte,
  scanPageEntries: 1000,
  scanPageBytes: mebibyte,
  retentionBytes: 1024 * mebibyte,
  retentionMs: 60_000,
  retainedEntries: 4096,
  retentionTicks: 10,
  journalBytesPerSeal: 64 * mebibyte,
  compareEntries: 64,
  compareMs: 1000,
  sumMs: 1000,
  sumSliceBytes: mebibyte / 2,
  sumBytesPerTick: mebibyte / 16,
  sessions: { results: 65_536, clients: 65_536 },
  journal: {
    segmentBytes: 64 * mebibyte,
    tailCacheBytes: 64 * mebibyte,
    rewriteThresholdSegments: 8,
    rewriteSliceBytes: mebibyte,
  },
  engine: { ...defaultEngineOptions, scrubBytesPerSecond: 2 * mebibyte },
  space: { reserveBytes: 64 * mebibyte, lowFreeBytes: 16 * mebibyte },
  journalScrub: { bytesPerSecond: mebibyte, sliceBytes: mebibyte },
  pace: {
    limitMs: 5,
    leastBytesPerSecond: 32 * mebibyte,
    mostBytesPerSecond: 1024 * mebibyte,
  },
  swim: swimDefaults,
  eventual: {
    patienceMs: 150,
    requestsMax: 16_384,
    clockAheadMaxMs: 10_000,
    pageEntries: 1000,
    pageBytes: mebibyte,
    exchange: exchangeDefaults,
    hints: hintDefaults,
    reap: reapDefaults,
    endings: endingDefaults,
  },
}

/** Why a node must not run with these settings, or `undefined`: the relations between them that safety or progress rest on. */
export function settingsProblem(settings: StoreSettings): string | undefined {
  const { heartbeatTicks, electionTicksMin, electionTicksMax, tickMs, voteSilenceMs } = settings
  if (electionTicksMin >= electionTicksMax) {
    return "electionTicksMin must be below electionTicksMax, or candidates collide for ever"
  }
  if (2 * heartbeatTicks > electionTicksMin) {
    return "electionTicksMin must be at least twice heartbeatTicks, or one lost heartbeat elects"
  }
  if (voteSilenceMs > electionTicksMin * tickMs) {
    return "voteSilenceMs must not exceed electionTicksMin x tickMs, or elections wait for voters"
  }
  const { leaseMs, clockSlipMs } = settings
  if (leaseMs > 0 && leaseMs + clockSlipMs >= voteSilenceMs) {
    return "leaseMs + clockSlipMs must stay below voteSilenceMs, or two leases meet"
  }
  return undefined
}
