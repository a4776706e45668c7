import { toHex } from "../lib/bytes.ts"
import type { BoundsVersion, MonotonicMs, NamespaceId, Position, RangeId } from "../types.ts"

/**
 * When a range is cut in two, and when two become one: pure, told of time and of measures.
 *
 * A range is cut at the middle of its data when it has grown too large, at once; and when for a while more has been asked of it than one range is meant for, at the position that
 * halves the requests. Where there is none, because one key (or a few) has most of them, a cut would move the heat and not spread it: that is reported, and the range stays whole.
 * Neighbours of one namespace are merged when both together have been small and quiet for long; what they are then is far below what is cut, so that nothing goes to and fro.
 */
export interface SizingPolicy {
  readonly splitBytes: number
  readonly splitEntries: number
  readonly splitRequestsPerSecond: number
  /** For so long more is asked before a range is cut for it. */
  readonly splitHoldMs: number
  readonly mergeBytes: number
  readonly mergeEntries: number
  readonly mergeRequestsPerSecond: number
  readonly mergeHoldMs: number
}

const mebibyte = 1024 * 1024

/** Size and hold as DESIGN section 6 has them. A core serves some 40,000 requests a second: past a quarter of that a range should not stay alone on one. */
export const sizingDefaults: SizingPolicy = {
  splitBytes: 64 * mebibyte,
  splitEntries: 400_000,
  splitRequestsPerSecond: 10_000,
  splitHoldMs: 30_000,
  mergeBytes: 16 * mebibyte,
  mergeEntries: 100_000,
  mergeRequestsPerSecond: 500,
  mergeHoldMs: 3_600_000,
}

/** What is known of a range that is led somewhere. */
export interface SizedRange {
  readonly id: RangeId
  readonly boundsVersion: BoundsVersion
  readonly bytes: number
  readonly entries: number
  readonly requestsPerSecond: number
}

export type Verdict =
  /** `at` undefined: the middle of the data. */
  | { readonly _tag: "Split"; readonly range: RangeId; readonly at: Position | undefined }
  /** Much is asked of it, and no cut would help. */
  | { readonly _tag: "Hot"; readonly range: RangeId }

/** What was tried or said is not tried or said again for so long. */
const againMs = 30_000

/** Of the ranges that one node leads. */
export class SplitWatch {
  private readonly policy: SizingPolicy
  private busySince = new Map<RangeId, MonotonicMs>()
  private quietUntil = new Map<string, MonotonicMs>()

  constructor(policy: SizingPolicy) {
    this.policy = policy
  }

  /** What is to be done now; the caller need not remember what it has been told. `cutOf`: a position that halves a range's load. */
  look(
    ranges: ReadonlyArray<SizedRange>,
    nowMs: MonotonicMs,
    cutOf: (range: RangeId) => Position | undefined,
  ): ReadonlyArray<Verdict> {
    const verdicts: Array<Verdict> = []
    const busySince = new Map<RangeId, MonotonicMs>()
    for (const range of ranges) {
      const isBusy = range.requestsPerSecond > this.policy.splitRequestsPerSecond
      if (isBusy) busySince.set(range.id, this.busySince.get(range.id) ?? nowMs)
      // A half that is still too large is another thing to do.
      const name = `${range.id} ${range.boundsVersion}`
      if (nowMs < (this.quietUntil.get(name) ?? 0)) continue
      const verdict = this.verdictOf(range, nowMs, { since: busySince.get(range.id), cutOf })
      if (verdict === undefined) continue
      this.quietUntil.set(name, nowMs + againMs)
      // A half is busy anew, or is not.
      busySince.delete(range.id)
      verdicts.push(verdict)
    }
    this.busySince = busySince
    for (const [name, until] of this.quietUntil) {
      if (nowMs >= until) this.quietUntil.delete(name)
    }
    return verdicts
  }

  private verdictOf(
    { id, bytes, entries }: SizedRange,
    nowMs: MonotonicMs,
    busy: {
      readonly since: MonotonicMs | undefined
      readonly cutOf: (range: RangeId) => Position | undefined
    },
  ): Verdict | undefined {
    const { splitBytes, splitEntries, splitHoldMs } = this.policy
    if (bytes > splitBytes || entries > splitEntries) {
      return { _tag: "Split", range: id, at: undefined }
    }
    if (busy.since === undefined || nowMs - busy.since < splitHoldMs) return undefined
    const cut = busy.cutOf(id)
    return cut === undefined ? { _tag: "Hot", range: id } : { _tag: "Split", range: id, at: cut }
  }
}

/** A range of the whole cluster; `measure` is missing while nobody has told it. */
export interface PlacedRange {
  readonly id: RangeId
  readonly namespace: NamespaceId | undefined
  readonly start: Position
  readonly measure: SizedRange | undefined
}

export interface MergeRules {
  /** Ranges that a namespace keeps at least. */
  readonly rangesMin: (namespace: NamespaceId) => number
  /** Somebody has ordered a cut here. */
  readonly isKept: (position: Position) => boolean
}

/** Of all neighbours in the cluster. */
export class MergeWatch {
  private readonly policy: SizingPolicy
  private coldSince = new Map<string, MonotonicMs>()

  constructor(policy: SizingPolicy) {
    this.policy = policy
  }

  /** Pairs that are to be merged now, left and right, none of them twice. `ranges` in order of start. */
  look(
    ranges: ReadonlyArray<PlacedRange>,
    rules: MergeRules,
    nowMs: MonotonicMs,
  ): ReadonlyArray<readonly [RangeId, RangeId]> {
    const counts = new Map<NamespaceId, number>()
    for (const { namespace } of ranges) {
      if (namespace !== undefined) counts.set(namespace, (counts.get(namespace) ?? 0) + 1)
    }
    const pairs: Array<readonly [RangeId, RangeId]> = []
    const coldSince = new Map<string, MonotonicMs>()
    let taken = false
    for (let i = 0; i + 1 < ranges.length; i++) {
      const [left, right] = [ranges[i] as PlacedRange, ranges[i + 1] as PlacedRange]
      const wasTaken = taken
      taken = false
      const { namespace } = left
      if (namespace === undefined || namespace !== right.namespace) continue
      if (!this.isCold(left, right) || rules.isKept(right.start)) continue
      const key = `${left.id} ${right.id} ${toHex(right.start)}`
      const since = this.coldSince.get(key) ?? nowMs
      coldSince.set(key, since)
      if (wasTaken || nowMs - since < this.policy.mergeHoldMs) continue
      const count = counts.get(namespace) ?? 0
      if (count <= Math.max(1, rules.rangesMin(namespace))) continue
      counts.set(namespace, count - 1)
      pairs.push([left.id, right.id])
      taken = true
    }
    this.coldSince = coldSince
    return pairs
  }

  private isCold({ measure: left }: PlacedRange, { measure: right }: PlacedRange): boolean {
    if (left === undefined || right === undefined) return false
    const { mergeBytes, mergeEntries, mergeRequestsPerSecond } = this.policy
    return (
      left.bytes + right.bytes < mergeBytes &&
      left.entries + right.entries < mergeEntries &&
      left.requestsPerSecond + right.requestsPerSecond < mergeRequestsPerSecond
    )
  }
}
