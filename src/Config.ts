import { Config, ConfigProvider, Context, Data, Effect, Layer } from "effect"

/**
 * Every knob, read once: `KVORUM_TICK_MS=30` and so on, in the environment. Two groups, because they must not be mixed up:
 *
 * - the **cluster contract**, which every node of a cluster must be given alike, since promises between nodes rest on it: a
 *   voter that is silent for shorter than another's lease lasts breaks the lease;
 * - the **process knobs**, which a node may choose by its own machine.
 *
 * `checkSettings` holds each against its limits and against the others. Limits of requests and frames are no knobs: wire/limits.ts.
 */
export interface ClusterContract {
  /** Granularity of elections. */
  readonly tickMs: number
  readonly heartbeatTicks: number
  readonly electionTicksMin: number
  readonly electionTicksMax: number
  /** A voter grants nothing for this long after it heard a leader, or started (DESIGN section 3, "Timing and leases"). */
  readonly voteSilenceMs: number
  /** Commands in one entry, and its bytes; a larger single command has an entry of its own. */
  readonly entryCommandsMax: number
  readonly entryBytesMax: number
  /** Results and clients that a range remembers, then `Overloaded`. */
  readonly sessionResultsMax: number
}

export interface ProcessKnobs {
  readonly appendBytesMax: number
  readonly inflightAppendsMax: number
  /** Proposed and not yet committed, of one range; then `Overloaded`. */
  readonly uncommittedBytesMax: number
  readonly journalSegmentBytes: number
  /** Entries kept in memory, over all ranges. */
  readonly journalTailCacheBytes: number
  /** Log kept for slow followers. */
  readonly journalRetentionBytes: number
  readonly memtableBytes: number
  readonly memtablesSealedMax: number
  readonly blockBytes: number
  readonly blockCacheBytes: number
  readonly bloomBitsPerKey: number
  readonly peerQueueBytes: number
  readonly peerBackoffMinMs: number
  readonly peerBackoffMaxMs: number
  readonly doorConnectionsMax: number
  readonly doorInFlightMax: number
  readonly doorOutgoingBytesMax: number
  readonly doorHandshakeTimeoutMs: number
}

export interface Settings {
  readonly contract: ClusterContract
  readonly process: ProcessKnobs
}

const kib = 1024
const mib = 1024 * kib

interface Knob {
  readonly default: number
  readonly min: number
  readonly max: number
}

type Knobs<A> = { readonly [K in keyof A]: Knob }

const contractKnobs: Knobs<ClusterContract> = {
  tickMs: { default: 30, min: 1, max: 10_000 },
  heartbeatTicks: { default: 2, min: 1, max: 100 },
  electionTicksMin: { default: 10, min: 2, max: 1000 },
  electionTicksMax: { default: 20, min: 3, max: 2000 },
  voteSilenceMs: { default: 300, min: 1, max: 100_000 },
  entryCommandsMax: { default: 256, min: 1, max: 4096 },
  entryBytesMax: { default: mib, min: kib, max: 4 * mib },
  sessionResultsMax: { default: 65_536, min: 16, max: 2 ** 20 },
}

const processKnobs: Knobs<ProcessKnobs> = {
  appendBytesMax: { default: mib, min: kib, max: 8 * mib },
  inflightAppendsMax: { default: 256, min: 1, max: 4096 },
  uncommittedBytesMax: { default: 16 * mib, min: 64 * kib, max: 1024 * mib },
  journalSegmentBytes: { default: 64 * mib, min: 64 * kib, max: 1024 * mib },
  journalTailCacheBytes: { default: 64 * mib, min: 64 * kib, max: 4096 * mib },
  journalRetentionBytes: { default: 1024 * mib, min: mib, max: 64 * 1024 * mib },
  memtableBytes: { default: 16 * mib, min: kib, max: 1024 * mib },
  memtablesSealedMax: { default: 4, min: 1, max: 16 },
  blockBytes: { default: 4096, min: 256, max: 64 * kib },
  blockCacheBytes: { default: 64 * mib, min: 0, max: 64 * 1024 * mib },
  bloomBitsPerKey: { default: 10, min: 1, max: 32 },
  peerQueueBytes: { default: 64 * mib, min: mib, max: 1024 * mib },
  peerBackoffMinMs: { default: 50, min: 1, max: 10_000 },
  peerBackoffMaxMs: { default: 500, min: 1, max: 60_000 },
  doorConnectionsMax: { default: 4096, min: 1, max: 1_000_000 },
  doorInFlightMax: { default: 4096, min: 1, max: 1_000_000 },
  doorOutgoingBytesMax: { default: 64 * mib, min: 17 * mib, max: 1024 * mib },
  doorHandshakeTimeoutMs: { default: 5000, min: 10, max: 600_000 },
}

function defaultsOf<A>(knobs: Knobs<A>): A {
  const entries = Object.entries<Knob>(knobs).map(([name, knob]) => [name, knob.default])
  return Object.fromEntries(entries) as A
}

export const defaultSettings: Settings = {
  contract: defaultsOf(contractKnobs),
  process: defaultsOf(processKnobs),
}

/** A knob cannot be read, is out of its limits, or contradicts another. The process does not start. */
export class InvalidSettings extends Data.TaggedError("InvalidSettings")<{
  readonly detail: string
}> {
  override get message(): string {
    return this.detail
  }
}

/** What is wrong with the settings, or `undefined`. */
export function checkSettings({ contract, process }: Settings): string | undefined {
  return (
    limitsProblem(contract, contractKnobs) ??
    limitsProblem(process, processKnobs) ??
    contractProblem(contract) ??
    processProblem(process)
  )
}

function limitsProblem<A>(values: A, knobs: Knobs<A>): string | undefined {
  for (const name of Object.keys(knobs) as Array<keyof A & string>) {
    const { min, max } = knobs[name]
    const value = values[name] as number
    if (!Number.isSafeInteger(value) || value < min || value > max) {
      return `${name} is ${value}: limit is a whole number from ${min} to ${max}`
    }
  }
  return undefined
}

function contractProblem(contract: ClusterContract): string | undefined {
  const { tickMs, heartbeatTicks, electionTicksMin, electionTicksMax, voteSilenceMs } = contract
  if (electionTicksMin >= electionTicksMax) {
    return "electionTicksMin must be below electionTicksMax, or candidates collide for ever"
  }
  if (2 * heartbeatTicks > electionTicksMin) {
    return "electionTicksMin must be at least twice heartbeatTicks, or one lost heartbeat elects"
  }
  if (voteSilenceMs > electionTicksMin * tickMs) {
    return "voteSilenceMs must not exceed electionTicksMin x tickMs, or elections wait for voters"
  }
  return undefined
}

function processProblem(knobs: ProcessKnobs): string | undefined {
  if (knobs.peerBackoffMinMs > knobs.peerBackoffMaxMs) {
    return "peerBackoffMinMs must not exceed peerBackoffMaxMs"
  }
  if (knobs.appendBytesMax > knobs.peerQueueBytes) {
    return "appendBytesMax must not exceed peerQueueBytes, or an append never leaves"
  }
  return undefined
}

function configOf<A>(knobs: Knobs<A>): Config.Config<A> {
  const entries = Object.entries<Knob>(knobs).map(
    ([name, knob]) => [name, Config.Int(name).pipe(Config.withDefault(knob.default))] as const,
  )
  return Config.all(Object.fromEntries(entries)) as unknown as Config.Config<A>
}

const settingsConfig: Config.Config<Settings> = Config.all({
  contract: configOf(contractKnobs),
  process: configOf(processKnobs),
}).pipe(Config.nested("kvorum"))

/** Reads from the `ConfigProvider` at hand, with camelCase names below `kvorum`. */
export const readSettings: Effect.Effect<Settings, InvalidSettings> = Effect.gen(function* () {
  const settings = yield* settingsConfig.pipe(
    Effect.mapError((error) => new InvalidSettings({ detail: error.message.replace(/\s+/g, " ") })),
  )
  const problem = checkSettings(settings)
  if (problem !== undefined) return yield* new InvalidSettings({ detail: problem })
  return settings
})

/** The settings of this process; the defaults unless a layer says otherwise. */
export const CurrentSettings = Context.Reference<Settings>("kvorum/Config/Settings", {
  defaultValue: () => defaultSettings,
})

/** Reads the environment: `KVORUM_TICK_MS`, `KVORUM_MEMTABLE_BYTES` and so on. */
export const layerEnvironment: Layer.Layer<never, InvalidSettings> = Layer.effect(
  CurrentSettings,
  readSettings,
).pipe(
  Layer.provide(ConfigProvider.layer(ConfigProvider.fromEnv().pipe(ConfigProvider.constantCase))),
)
