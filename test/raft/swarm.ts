import type { Prng } from "../../src/lib/prng.ts"
import type { RaftSettings } from "./cluster.ts"

/** How often things happen in a run, drawn anew for each seed over orders of magnitude. */
export interface Rates {
  [action: string]: number
}

export function drawRates(prng: Prng): Rates {
  const changes = prng.chance(0.5)
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
    // Snapshots of groups that change are where memberships get lost.
    compact: changes ? prng.logUniform(0.3, 20) : prng.logUniform(0.01, 3),
    campaign: prng.logUniform(0.01, 10),
    unreachable: prng.logUniform(0.01, 3),
    transfer: prng.logUniform(0.01, 3),
    followerRead: prng.logUniform(0.1, 10),
    change: changes ? prng.logUniform(0.3, 20) : 0,
    sleep: prng.logUniform(0.01, 3),
    wallJump: prng.logUniform(0.01, 1),
  }
}

/** How many replicas there are, and how many of them vote at first: the others wait to become members. */
export function drawSize(prng: Prng): { readonly nodes: number; readonly voters: number } {
  const voters = prng.pick([1, 2, 3, 3, 3, 5])
  return { nodes: prng.chance(0.5) ? Math.min(6, voters + prng.int(1, 3)) : voters, voters }
}

/**
 * Leases rest on clocks that run about as fast as each other, so there time passes for all at once, and nobody campaigns but by its timer.
 */
export const leaseSettings: Partial<RaftSettings> = {
  leaseMs: 240,
  clockSlipMs: 20,
  voteSilenceMs: 300,
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
