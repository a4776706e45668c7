import { compareBytes } from "../../lib/bytes.ts"
import { isHashPosition, namespaceOf, prefixBytesOf } from "../../lib/position.ts"
import { systemNamespace } from "../../server/bootstrap.ts"
import type { Position } from "../../types.ts"
import type { NamespaceInfo } from "../../wire/answers.ts"
import { BatchView } from "../../wire/batch.ts"
import { CommandView, commandHeaderBytes, operations } from "../../wire/command.ts"
import { deadlineProblem, keyProblem, limits, valueProblem } from "../../wire/limits.ts"
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
