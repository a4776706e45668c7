import type { Engine } from "../lsm/engine.ts"
import type { Consistency, NodeId, Version } from "../types.ts"
import { dataKey, dataPrefixBytes } from "./engineKeys.ts"
import type { Replica } from "./replica.ts"
import type { GetRequest, PageEntry, Receipt, Reply, ScanRequest } from "./requests.ts"
import type { StoreSettings } from "./settings.ts"
import { recordValue, recordVersion } from "./valueRecord.ts"

/** Everything that a served read needs besides its request. */
export interface ReadContext {
  readonly engine: Engine
  readonly node: NodeId
  readonly replica: Replica
  readonly rangeTime: Version
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
  }
}

/** Serves a read from the present state. Bounds are those of the very state that is read. May throw `StorageCorruption`. */
export function serveRead(context: ReadContext, request: GetRequest | ScanRequest): Reply {
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
    return { _tag: "Page", token, rangeTime, receipt, ...readPage(context, request) }
  }
  const record = context.engine.get(dataKey(request.position))
  return {
    _tag: "Value",
    token,
    rangeTime,
    receipt,
    value: record === undefined ? undefined : recordValue(record).slice(),
    version: record === undefined ? 0 : recordVersion(record),
  }
}

/** One page, bounded in entries and bytes so that a scan never holds the loop for long. */
function readPage(
  context: ReadContext,
  request: ScanRequest,
): { entries: ReadonlyArray<PageEntry>; next: Uint8Array | undefined } {
  const { settings } = context
  const limit = Math.min(request.limit, settings.scanPageEntries)
  const entries: Array<PageEntry> = []
  let bytes = 0
  let next: Uint8Array | undefined
  const iterator = context.engine.iterator({
    lower: dataKey(request.lower),
    upper: dataKey(request.upper),
  })
  try {
    while (iterator.next()) {
      const position = iterator.key.slice(dataPrefixBytes)
      if (entries.length >= limit || bytes >= settings.scanPageBytes) {
        next = position
        break
      }
      const record = iterator.value
      entries.push({
        position,
        value: recordValue(record).slice(),
        version: recordVersion(record),
      })
      bytes += position.length + record.length
    }
  } finally {
    iterator.close()
  }
  return { entries, next }
}
