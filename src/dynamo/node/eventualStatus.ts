import type { RingVersion } from "../../types.ts"
import type { Divergence } from "./exchanges.ts"
import type { HintsOwed } from "./hints.ts"
import type { LatencyFigure } from "./latencies.ts"
import type { RefillStatus } from "./refills.ts"

/** How far the eventual half of a node is from all others: divergence as numbers (DESIGN section 4). */
export interface EventualStatus {
  /** That it works by; 0 = it has not learned one. */
  readonly ringVersion: RingVersion
  /** By other owner: keys found to differ, and for how long. */
  readonly divergence: ReadonlyArray<Divergence>
  readonly hints: ReadonlyArray<HintsOwed>
  /** Since the node started: hints that were left to anti-entropy. */
  readonly hintsDropped: number
  /** Slots that it writes as a stand-in, and tenures whose end is still to be told. */
  readonly tenures: { readonly lasting: number; readonly ended: number }
  /** Slots of which data was lost here, until they are refilled from their other owners. */
  readonly refilling: RefillStatus
  /** As the last pass over all keys found them: concurrent values beyond the first of a key, and deletes that wait to be reaped. */
  readonly siblings: number
  readonly tombstones: number
  readonly keys: number
  /** Since the node started: trees that did not have the sums of their keys, and were put right. More than 0 is a bug. */
  readonly treesDrifted: number
  readonly latencies: ReadonlyArray<LatencyFigure>
}

/** Of a node that holds nothing yet. */
export const noEventualStatus: EventualStatus = {
  ringVersion: 0,
  divergence: [],
  hints: [],
  hintsDropped: 0,
  tenures: { lasting: 0, ended: 0 },
  refilling: { slots: 0, unannounced: 0, from: [] },
  ...{ siblings: 0, tombstones: 0, keys: 0, treesDrifted: 0 },
  latencies: [],
}
