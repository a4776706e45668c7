import { Effect, Option, Stream } from "effect"
import type { KvorumError } from "../Errors.ts"
import { compareBytes, emptyBytes, fromHex, prefixEnd, toHex } from "../lib/bytes.ts"
import { keyIn, namespaceStart, positionIn, slotStart } from "../lib/position.ts"
import { hashTag, slotOf } from "../lib/slot.ts"
import type { Position, RangeId } from "../types.ts"
import type { NamespaceInfo } from "../wire/answers.ts"
import { limits, positionBytesMax } from "../wire/limits.ts"
import type {
  Counted,
  CountOptions,
  MissingRange,
  RangePart,
  ScanEntry,
  ScanOptions,
  ScanPage,
} from "./Api.ts"
import { type Caller, invalid, toBytes } from "./Caller.ts"
import { levelOf } from "./ReadLevel.ts"
import { pagePlan, type RangePage, type ReadLevel, type ScanInterval } from "./readPlans.ts"

/** The interval that a scan walks: a prefix of an ordered namespace, one slot when the prefix holds a whole hash tag, else the namespace. */
function intervalOf(namespace: NamespaceInfo, prefix: Uint8Array): ScanInterval {
  const { id, partitioning } = namespace
  const upper = namespaceStart(id + 1)
  if (partitioning === "ordered") {
    const lower = positionIn(namespace, prefix)
    // A prefix of nothing but 0xff, or none, ends where the namespace does.
    const end = prefixEnd(lower)
    return { lower, upper: end !== undefined && compareBytes(end, upper) < 0 ? end : upper, prefix }
  }
  if (hashTag(prefix).start === 0) return { lower: namespaceStart(id), upper, prefix }
  const start = slotStart(id, slotOf(prefix))
  const lower = new Uint8Array(start.length + prefix.length)
  lower.set(start)
  lower.set(prefix, start.length)
  // A hash tag holds "}", so some byte of the prefix is below 0xff.
  return { lower, upper: prefixEnd(lower) as Position, prefix }
}

/** What of an interval was asked of which range, and what none answered for. */
class Parts {
  private readonly counts = new Map<RangeId, number>()
  private readonly lacking = new Map<RangeId | undefined, KvorumError>()

  take(range: RangeId, count: number): void {
    this.counts.set(range, (this.counts.get(range) ?? 0) + count)
  }

  miss(range: RangeId | undefined, error: KvorumError): void {
    this.lacking.set(range, error)
  }

  get found(): ReadonlyArray<RangePart> {
    const parts = [...this.counts].map(([range, entries]) => ({ range, entries }))
    return parts.sort((left, right) => left.range - right.range)
  }

  get missing(): ReadonlyArray<MissingRange> {
    return [...this.lacking].map(([range, error]) => ({ range, error }))
  }

  get total(): number {
    let sum = 0
    for (const count of this.counts.values()) sum += count
    return sum
  }
}

/** Where to go on behind a range that nobody answered for. */
interface Passed {
  readonly next: Position | undefined
}

/** Intervals that are counted side by side. */
const countedAtOnce = 8

interface Walk {
  readonly read: ReadLevel
  readonly partitioning: NamespaceInfo["partitioning"]
  readonly limit: number
  readonly deadlineMs: number
  readonly partial: boolean
}

/** Scans and counts of strong namespaces: range after range, or side by side, each with what it gave. */
export class Scans {
  private readonly caller: Caller

  constructor(caller: Caller) {
    this.caller = caller
  }

  scanPage(namespace: string, options: ScanOptions): Effect.Effect<ScanPage, KvorumError> {
    const level = levelOf(options)
    if (typeof level === "string") return invalid(level)
    const deadlineMs = this.caller.deadline(options)
    const limit = options.limit ?? limits.scanPageEntries
    const prefix = toBytes(options.prefix ?? emptyBytes)
    const problem = scanOptionsProblem({ limit, prefix })
    if (problem !== undefined) return invalid(problem)
    return this.caller.within(namespace, options, ({ namespace: found, floors }) => {
      const interval = intervalOf(found, prefix)
      const from = options.cursor === undefined ? interval.lower : fromHex(options.cursor)
      if (from === undefined || !isInside(from, interval)) {
        return invalid("cursor is not one of this scan")
      }
      const { partitioning } = found
      const walk = { read: { ...level, floors }, partitioning, limit, deadlineMs }
      return this.gather(
        { ...interval, lower: from },
        { ...walk, partial: options.partial === true },
      )
    })
  }

  /** Asks range after range until there are `limit` entries, or no more. */
  private readonly gather = Effect.fnUntraced(function* (
    this: Scans,
    interval: ScanInterval,
    { read, partitioning, limit, deadlineMs, partial }: Walk,
  ): Effect.fn.Return<ScanPage, KvorumError> {
    const entries: Array<ScanEntry> = []
    const parts = new Parts()
    let next: Position | undefined = interval.lower
    while (next !== undefined && entries.length < limit) {
      const part: ScanInterval = { ...interval, lower: next }
      const left = { limit: limit - entries.length, countOnly: false }
      const plan = pagePlan({ ...read, interval: part, ...left })
      const asked = this.caller.call(plan, deadlineMs, (answer) => answer)
      const page: RangePage | Passed = yield* partial ? this.orMissing(asked, part, parts) : asked
      if (!("entries" in page)) {
        next = page.next
        continue
      }
      for (const { position, value, version } of page.entries) {
        entries.push({ key: keyIn(partitioning, position).slice(), value: value.slice(), version })
      }
      parts.take(page.receipt.range, page.entries.length)
      next = page.next
    }
    const cursor = next === undefined ? undefined : toHex(next)
    return { entries, cursor, parts: parts.found, missing: parts.missing }
  })

  /** Where nobody answers for the range at the beginning of an interval, what lies behind it is gone on with. */
  private orMissing<A>(
    asked: Effect.Effect<A, KvorumError>,
    { lower, upper }: ScanInterval,
    parts: Parts,
  ): Effect.Effect<A | Passed, KvorumError> {
    return Effect.catch(asked, (error) => {
      if (!unanswered.has(error._tag)) return Effect.fail(error)
      const route = this.caller.core.directory.table.find(lower)
      parts.miss(route?.descriptor.id, error)
      const end = route?.descriptor.end
      const isLast = end === undefined || end.length === 0 || compareBytes(end, upper) >= 0
      return Effect.succeed({ next: isLast ? undefined : end })
    })
  }

  /**
   * Counts keys where they are, all ranges side by side. What a range gives is linearizable for each page of it that is looked at; a split or a merge meanwhile is
   * followed, so that each key is counted once.
   */
  count(namespace: string, options: CountOptions): Effect.Effect<Counted, KvorumError> {
    const level = levelOf(options)
    if (typeof level === "string") return invalid(level)
    const deadlineMs = this.caller.deadline(options)
    const prefix = toBytes(options.prefix ?? emptyBytes)
    const problem = scanOptionsProblem({ limit: limits.scanPageEntries, prefix })
    if (problem !== undefined) return invalid(problem)
    return this.caller.within(namespace, options, ({ namespace: found, floors }) => {
      const parts = new Parts()
      const { partitioning } = found
      const walk = { read: { ...level, floors }, partitioning, limit: 1, deadlineMs }
      const whole = { ...walk, partial: options.partial === true }
      const counted = Effect.forEach(
        this.cut(intervalOf(found, prefix)),
        (interval) => this.countOne(interval, whole, parts),
        { concurrency: countedAtOnce, discard: true },
      )
      return Effect.map(counted, () => {
        const { missing, found: given, total } = parts
        return { count: total, parts: given, missing, partial: missing.length > 0 }
      })
    })
  }

  /** An interval, cut where the ranges of it begin as far as they are known. */
  private cut(interval: ScanInterval): ReadonlyArray<ScanInterval> {
    const pieces: Array<ScanInterval> = []
    let { lower } = interval
    for (const { descriptor } of this.caller.core.directory.table.all) {
      const { start } = descriptor
      if (compareBytes(start, lower) <= 0) continue
      if (compareBytes(start, interval.upper) >= 0) break
      pieces.push({ ...interval, lower, upper: start })
      lower = start
    }
    return [...pieces, { ...interval, lower }]
  }

  private readonly countOne = Effect.fnUntraced(function* (
    this: Scans,
    interval: ScanInterval,
    { read, limit, deadlineMs, partial }: Walk,
    parts: Parts,
  ): Effect.fn.Return<void, KvorumError> {
    let next: Position | undefined = interval.lower
    while (next !== undefined) {
      const part: ScanInterval = { ...interval, lower: next }
      const plan = pagePlan({ ...read, interval: part, limit, countOnly: true })
      const asked = this.caller.call(plan, deadlineMs, (answer) => answer)
      const page: RangePage | Passed = yield* partial ? this.orMissing(asked, part, parts) : asked
      if ("count" in page) parts.take(page.receipt.range, page.count)
      next = page.next
    }
  })

  scan(namespace: string, options: ScanOptions): Stream.Stream<ScanEntry, KvorumError> {
    const { limit, cursor } = options
    const start = { cursor, left: limit ?? Number.POSITIVE_INFINITY }
    return Stream.paginate(start, (state) =>
      this.scanPage(namespace, {
        ...options,
        limit: Math.min(state.left, limits.scanPageEntries),
        ...(state.cursor === undefined ? {} : { cursor: state.cursor }),
      }).pipe(
        Effect.map((page) => {
          const left = state.left - page.entries.length
          const more = page.cursor !== undefined && left > 0
          return [
            page.entries,
            more ? Option.some({ cursor: page.cursor, left }) : Option.none(),
          ] as const
        }),
      ),
    )
  }
}

/** Nobody who was asked could answer for a range. */
const unanswered: ReadonlySet<KvorumError["_tag"]> = new Set([
  "QuorumUnavailable",
  "NotLeader",
  "RangeMoved",
  "Overloaded",
  "StorageCorrupt",
])

function scanOptionsProblem(options: { readonly limit: number; readonly prefix: Uint8Array }) {
  const { limit, prefix } = options
  if (!Number.isInteger(limit) || limit < 1 || limit > limits.scanPageEntries) {
    return `scan page of ${limit} entries: limit is 1 to ${limits.scanPageEntries} entries`
  }
  if (prefix.length <= limits.keyBytes) return undefined
  return `prefix of ${prefix.length} bytes: limit is ${limits.keyBytes} bytes`
}

function isInside(position: Position, interval: ScanInterval): boolean {
  return (
    position.length <= positionBytesMax + 1 &&
    compareBytes(position, interval.lower) >= 0 &&
    compareBytes(position, interval.upper) < 0
  )
}
