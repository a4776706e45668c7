import { Prng } from "../../src/lib/prng.ts"
import { defaultSettings, type StoreSettings } from "../../src/server/settings.ts"
import type { NodeId } from "../../src/types.ts"
import type { ScatterParameters } from "./scatteredDamage.ts"

/** Times in microseconds, shares from 0 to 1, rates per simulated second. */
export interface NetworkParameters {
  /** Messages travel as bytes instead of objects. */
  readonly encode: boolean
  /** A later message never overtakes an earlier one on its link (but repeats may). */
  readonly inOrder: boolean
  readonly delayMinUs: number
  readonly delayMaxUs: number
  readonly spikeRate: number
  readonly spikeMaxUs: number
  readonly lossRate: number
  /** Share of losses that the sender's transport reports. */
  readonly lossNoticedRate: number
  readonly duplicateRate: number
  readonly duplicateDelayMinUs: number
  readonly duplicateDelayMaxUs: number
}

export interface DiskParameters {
  readonly syncMinUs: number
  readonly syncMaxUs: number
  readonly jobMinUs: number
  readonly jobMaxUs: number
  /** A node's disk is slower or faster than that by up to this factor. */
  readonly unevenness: number
  /** Share of jobs and of starts that a crash strikes in their middle. */
  readonly jobCrashRate: number
  readonly startCrashRate: number
}

export const faultKinds = [
  "cutOneWay",
  "cutPair",
  "isolate",
  "halves",
  "island",
  "hold",
  "crash",
  "kill",
  "pause",
  "lossBurst",
  "slowDisk",
  "clockJump",
  "crashAll",
  "diskHangs",
  "diskFull",
  "bitFlip",
  "sleep",
  "wipe",
  "repeats",
] as const
export type FaultKind = (typeof faultKinds)[number]

export interface FaultParameters {
  /** Faults begun per second, all kinds together. */
  readonly rate: number
  /** Chance of each kind when one begins; they add up to 1. */
  readonly weights: ReadonlyArray<readonly [FaultKind, number]>
  readonly durationMinUs: number
  readonly durationMaxUs: number
  /** An election begins this long after a leader was last heard, at the earliest. */
  readonly electionUs: number
  /** Share of faults of one node that choose a leader. */
  readonly leaderShare: number
  /** Share of new leaders that a fault strikes at once. */
  readonly strikeRate: number
  readonly strikeDelayMaxUs: number
  /** The one node whose disk bits flip; `undefined` = none. */
  readonly flippedNode: NodeId | undefined
  /** The one node that loses its whole disk and comes back under its name; `undefined` = none. */
  readonly wipedNode: NodeId | undefined
}

export const churnKinds = [
  "split",
  "addLearner",
  "addVoter",
  "promote",
  "remove",
  "demote",
  "move",
  "transfer",
] as const
export type ChurnKind = (typeof churnKinds)[number] | "merge" | "bringTogether"

/** What the control plane orders. */
export interface ChurnParameters {
  /** Orders begun per second; 0 = ranges stay as they are. */
  readonly rate: number
  /** Chance of each kind; they add up to 1. */
  readonly weights: ReadonlyArray<readonly [ChurnKind, number]>
  /** A range is split from so many keys on, while there are fewer than so many ranges. */
  readonly splitKeys: number
  readonly rangesMax: number
  /** No group gets fewer voters. */
  readonly votersMin: number
  /** Merges ordered per second, apart from the other orders. */
  readonly mergeRate: number
}

export interface WorkloadParameters {
  readonly clients: number
  /** Operations that one client identity has under way at most. */
  readonly processesPerClient: number
  readonly keys: number
  readonly thinkMinUs: number
  readonly thinkMaxUs: number
  readonly attemptMinUs: number
  readonly attemptMaxUs: number
  readonly deadlineMinUs: number
  readonly deadlineMaxUs: number
  readonly valueBytesMax: number
  /** Share of adds to counters among operations; of reads among the others. */
  readonly addShare: number
  readonly readShare: number
  /** Share of reads that may be stale; of these, those that state a bound, and those with a session's floor. */
  readonly staleShare: number
  readonly boundedShare: number
  readonly floorShare: number
  /** Share of linearizable reads that any replica may serve. */
  readonly anyReplicaShare: number
  /** Share of answers that never reach their client. */
  readonly answerLossRate: number
  /** Share of attempts sent twice at once, as a client does that lost patience early. */
  readonly doubleSendRate: number
}

/** Everything that a seed decides about its world before it begins. */
export interface Parameters {
  /** Of the bootstrap; beyond them there are spare nodes, which hold nothing at first. */
  readonly nodes: number
  readonly spareNodes: number
  readonly defaultRanges: number
  /** The groups of the system and of the space's end are there too, though nothing is written to them. */
  readonly idleRanges: boolean
  readonly settings: StoreSettings
  readonly network: NetworkParameters
  readonly disk: DiskParameters
  readonly faults: FaultParameters
  readonly workload: WorkloadParameters
  readonly churn: ChurnParameters
  /** A turn comes at most this long after its input. */
  readonly turnDelayMaxUs: number
  /** Share of turns after which the process sleeps before it does what it has decided, and for how long at most. */
  readonly midTurnPauseRate: number
  readonly midTurnPauseMaxUs: number
  /** Relative drift of node clocks, and how far apart their wall clocks are. */
  readonly driftMax: number
  readonly wallSkewMaxMs: number
  /** `undefined` = no damage to all nodes. */
  readonly scatter: ScatterParameters | undefined
}

export interface Shares {
  /** Of seeds in which all nodes' journals are damaged, of those without other damage. */
  readonly scatterShare?: number | undefined
  /** Of seeds in which ranges merge, of those in which they change. */
  readonly mergeShare?: number | undefined
}

export function drawParameters(prng: Prng, shares: Shares = {}): Parameters {
  const { scatterShare = usualScatterShare, mergeShare = usualMergeShare } = shares
  const nodes = prng.chance(0.75) ? 3 : 5
  const drawn = drawChurn(prng)
  const settings = withoutBacklog(drawSettings(prng))
  const electionUs = settings.electionTicksMin * settings.tickMs * 1000
  const faults = { ...drawFaults(prng, nodes), electionUs }
  // A node that damage or a wipe has taken must leave a majority everywhere.
  const mayLose = faults.flippedNode !== undefined || faults.wipedNode !== undefined
  const churn = mayLose ? { ...drawn, votersMin: 3 } : drawn
  const parameters = {
    nodes,
    spareNodes: churn.rate === 0 ? 0 : prng.int(0, 2),
    defaultRanges: prng.pick(nodes === 3 ? [1, 1, 2, 4] : [1, 1, 2]),
    idleRanges: prng.chance(0.2),
    settings,
    network: drawNetwork(prng),
    disk: drawDisk(prng),
    faults,
    workload: drawWorkload(prng),
    churn,
    turnDelayMaxUs: Math.round(prng.logUniform(300, 10_000)),
    midTurnPauseRate: prng.chance(0.4) ? prng.logUniform(0.0001, 0.01) : 0,
    midTurnPauseMaxUs: prng.logUniform(10_000, 2_000_000),
    driftMax: prng.logUniform(1e-6, 1e-2),
    wallSkewMaxMs: prng.chance(0.2) ? prng.logUniform(1_000, 3_600_000) : prng.logUniform(1, 500),
  }
  // Of several kinds of damage to one world, an entry might be lost on all nodes.
  const scatter = mayLose || !prng.chance(scatterShare) ? undefined : drawScatter(prng)
  const merging = withMerges(churn, mergeShare, prng)
  if (scatter === undefined) return { ...parameters, churn: merging, scatter }
  return { ...parameters, churn: { ...merging, votersMin: 3 }, scatter }
}

const usualScatterShare = 0.12

function drawScatter(prng: Prng): ScatterParameters {
  return {
    strikes: 1,
    share: prng.logUniform(0.02, 1),
    stopRate: prng.pick([0, 0.5, 1]),
    offset: prng.int(0, 6),
  }
}

/** Of the world of this seed. */
export function parametersOf(seed: number): Parameters {
  return drawParameters(new Prng(seed).fork())
}

/** One value: the default now and then, else one of the small ones. */
function buggified(prng: Prng, small: ReadonlyArray<number>, usual: number): number {
  return prng.chance(0.35) ? usual : prng.pick(small)
}

/** Compressing costs more time than all else that a flush of a few keys does. */
const uncompressed = { level0: "none", middle: "none", bottom: "none" } as const

function drawSettings(prng: Prng): StoreSettings {
  const d = defaultSettings
  const memtableBytes = buggified(prng, [1024, 4096, 4096, 16_384], 65_536)
  const truncating = prng.chance(0.5)
  // Elections are where consensus goes wrong: half of the seeds have them three times as fast.
  const isFast = prng.chance(0.5)
  const tickMs = isFast ? 10 : d.tickMs
  const voteSilenceMs = prng.chance(0.75) ? d.electionTicksMin * tickMs : 0
  const hasLease = prng.chance(leaseShare) && voteSilenceMs > 0
  return {
    ...d,
    tickMs,
    // In the proportions of the design: lease 240 ms and slip 20 ms to a silence of 300 ms.
    leaseMs: hasLease ? (voteSilenceMs * 4) / 5 : 0,
    clockSlipMs: hasLease ? voteSilenceMs / 15 : d.clockSlipMs,
    heartbeatTicks: isFast ? 4 : d.heartbeatTicks,
    sleepTicks: prng.chance(0.6) ? prng.pick([3, 8, 20]) : 0,
    preVote: prng.chance(0.65),
    checkQuorum: prng.chance(0.8),
    voteSilenceMs,
    maxInflightAppends: buggified(prng, [1, 1, 2, 4], d.maxInflightAppends),
    maxAppendBytes: buggified(prng, [1, 1, 200, 2000], d.maxAppendBytes),
    maxCommittedBytes: buggified(prng, [1, 300, 3000], d.maxCommittedBytes),
    maxUncommittedBytes: buggified(prng, [1, 4096, 65_536], d.maxUncommittedBytes),
    // Below a few entries one is taken a heartbeat, and a backlog outlasts the run.
    maxUnappliedBytes: buggified(prng, [4096, 65_536], d.maxUnappliedBytes),
    commandsPerEntry: buggified(prng, [1, 2, 8], d.commandsPerEntry),
    entryBytes: buggified(prng, [1, 1024], d.entryBytes),
    inboxMessages: buggified(prng, [16, 64, 256], d.inboxMessages),
    requestsPerRange: buggified(prng, [2, 8, 64], d.requestsPerRange),
    applyBytesPerTurn: buggified(prng, [1, 500, 5000], d.applyBytesPerTurn),
    snapshotFrameBytes: buggified(prng, [1, 300, 3000], d.snapshotFrameBytes),
    snapshotResendMs: buggified(prng, [50, 200], d.snapshotResendMs),
    snapshotGiveUpMs: buggified(prng, [500, 2000], 4000),
    scanPageEntries: buggified(prng, [1, 2, 5], d.scanPageEntries),
    scanPageBytes: buggified(prng, [1, 300], d.scanPageBytes),
    retentionBytes: truncating ? 0 : buggified(prng, [2000, 20_000], d.retentionBytes),
    retentionMs: truncating ? prng.pick([12, 12, 120]) : buggified(prng, [120, 1200], 6000),
    retainedEntries: truncating ? prng.pick([0, 2]) : buggified(prng, [2, 20], d.retainedEntries),
    retentionTicks: truncating ? 1 : buggified(prng, [1, 4], d.retentionTicks),
    compareEntries: buggified(prng, [1, 4], d.compareEntries),
    compareMs: buggified(prng, [60, 200], d.compareMs),
    sumMs: buggified(prng, [30, 100, 300], d.sumMs),
    sumSliceBytes: buggified(prng, [1, 100, 2000], d.sumSliceBytes),
    sumBytesPerTick: buggified(prng, [1, 200], d.sumBytesPerTick),
    journalBytesPerSeal: buggified(prng, [3000, 10_000, 40_000], 200_000),
    sessions: {
      results: buggified(prng, [300], d.sessions.results),
      // Room for every client of the workload, and for those of the liveness phase.
      clients: buggified(prng, [8, 12], d.sessions.clients),
    },
    journal: {
      ...d.journal,
      segmentBytes: prng.pick([4096, 4096, 8192, 16_384, 65_536]),
      tailCacheBytes: buggified(prng, [1, 1000, 10_000], 1 << 20),
      rewriteThresholdSegments: buggified(prng, [1, 2, 3], 8),
      rewriteSliceBytes: buggified(prng, [1, 500], 1 << 20),
    },
    engine: {
      ...d.engine,
      // Level 0 is merged early, so that a short life sees many compactions.
      level0Trigger: 4,
      lazyLevel0Runs: 4,
      slowLevel0Runs: 6,
      maxLevel0Runs: 8,
      memtableBytes,
      blockBytes: buggified(prng, [64, 256, 1024], d.engine.blockBytes ?? 4096),
      readyArenas: 1,
      tableBytes: buggified(prng, [512, 4096], memtableBytes / 2),
      manifestBytes: buggified(prng, [1024, 4096], 16_384),
      blockCacheBytes: buggified(prng, [1, 4096], 1 << 20),
      scrubBytesPerSecond: 0,
      ...(prng.chance(0.75) ? { compression: uncompressed } : {}),
    },
    space: { reserveBytes: buggified(prng, [0, 2000], 0), lowFreeBytes: 0 },
    journalScrub: { bytesPerSecond: 0, sliceBytes: 1 << 20 },
  }
}

/** What leaves an entry at a time must not gather without end: a new leader commits nothing before all of it has arrived. */
function withoutBacklog(settings: StoreSettings): StoreSettings {
  const { maxAppendBytes, maxUncommittedBytes } = settings
  if (maxAppendBytes >= 2000) return settings
  return { ...settings, maxUncommittedBytes: Math.min(maxUncommittedBytes, 65_536) }
}

function drawNetwork(prng: Prng): NetworkParameters {
  const delayMinUs = prng.logUniform(20, 2_000)
  return {
    encode: prng.chance(0.3),
    inOrder: prng.chance(0.3),
    delayMinUs,
    delayMaxUs: delayMinUs * prng.logUniform(1.1, 30),
    spikeRate: prng.chance(0.5) ? prng.logUniform(0.0005, 0.1) : 0,
    spikeMaxUs: prng.logUniform(20_000, 1_500_000),
    lossRate: prng.chance(0.7) ? prng.logUniform(0.0005, 0.2) : 0,
    lossNoticedRate: prng.pick([0, 0.1, 1]),
    duplicateRate: prng.chance(0.6) ? prng.logUniform(0.0005, 0.3) : 0,
    // In half of the seeds a repeat comes so late that its term is long over.
    duplicateDelayMinUs: prng.chance(0.5) ? prng.logUniform(100_000, 1_000_000) : delayMinUs,
    duplicateDelayMaxUs: prng.logUniform(1_000_000, 8_000_000),
  }
}

function drawDisk(prng: Prng): DiskParameters {
  const syncMinUs = prng.logUniform(50, 3_000)
  const jobMinUs = prng.logUniform(100, 10_000)
  return {
    syncMinUs,
    syncMaxUs: syncMinUs * prng.logUniform(1.1, 30),
    jobMinUs,
    jobMaxUs: jobMinUs * prng.logUniform(1.1, 50),
    unevenness: prng.chance(0.5) ? 1 : prng.logUniform(1, 20),
    jobCrashRate: prng.chance(0.4) ? prng.logUniform(0.0005, 0.03) : 0,
    startCrashRate: prng.chance(0.4) ? prng.logUniform(0.01, 0.5) : 0,
  }
}

/** Share of seeds in which ranges change. */
const churnShare = 0.5
/** Share of seeds in which reads go by leases, of those whose voters are silent for a while. */
const leaseShare = 0.7

/** How much seldomer than the others these strike. */
const rareKinds: Partial<Record<FaultKind, number>> = {
  crashAll: 0.1,
  diskFull: 0.2,
  bitFlip: 0.6,
  wipe: 0.3,
}

function drawFaults(prng: Prng, nodes: number): Omit<FaultParameters, "electionUs"> {
  const flippedNode = prng.chance(0.25) ? prng.int(1, nodes) : undefined
  const isWiped = flippedNode === undefined && prng.chance(0.15)
  const wipedNode = isWiped ? prng.int(1, nodes) : undefined
  const weights = faultKinds.map((kind) => {
    if (kind === "bitFlip" && flippedNode === undefined) return [kind, 0] as const
    if (kind === "wipe" && wipedNode === undefined) return [kind, 0] as const
    const likely = rareKinds[kind] ?? 1
    return [kind, prng.chance(0.65) ? prng.logUniform(0.05, 1) * likely : 0] as const
  })
  const sum = weights.reduce((total, [, weight]) => total + weight, 0)
  const durationMinUs = prng.logUniform(1_000, 50_000)
  return {
    rate: prng.logUniform(1.3, 8),
    leaderShare: prng.pick([0, 0.3, 0.8]),
    strikeRate: prng.chance(0.5) ? prng.logUniform(0.05, 1) : 0,
    strikeDelayMaxUs: prng.logUniform(1_000, 200_000),
    flippedNode,
    wipedNode,
    weights: sum === 0 ? [["crash", 1]] : weights.map(([kind, weight]) => [kind, weight / sum]),
    durationMinUs,
    durationMaxUs: prng.logUniform(200_000, 4_000_000),
  }
}

function drawChurn(prng: Prng): ChurnParameters {
  const rate = prng.chance(churnShare) ? prng.logUniform(0.3, 6) : 0
  const weights = churnKinds.map(
    (kind) =>
      [kind, prng.chance(frequent.has(kind) ? 0.8 : 0.6) ? likelyOf(kind, prng) : 0] as const,
  )
  const sum = weights.reduce((total, [, weight]) => total + weight, 0)
  return {
    rate,
    weights: sum === 0 ? [["move", 1]] : weights.map(([kind, weight]) => [kind, weight / sum]),
    splitKeys: prng.pick([2, 2, 4, 10]),
    rangesMax: prng.int(4, 8),
    votersMin: prng.pick([1, 2, 3]),
    mergeRate: 0,
  }
}

const usualMergeShare = 0.4

/** Drawn after all else, so that the worlds without merges are what they are without this. */
function withMerges(churn: ChurnParameters, share: number, prng: Prng): ChurnParameters {
  if (churn.rate === 0 || !prng.chance(share)) return churn
  return {
    ...churn,
    mergeRate: prng.logUniform(0.5, 6),
    rangesMax: churn.rangesMax + prng.int(0, 8),
    splitKeys: 2,
  }
}

const frequent: ReadonlySet<ChurnKind> = new Set(["transfer", "split"])

/** A split is refused for many reasons, and there is room for a few only. */
function likelyOf(kind: ChurnKind, prng: Prng): number {
  return prng.logUniform(0.1, 1) * (kind === "split" ? 3 : 1)
}

function drawWorkload(prng: Prng): WorkloadParameters {
  const clients = prng.int(3, 6)
  const processesPerClient = prng.int(2, 3)
  const operationsPerSecond = prng.logUniform(25, 120)
  const thinkUs = (clients * processesPerClient * 1e6) / operationsPerSecond
  const attemptMinUs = prng.logUniform(20_000, 200_000)
  const deadlineMinUs = prng.logUniform(80_000, 250_000)
  return {
    clients,
    processesPerClient,
    keys: prng.int(4, 14),
    thinkMinUs: thinkUs / prng.logUniform(1.2, 5),
    thinkMaxUs: thinkUs * 1.5,
    attemptMinUs,
    attemptMaxUs: attemptMinUs * prng.logUniform(1.5, 5),
    deadlineMinUs,
    deadlineMaxUs: deadlineMinUs * prng.logUniform(1.5, 10),
    valueBytesMax: Math.round(prng.logUniform(8, 1_500)),
    addShare: prng.chance(0.5) ? 0.2 * prng.float() : 0,
    readShare: 0.2 + 0.4 * prng.float(),
    staleShare: prng.chance(0.5) ? 0.4 * prng.float() : 0,
    boundedShare: prng.pick([0, 0.5, 1]),
    floorShare: prng.pick([0, 0.5]),
    anyReplicaShare: prng.chance(0.6) ? 0.8 * prng.float() : 0,
    answerLossRate: prng.chance(0.4) ? prng.logUniform(0.01, 0.5) : 0,
    doubleSendRate: prng.chance(0.5) ? prng.logUniform(0.005, 0.2) : 0,
  }
}
