import { compareBytes } from "../../lib/bytes.ts"
import { hashPrefixBytes, isHashPosition, namespaceOf } from "../../lib/position.ts"
import type { Position } from "../../types.ts"
import type { NamespaceInfo } from "../../wire/answers.ts"
import { CommandView, commandHeaderBytes } from "../../wire/command.ts"
import { deadlineProblem, keyProblem, limits, valueProblem } from "../../wire/limits.ts"
import type { WireGet, WireMutate, WireScan } from "../../wire/native.ts"

/**
 * What a request must fulfil before the store sees it: the product's limits, and that a position is one that a key has. A
 * position with a wrong slot would be a second place for the same key, which nobody ever finds again. All give the text of
 * an `InvalidRequest`, or `undefined`.
 */
type Namespaces = ReadonlyArray<NamespaceInfo>

function positionProblem(position: Position, namespaces: Namespaces): string | undefined {
  if (position.length < hashPrefixBytes) return "position is shorter than its prefix"
  const problem = keyProblem(position.length - hashPrefixBytes)
  if (problem !== undefined) return problem
  const id = namespaceOf(position)
  const namespace = namespaces.find((each) => each.id === id)
  if (namespace === undefined) return `there is no namespace with id ${id}`
  if (namespace.mode !== "strong") return `namespace ${namespace.name} is not strong`
  if (namespace.partitioning === "hash" && !isHashPosition(position)) {
    return "position's slot is not the slot of its key"
  }
  return undefined
}

const view = new CommandView()

export function mutateProblem(request: WireMutate, namespaces: Namespaces): string | undefined {
  const { command } = request
  const malformed = CommandView.problem(command)
  if (malformed !== undefined) return `command: ${malformed}`
  view.at(command, 0)
  if (view.end !== command.length) return "command: bytes after its end"
  return (
    valueProblem(view.valueLength) ??
    valueProblem(view.expectedValueLength, "expected value") ??
    positionProblem(view.position, namespaces) ??
    deadlineProblem(request.deadlineMs)
  )
}

/** Bytes of the value in a command that `mutateProblem` found well-formed. */
export function valueBytesOf(command: Uint8Array): number {
  view.at(command, 0)
  return view.valueLength
}

export function getProblem(request: WireGet, namespaces: Namespaces): string | undefined {
  return positionProblem(request.position, namespaces) ?? deadlineProblem(request.deadlineMs)
}

/** Bounds of a scan are not keys: they may be cut short, but stay in one namespace and in order. */
export function scanProblem(request: WireScan, namespaces: Namespaces): string | undefined {
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
  return deadlineProblem(request.deadlineMs)
}
