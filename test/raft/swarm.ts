import type { Prng } from "../../src/lib/prng.ts"
import type { RaftSettings } from "./cluster.ts"

/** How often things happen in a run, drawn anew for each seed over orders of magnitude. */
export interface Rates {
  readonly [action: string]: number
}

export function drawRates(prng: Prng): Rates {
  return {
    deliver: prng.logUniform(10, 200),
    burst: prng.logUniform(0.3, 30),
    election: prng.logUniform(0.03, 10),
    deliverAny: prng.logUniform(0.1, 100),
    drop: prng.logUniform(0.01, 30),
    duplicate: prng.logUniform(0.01, 30),
    replayOld: prng.logUniform(0.01, 30),
    tick: prng.chance(0.5) ? prng.logUniform(10, 200) : prng.logUniform(0.3, 10),
    propose: prng.logUniform(1, 30),
    read: prng.logUniform(0.1, 10),
    crash: prng.logUniform(0.01, 10),
    restart: prng.logUniform(1, 10),
    isolate: prng.logUniform(0.01, 5),
    cutOneWay: prng.logUniform(0.01, 5),
    heal: prng.logUniform(0.3, 5),
    hold: prng.logUniform(0.01, 10),
    persist: 20,
    compact: prng.logUniform(0.01, 3),
    campaign: prng.logUniform(0.01, 10),
    unreachable: prng.logUniform(0.01, 3),
  }
}

/** Settings of the core, often at their smallest. */
export function drawSettings(prng: Prng): Partial<RaftSettings> {
  return {
    preVote: prng.chance(0.4),
    checkQuorum: prng.chance(0.5),
    voteSilenceMs: prng.chance(0.3) ? 300 : 0,
    maxAppendBytes: prng.chance(0.5) ? 1 : 2 ** 20,
    maxInflightAppends: prng.pick([1, 2, 256]),
    maxCommittedBytes: prng.chance(0.5) ? 1 : 2 ** 20,
    maxUncommittedBytes: prng.chance(0.3) ? 30 : 2 ** 20,
  }
}
