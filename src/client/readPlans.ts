import { compareBytes } from "../lib/bytes.ts"
import type { Consistency, Position } from "../types.ts"
import type { PageEntry, Receipt, ValueAnswer } from "../wire/answers.ts"
import type { WireFreshness, WireRequest } from "../wire/native.ts"
import { type CallPlan, nothing, unfitting } from "./plans.ts"
import type { SessionFloors } from "./sessionFloors.ts"

/** How current a read must be. */
export interface ReadLevel {
  readonly level: Consistency
  /** Of `bounded`; else 0. */
  readonly maxStalenessMs: number
  /** Of `linearizable`: a follower may answer, after it has asked its leader. The other levels are always answered by any replica. */
  readonly anyReplica: boolean
  readonly floors: SessionFloors | undefined
}

/** A linearizable state holds all that anybody was shown, so only the other levels name a floor. */
function freshnessOf(read: ReadLevel, lower: Position, upper: Position): WireFreshness {
  const { level, maxStalenessMs, anyReplica, floors } = read
  const atLeast = level === "linearizable" ? 0 : (floors?.least(lower, upper) ?? 0)
  return { maxStalenessMs, atLeast, anyReplica }
}

const isAnywhere = (read: ReadLevel) => read.level !== "linearizable" || read.anyReplica

export function getPlan(read: ReadLevel & { readonly position: Position }): CallPlan<ValueAnswer> {
  const { position, level } = read
  return {
    position,
    isMutation: false,
    anyReplica: isAnywhere(read),
    floors: read.floors,
    request: (route, deadlineMs) => ({
      _tag: "Get",
      id: 0,
      range: route.descriptor.id,
      deadlineMs,
      level,
      boundsVersion: route.descriptor.boundsVersion,
      position,
      ...freshnessOf(read, position, after(position)),
    }),
    judge: (answer) => {
      if (answer._tag === "Refused") return answer
      return answer._tag === "Value" ? { _tag: "Done", answer } : unfitting(answer)
    },
    renew: nothing,
    release: nothing,
  }
}

/** The least position above another. */
function after(position: Position): Position {
  const next = new Uint8Array(position.length + 1)
  next.set(position)
  return next
}

export interface ScanInterval {
  readonly lower: Position
  /** Exclusive. */
  readonly upper: Position
  readonly prefix: Uint8Array
}

export interface RangePage {
  readonly entries: ReadonlyArray<PageEntry>
  /** Keys of the page, also where they were only counted. */
  readonly count: number
  /** Where to go on in the whole interval; `undefined` at its end. */
  readonly next: Position | undefined
  readonly receipt: Receipt
}

/** One page of one range: the part of `interval` that lies in the range of its lower end. */
export function pagePlan(
  read: ReadLevel & {
    readonly interval: ScanInterval
    readonly limit: number
    readonly countOnly: boolean
  },
): CallPlan<RangePage> {
  const { interval, level, limit, countOnly } = read
  const { lower, prefix } = interval
  let upper = interval.upper
  return {
    position: lower,
    isMutation: false,
    anyReplica: isAnywhere(read),
    floors: read.floors,
    request: (route, deadlineMs): WireRequest => {
      const { id: range, end, boundsVersion } = route.descriptor
      upper = end.length > 0 && compareBytes(end, interval.upper) < 0 ? end : interval.upper
      return {
        _tag: "Scan",
        id: 0,
        range,
        deadlineMs,
        level,
        boundsVersion,
        lower,
        upper,
        limit,
        prefix,
        countOnly,
        ...freshnessOf(read, lower, upper),
      }
    },
    judge: (answer) => {
      if (answer._tag === "Refused") return answer
      if (answer._tag !== "Page") return unfitting(answer)
      const next = answer.next ?? (compareBytes(upper, interval.upper) < 0 ? upper : undefined)
      const { entries, count, receipt } = answer
      return { _tag: "Done", answer: { entries, count, next, receipt } }
    },
    renew: nothing,
    release: nothing,
  }
}
