import { tokenBytesMax } from "../../dynamo/contextToken.ts"
import type {
  EventualChange,
  EventualPage,
  EventualReply,
  EventualRequest,
} from "../../dynamo/node/requests.ts"
import { compareBytes } from "../../lib/bytes.ts"
import { isHashPosition, namespaceOf, prefixBytesOf } from "../../lib/position.ts"
import { slotCount } from "../../lib/slot.ts"
import { systemNamespace } from "../../server/bootstrap.ts"
import type { Position } from "../../types.ts"
import type { NamespaceInfo } from "../../wire/answers.ts"
import { BatchView } from "../../wire/batch.ts"
import { CommandView, commandHeaderBytes, operations } from "../../wire/command.ts"
import { deadlineProblem, keyProblem, limits, ttlProblem, valueProblem } from "../../wire/limits.ts"
import type { WireAdmin, WireGet, WireMutate, WireRange, WireScan } from "../../wire/native.ts"

/**
 * What a request must fulfil before the store sees it: the product's limits, and that a position is one that a key has. A
 * position with a wrong slot would be a second place for the same key, which nobody ever finds again. All give the text of
 * an `InvalidRequest`, or `undefined`.
 */
export interface Caller {
  readonly namespaces: ReadonlyArray<NamespaceInfo>
  /** A node of this cluster: it alone writes what the control plane keeps, and changes ranges. */
  readonly internal: boolean
}

type Namespaces = Caller["namespaces"]

function positionProblem(position: Position, namespaces: Namespaces): string | undefined {
  if (position.length < 4) return "position is shorter than its prefix"
  const id = namespaceOf(position)
  const namespace = namespaces.find((each) => each.id === id)
  if (namespace === undefined) return `there is no namespace with id ${id}`
  if (namespace.mode !== "strong") return `namespace ${namespace.name} is not strong`
  const { partitioning } = namespace
  const problem = keyProblem(Math.max(0, position.length - prefixBytesOf(partitioning)))
  if (problem !== undefined) return problem
  if (partitioning === "hash" && !isHashPosition(position)) {
    return "position's slot is not the slot of its key"
  }
  return undefined
}

/** Of a request to an eventual namespace. */
export function eventualProblem(request: EventualRequest, caller: Caller): string | undefined {
  const namespace = caller.namespaces.find(({ id }) => id === request.namespace)
  if (namespace === undefined) return `there is no namespace with id ${request.namespace}`
  if (namespace.mode !== "eventual") return `namespace ${namespace.name} is not eventual`
  const deadline = deadlineProblem(request.deadlineMs)
  if (deadline !== undefined) return deadline
  switch (request._tag) {
    case "EventualRead":
      return keyProblem(request.key.length)
    case "EventualPage":
      return slotsProblem(request.slots) ?? pageProblem(request)
    case "EventualWrite": {
      const { change, context, key } = request
      const contextBytes = context?.length ?? 0
      if (contextBytes > tokenBytesMax) {
        return `context of ${contextBytes} bytes: limit is ${tokenBytesMax} bytes`
      }
      return keyProblem(key.length) ?? changeSizeProblem(change)
    }
    default:
      return request satisfies never
  }
}

/** Of an answer around a state: its receipt, and what frames take. */
const receiptBytesMax = 1024

/** What owners that were apart hold of a key may together be more than a frame takes. */
export function replyProblem(reply: EventualReply): string | undefined {
  const stateBytes = reply._tag === "EventualValue" ? (reply.state?.length ?? 0) : 0
  if (stateBytes <= limits.frameBytes - receiptBytesMax) return undefined
  return `the key's concurrent values have ${stateBytes} bytes: more than an answer takes`
}

function changeSizeProblem(change: EventualChange): string | undefined {
  if (change._tag === "Put") return valueProblem(change.value.length) ?? ttlProblem(change.ttlMs)
  if (change._tag !== "Add" && change._tag !== "Remove") return undefined
  const sizeBytes = change.member.length
  if (sizeBytes <= limits.keyBytes) return undefined
  return `member of ${sizeBytes} bytes: limit is ${limits.keyBytes} bytes`
}

function slotsProblem(slots: ReadonlyArray<number>): string | undefined {
  let end = 0
  for (let i = 0; i < slots.length; i += 2) {
    const [start, count] = [slots[i] as number, slots[i + 1] ?? 0]
    if (start < end || count < 1 || start + count > slotCount) {
      return `slots ${start} to ${start + count - 1} are out of order, or none`
    }
    end = start + count
  }
  return undefined
}

function pageProblem({ limit, after, prefix }: EventualPage): string | undefined {
  if (limit < 1 || limit > limits.scanPageEntries) {
    return `scan page of ${limit} entries: limit is 1 to ${limits.scanPageEntries} entries`
  }
  if (after !== undefined && (after.slot >= slotCount || after.key.length > limits.keyBytes)) {
    return `slot ${after.slot} and a key of ${after.key.length} bytes are no place to go on from`
  }
  if (prefix.length <= limits.keyBytes) return undefined
  return `prefix of ${prefix.length} bytes: limit is ${limits.keyBytes} bytes`
}

const view = new CommandView()
const batch = new BatchView()

export function mutateProblem(request: WireMutate, caller: Caller): string | undefined {
  const { command } = request
  const malformed = CommandView.problem(command)
  if (malformed !== undefined) return `command: ${malformed}`
  view.at(command, 0)
  if (view.end !== command.length) return "command: bytes after its end"
  return (
    (view.operation === operations.batch ? batchProblem(caller) : operationProblem(caller)) ??
    deadlineProblem(request.deadlineMs)
  )
}

function operationProblem({ namespaces, internal }: Caller): string | undefined {
  return (
    valueProblem(view.valueLength) ??
    valueProblem(view.expectedValueLength, "expected value") ??
    positionProblem(view.position, namespaces) ??
    writeProblem(view.position, internal)
  )
}

/** Sizes of a batch and its values are part of a well-formed command. */
function batchProblem({ namespaces, internal }: Caller): string | undefined {
  batch.begin(view.value)
  while (batch.next()) {
    const { position } = batch
    const problem = positionProblem(position, namespaces) ?? writeProblem(position, internal)
    if (problem !== undefined) return problem
  }
  return undefined
}

/** What the control plane keeps is read by anyone, and written by its procedures alone. */
function writeProblem(position: Position, internal: boolean): string | undefined {
  if (internal || namespaceOf(position) !== systemNamespace) return undefined
  return "namespace system is written by the cluster itself: use the commands for nodes, namespaces and ranges"
}

/** Bytes of the largest value in a command that `mutateProblem` found well-formed. */
export function valueBytesOf(command: Uint8Array): number {
  view.at(command, 0)
  if (view.operation !== operations.batch) return view.valueLength
  let largest = 0
  batch.begin(view.value)
  while (batch.next()) largest = Math.max(largest, batch.valueLength)
  return largest
}

export function getProblem(request: WireGet, { namespaces }: Caller): string | undefined {
  return (
    positionProblem(request.position, namespaces) ??
    freshnessProblem(request) ??
    deadlineProblem(request.deadlineMs)
  )
}

function freshnessProblem({ level, maxStalenessMs, anyReplica }: WireGet | WireScan) {
  if (level !== "bounded" && maxStalenessMs !== 0) {
    return `a staleness bound belongs to bounded reads, not to ${level} ones`
  }
  if (level !== "linearizable" && anyReplica) return `${level} reads are of any replica as it is`
  return undefined
}

/** Bounds of a scan are not keys: they may be cut short, but stay in one namespace and in order. */
export function scanProblem(request: WireScan, { namespaces }: Caller): string | undefined {
  const { lower, upper, limit, prefix } = request
  if (limit < 1 || limit > limits.scanPageEntries) {
    return `scan page of ${limit} entries: limit is 1 to ${limits.scanPageEntries} entries`
  }
  if (prefix.length > limits.keyBytes) {
    return `prefix of ${prefix.length} bytes: limit is ${limits.keyBytes} bytes`
  }
  const boundBytesMax = commandHeaderBytes + limits.keyBytes
  if (lower.length > boundBytesMax || upper.length > boundBytesMax) return "scan bound is too long"
  if (lower.length < 4) return "scan bound is shorter than a namespace id"
  const id = namespaceOf(lower)
  if (!namespaces.some((each) => each.id === id && each.mode === "strong")) {
    return `there is no strong namespace with id ${id}`
  }
  if (upper.length > 0 && compareBytes(lower, upper) > 0) return "scan bounds are out of order"
  return freshnessProblem(request) ?? deadlineProblem(request.deadlineMs)
}

export function rangeProblem(request: WireRange, { internal }: Caller): string | undefined {
  if (!internal) {
    return "ranges are changed by the cluster itself: use the commands for ranges and nodes"
  }
  return deadlineProblem(request.deadlineMs)
}

export function adminProblem(request: WireAdmin): string | undefined {
  const { deadlineMs } = request
  if (deadlineMs > 0 && deadlineMs <= limits.adminDeadlineMs) return undefined
  return `deadline of ${deadlineMs} ms: limit is above 0 and up to ${limits.adminDeadlineMs} ms`
}
