import type { ConflictRule } from "../../../src/dynamo/elements.ts"
import { exchangeDefaults } from "../../../src/dynamo/node/exchanges.ts"
import { hintDefaults } from "../../../src/dynamo/node/hints.ts"
import type { EventualNamespace } from "../../../src/dynamo/node/ports.ts"
import { reapDefaults } from "../../../src/dynamo/node/reaper.ts"
import { Prng } from "../../../src/lib/prng.ts"
import { defaultSettings, type StoreSettings } from "../../../src/server/settings.ts"

/** What a seed draws before its run begins. Rates are chances at one step. */
export interface EventualParameters {
  readonly theme: Theme
  readonly nodes: number
  /** Nodes that may join later. */
  readonly spares: number
  readonly namespaces: ReadonlyArray<EventualNamespace>
  readonly keys: number
  /** That copies are spread over, and that clients ask at `localQuorum` in; 1: there are none. */
  readonly zones: number
  /** All keys lie in one slot. */
  readonly oneSlot: boolean
  readonly clients: number
  /** Requests of a step, at most. */
  readonly burst: number
  /** Chance that a request goes to an owner, where one is up. */
  readonly nearOwner: number
  readonly steps: number
  readonly settings: StoreSettings
  readonly network: {
    readonly loss: number
    readonly duplicates: number
    readonly late: number
    readonly lateMsMax: number
  }
  readonly rates: {
    readonly cut: number
    readonly heal: number
    readonly crash: number
    readonly start: number
    /** Power goes right after a write was sent, and the node comes back at once. */
    readonly writeAcrossLoss: number
    /** A node is away for days. */
    readonly longAway: number
    /** Nothing goes wrong for a while: hints are delivered, tenures end, and their epochs. */
    readonly calm: number
    readonly ring: number
    /** A node is lost for good, with its disk, and taken out of the ring; never a second one before the others hold all again. */
    readonly gone: number
    readonly clock: number
    readonly full: number
    /** What one node has on its disk is damaged: always the same node, so that nothing may be lost that others have. */
    readonly damage: number
  }
  /** Wall clocks are at most so far from each other. */
  readonly skewMsMax: number
  readonly ttl: number
  /** Chance that a write names no context. */
  readonly blind: number
  /** Chance that a write with a context is a delete. */
  readonly deletes: number
}

const rules: ReadonlyArray<ConflictRule> = ["siblings", "lww", "register", "set", "flag", "counter"]

const off = (prng: Prng, chance: number, rate: number) => (prng.chance(chance) ? rate : 0)

/** A mixture of everything hides what one thing alone would show, so most seeds are about one of these. */
export type Theme = "mixture" | "standIns" | "ring" | "deletes" | "clocks"

const themes: ReadonlyArray<Theme> = ["mixture", "standIns", "ring", "deletes", "clocks"]

export function parametersOf(seed: number): EventualParameters {
  const prng = new Prng(seed).fork()
  const theme = prng.pick(themes)
  const is = (other: Theme) => theme === other
  const nodes = is("standIns") ? prng.pick([4, 5]) : prng.pick([3, 3, 4, 5, 5, 7])
  const possible: ReadonlyArray<ConflictRule> = is("clocks") ? ["lww", "register"] : rules
  const chosen = prng.shuffle([...possible]).slice(0, prng.pick([1, 1, 2]))
  const namespaces = chosen.map((rule, i): EventualNamespace => {
    const copies = Math.min(nodes, is("standIns") ? 3 : prng.pick([1, 2, 3, 3, 3, 4, 5]))
    return { id: 11 + i, rule, copies, write: "quorum", read: "quorum" }
  })
  const parameters: EventualParameters = {
    ...{ theme, nodes, namespaces, spares: is("ring") ? 2 : prng.pick([0, 0, 1]) },
    ...{ keys: prng.pick([1, 2, 4]), oneSlot: is("standIns") || prng.chance(0.4) },
    zones: 1,
    ...{ clients: prng.pick([1, 2, 4]), steps: prng.int(40, 100) },
    burst: is("standIns") ? prng.pick([3, 8]) : prng.pick([1, 3]),
    nearOwner: is("standIns") ? prng.pick([0, 0.3]) : prng.pick([0.5, 0.9, 1]),
    settings: settingsOf(prng, is("deletes") || is("standIns") ? 400 : undefined),
    network: {
      loss: off(prng, 0.6, prng.pick([0.01, 0.05, 0.2])),
      duplicates: off(prng, 0.5, 0.05),
      late: off(prng, 0.6, prng.pick([0.05, 0.3])),
      lateMsMax: prng.pick([50, 500, 3000]),
    },
    rates: {
      cut: off(prng, 0.7, prng.pick([0.03, 0.1])),
      heal: prng.pick([0.03, 0.1]),
      crash: off(prng, 0.6, 0.04),
      start: prng.pick([0.05, 0.2]),
      writeAcrossLoss: off(prng, 0.4, 0.05),
      longAway: is("deletes") ? 0.04 : off(prng, 0.2, 0.02),
      calm: is("standIns") ? 0.08 : is("ring") ? 0.04 : off(prng, 0.3, 0.04),
      ring: is("ring") ? 0.15 : off(prng, 0.1, 0.04),
      gone: 0,
      clock: is("clocks") ? 0.2 : off(prng, 0.2, 0.05),
      full: off(prng, 0.2, 0.03),
      damage: 0,
    },
    skewMsMax: is("clocks") ? prng.pick([100, 5000]) : prng.pick([0, 100, 5000]),
    ttl: off(prng, 0.2, 0.2),
    blind: is("deletes") || is("clocks") ? 0.1 : prng.pick([0.1, 0.3, 0.9]),
    deletes: is("deletes") ? 0.4 : 0.15,
  }
  if (is("mixture") && prng.chance(0.5)) return withDamage(parameters, prng)
  // Drawn apart, so that all other seeds draw as if there were none of this.
  const extra = new Prng(seed + 0x5eed).fork()
  const drawn = extra.chance(0.12) ? withLosses(parameters, extra) : parameters
  return extra.chance(0.12) ? { ...drawn, zones: extra.pick([2, 3]) } : drawn
}

/** Of every key others have copies, too. */
function withLosses(parameters: EventualParameters, prng: Prng): EventualParameters {
  const { namespaces, rates } = parameters
  return {
    ...parameters,
    namespaces: namespaces.map((each) => ({ ...each, copies: Math.max(3, each.copies) })),
    rates: { ...rates, gone: prng.pick([0.02, 0.06]) },
  }
}

/** Of every key others have copies, too; and what nobody reads the scrub finds. */
function withDamage(parameters: EventualParameters, prng: Prng): EventualParameters {
  const { namespaces, rates, settings } = parameters
  const engine = { ...settings.engine, blockCacheBytes: 0, scrubBytesPerSecond: 1_000_000 }
  // Who lost what it sent may hear of it again as long as that is on its way: no message is so long, and no request.
  const endings = { ...settings.eventual.endings, quietMs: 6000 }
  return {
    ...parameters,
    namespaces: namespaces.map((each) => ({ ...each, copies: Math.max(3, each.copies) })),
    rates: { ...rates, damage: prng.pick([0.02, 0.06]) },
    settings: { ...settings, engine, eventual: { ...settings.eventual, endings } },
  }
}

function settingsOf(prng: Prng, shortMs: number | undefined): StoreSettings {
  const drawnMs = prng.pick([400, 2000, hintDefaults.windowMs])
  const windowMs = shortMs ?? drawnMs
  const base = defaultSettings.eventual
  return {
    ...defaultSettings,
    retentionBytes: 0,
    retentionMs: 0,
    retainedEntries: 0,
    entryBytes: prng.pick([64, 4096, defaultSettings.entryBytes]),
    journal: { segmentBytes: 32_768, tailCacheBytes: 4096 },
    engine: { memtableBytes: prng.pick([4096, 16_384]), blockBytes: 256, manifestBytes: 8192 },
    space: { reserveBytes: 0, lowFreeBytes: 0 },
    journalScrub: { bytesPerSecond: 0, sliceBytes: 1024 },
    eventual: {
      ...base,
      hints: {
        ...hintDefaults,
        windowMs,
        bytesPerOwnerMax: prng.pick([300, 1 << 20]),
        inFlightMax: prng.pick([1, 64]),
        patienceMs: prng.pick([100, 1000]),
      },
      reap: {
        ...reapDefaults,
        windowMs,
        passMs: prng.pick([1000, 4000]),
        patienceMs: prng.pick([100, 2000]),
      },
      endings: {
        passMs: prng.pick([100, 1000]),
        patienceMs: prng.pick([100, 2000]),
        quietMs: prng.pick([0, 500]),
      },
      exchange: {
        ...exchangeDefaults,
        passMs: prng.pick([1000, 4000]),
        quietMs: prng.pick([50, 1000]),
        patienceMs: prng.pick([100, 500]),
        servedMax: prng.pick([1, 4]),
        pageBytes: prng.pick([1, 64, 65_536]),
      },
    },
  }
}
