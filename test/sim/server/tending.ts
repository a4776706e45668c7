import { type TendingPolicy, tendingDefaults } from "../../../src/admin/Tending.ts"
import { Prng } from "../../../src/lib/prng.ts"

/**
 * What the nodes of a world see to by themselves: in some nothing, in some what they ship with, and in the others all of it all the time: ranges are cut at some ten keys, merged when they
 * were quiet for seconds, moved as soon as nodes are uneven, and made anew where a node was down for seconds. Of a stream of its own.
 */
export function drawTending(seed: number): TendingPolicy | "none" {
  const prng = new Prng(seed + 0x7e4d)
  const draw = prng.float()
  if (draw < 0.3) return "none"
  const everyMs = prng.int(300, 2000)
  if (draw < 0.5) return { ...tendingDefaults, everyMs }
  const splitEntries = prng.int(10, 40)
  const never = 3_600_000
  return {
    sizing: {
      ...tendingDefaults.sizing,
      splitEntries,
      splitRequestsPerSecond: prng.chance(0.5) ? prng.int(1, 20) : never,
      splitHoldMs: prng.int(500, 3000),
      mergeEntries: prng.int(4, splitEntries),
      mergeHoldMs: prng.int(500, 4000),
    },
    balance: { threshold: prng.float() / 5, movesMax: prng.int(1, 8) },
    everyMs,
    unevenLooks: prng.int(1, 3),
    deadAfterMs: prng.chance(0.5) ? prng.int(200, 8000) : never,
  }
}
