import { Effect, Option, Stream } from "effect"
import type { KvorumError } from "../Errors.ts"
import { compareBytes, emptyBytes, fromHex, prefixEnd, toHex } from "../lib/bytes.ts"
import { keyIn, namespaceStart, positionIn, slotStart } from "../lib/position.ts"
import { hashTag, slotOf } from "../lib/slot.ts"
import type { Position } from "../types.ts"
import type { NamespaceInfo } from "../wire/answers.ts"
import { keyProblem, limits, positionBytesMax } from "../wire/limits.ts"
import type { Found, ReadOptions, ScanEntry, ScanOptions, ScanPage } from "./Api.ts"
import { type Caller, invalid, toBytes } from "./Caller.ts"
import {
  getPlan,
  pagePlan,
  type RangePage,
  type ReadLevel,
  type ScanInterval,
} from "./readPlans.ts"

/** The staleness that a request can name is a number of 32 bits. */
const stalenessMsMax = 2 ** 32 - 1

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

/** Reads as Effects over the core. */
export class Reads {
  private readonly caller: Caller

  constructor(caller: Caller) {
    this.caller = caller
  }

  private levelOf(options: ReadOptions | undefined): Omit<ReadLevel, "floors"> | string {
    const { level = "linearizable", maxStalenessMs, anyReplica = false } = options ?? {}
    if (level === "bounded") {
      if (maxStalenessMs === undefined) return "a bounded read needs maxStalenessMs"
      if (!(maxStalenessMs >= 1 && maxStalenessMs <= stalenessMsMax)) {
        return `maxStalenessMs of ${maxStalenessMs}: limit is 1 to ${stalenessMsMax} ms`
      }
      return { level, maxStalenessMs: Math.floor(maxStalenessMs), anyReplica: false }
    }
    if (maxStalenessMs !== undefined) return `maxStalenessMs is for bounded reads, not ${level}`
    return { level, maxStalenessMs: 0, anyReplica: level === "linearizable" && anyReplica }
  }

  get(
    namespace: string,
    key: Uint8Array,
    options: ReadOptions | undefined,
  ): Effect.Effect<Found, KvorumError> {
    const level = this.levelOf(options)
    if (typeof level === "string") return invalid(level)
    const problem = keyProblem(key.length)
    if (problem !== undefined) return invalid(problem)
    return this.caller.within(namespace, options, ({ namespace: found, leftMs, floors }) =>
      this.caller.call(
        getPlan({ ...level, floors, position: positionIn(found, key) }),
        leftMs,
        ({ value, version, receipt }): Found =>
          value === undefined
            ? { found: false, receipt }
            : // An own copy: a view would keep everything that arrived with it.
              { found: true, value: value.slice(), version, receipt },
      ),
    )
  }

  scanPage(namespace: string, options: ScanOptions): Effect.Effect<ScanPage, KvorumError> {
    const level = this.levelOf(options)
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
      const read = { ...level, floors }
      return this.gather({ ...interval, lower: from }, { read, partitioning, limit, deadlineMs })
    })
  }

  /** Asks range after range until there are `limit` entries, or no more. */
  private readonly gather = Effect.fnUntraced(function* (
    this: Reads,
    interval: ScanInterval,
    options: {
      readonly read: ReadLevel
      readonly partitioning: NamespaceInfo["partitioning"]
      readonly limit: number
      readonly deadlineMs: number
    },
  ): Effect.fn.Return<ScanPage, KvorumError> {
    const { read, partitioning, limit, deadlineMs } = options
    const entries: Array<ScanEntry> = []
    let next: Position | undefined = interval.lower
    while (next !== undefined && entries.length < limit) {
      const part = { ...interval, lower: next }
      const plan = pagePlan({ ...read, interval: part, limit: limit - entries.length })
      const page: RangePage = yield* this.caller.call(plan, deadlineMs, (answer) => answer)
      for (const { position, value, version } of page.entries) {
        entries.push({ key: keyIn(partitioning, position).slice(), value: value.slice(), version })
      }
      next = page.next
    }
    return { entries, cursor: next === undefined ? undefined : toHex(next) }
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
