import { startsWith } from "../lib/bytes.ts"
import type { Engine } from "../lsm/engine.ts"
import type { Consistency, NodeId, Version } from "../types.ts"
import { dataKey, dataPrefixBytes } from "./engineKeys.ts"
import type { Replica } from "./replica.ts"
import type {
  GetRequest,
  KeyFilter,
  PageEntry,
  PageReply,
  Receipt,
  RefusedReply,
  ScanRequest,
  ValueReply,
} from "./requests.ts"
import type { StoreSettings } from "./settings.ts"
import { copyRecordValue, recordExpiry, recordVersion } from "./valueRecord.ts"

/** Everything that a served read needs besides its request. */
export interface ReadContext {
  readonly engine: Engine
  readonly node: NodeId
  readonly replica: Replica
  readonly rangeTime: Version
  /** The node's own clock when the read was first tried: so a read waits for one tick at most, however many keys expire meanwhile. */
  readonly clock: Version
  readonly settings: StoreSettings
}

function receiptOf(context: ReadContext, level: Consistency): Receipt {
  const { replica } = context
  return {
    level,
    node: context.node,
    role: replica.isLeader ? "leader" : "follower",
    range: replica.range,
    term: replica.raft.term,
    index: replica.machine.appliedIndex,
    replica: replica.machine.replica,
    staleBoundMs: level === "linearizable" ? 0 : -1,
    stateTime: replica.machine.rangeTime,
  }
}

/** The read has met a key whose expiry the clock has passed and range time has not: only the leader may say that it is gone, by an entry. */
export interface Unripe {
  readonly _tag: "Unripe"
  /** The read may be served once range time has reached it. */
  readonly expiry: Version
}

/**
 * Whether a stored value is there for a read. Replicas agree in range time, so that decides; the leader goes by its clock too, and makes range time catch
 * up before it answers, or before a follower does (ticks.ts). A `local` read promises nothing about others, and hides by the clock of its own node.
 */
function standing(
  context: ReadContext,
  level: Consistency,
  record: Uint8Array,
): "present" | "absent" | Unripe {
  const expiry = recordExpiry(record)
  if (expiry === 0) return "present"
  const { clock, replica } = context
  if (expiry <= replica.machine.rangeTime) return "absent"
  if (expiry > clock || level === "bounded") return "present"
  return level === "local" ? "absent" : { _tag: "Unripe", expiry }
}

/** Serves a read from the present state. Bounds are those of the very state that is read. May throw `StorageCorruption`. */
export function serveRead(
  context: ReadContext,
  request: GetRequest | ScanRequest,
): ValueReply | PageReply | RefusedReply | Unripe {
  const { token, level, boundsVersion } = request
  const { descriptor } = context.replica.machine
  const { rangeTime } = context
  if (boundsVersion !== descriptor.boundsVersion) {
    return {
      _tag: "Refused",
      token,
      rangeTime,
      refusal: { _tag: "RangeMoved", descriptors: [descriptor] },
    }
  }
  const receipt = receiptOf(context, level)
  if (request._tag === "Scan") {
    const { count } = request
    const page =
      count === undefined ? readPage(context, request) : countPage(context, request, count)
    return "_tag" in page ? page : { _tag: "Page", token, rangeTime, receipt, ...page }
  }
  const stored = context.engine.get(dataKey(request.position))
  const standingNow = stored === undefined ? "absent" : standing(context, level, stored)
  if (typeof standingNow !== "string") return standingNow
  const record = standingNow === "present" ? stored : undefined
  return {
    _tag: "Value",
    token,
    rangeTime,
    receipt,
    value: record === undefined ? undefined : copyRecordValue(record),
    version: record === undefined ? 0 : recordVersion(record),
  }
}

type Page = Pick<PageReply, "entries" | "count" | "next">

/** One page, bounded in entries and bytes so that a scan never holds the loop for long. */
function readPage(context: ReadContext, request: ScanRequest): Page | Unripe {
  const { settings } = context
  const limit = Math.min(request.limit, settings.scanPageEntries)
  const entries: Array<PageEntry> = []
  let bytes = 0
  let seen = 0
  let next: Uint8Array | undefined
  const iterator = context.engine.iterator({
    lower: dataKey(request.lower),
    upper: dataKey(request.upper),
  })
  try {
    while (iterator.next()) {
      const position = iterator.key.slice(dataPrefixBytes)
      // What has expired counts too: a page ends early rather than pass over any number of them.
      const isFull = entries.length >= limit || seen >= settings.scanPageEntries
      if (isFull || bytes >= settings.scanPageBytes) {
        next = position
        break
      }
      const record = iterator.value
      seen++
      bytes += position.length + record.length
      const standingNow = standing(context, request.level, record)
      if (typeof standingNow !== "string") return standingNow
      if (standingNow === "absent") continue
      entries.push({
        position,
        value: copyRecordValue(record),
        version: recordVersion(record),
      })
    }
  } finally {
    iterator.close()
  }
  return { entries, count: entries.length, next }
}

/** Keys that are looked at in one go: as long as a page of values takes. */
const countedAtOnce = 4096

/** Like a page, but for the keys themselves. */
function countPage(
  context: ReadContext,
  request: ScanRequest,
  { offset, prefix }: KeyFilter,
): Page | Unripe {
  const { engine, settings } = context
  const most = Math.min(countedAtOnce, settings.scanPageEntries * 4)
  const lower = dataKey(request.lower)
  const iterator = engine.iterator({ lower, upper: dataKey(request.upper) })
  let count = 0
  let next: Uint8Array | undefined
  try {
    for (let seen = 0; iterator.next(); seen++) {
      if (seen >= most) {
        next = iterator.key.slice(dataPrefixBytes)
        break
      }
      if (!startsWith(iterator.key.subarray(dataPrefixBytes + offset), prefix)) continue
      const standingNow = standing(context, request.level, iterator.value)
      if (typeof standingNow !== "string") return standingNow
      if (standingNow === "present") count++
    }
  } finally {
    iterator.close()
  }
  return { entries: [], count, next }
}
