import { compareBytes } from "../lib/bytes.ts"
import { hashPrefixBytes, namespaceOf, orderedPrefixBytes } from "../lib/position.ts"
import type { RangeDescriptor } from "../types.ts"
import { BatchView } from "../wire/batch.ts"
import { CommandView, conditions, operations } from "../wire/command.ts"
import { keyProblem, valueProblem } from "../wire/limits.ts"
import type { DataRequest, Refusal } from "./requests.ts"

const view = new CommandView()
const batch = new BatchView()

function invalid(message: string): Refusal {
  return { _tag: "InvalidRequest", message }
}

/**
 * Why a request for a range that this node holds is not taken, or `undefined`. Everything that came from outside is checked here, once;
 * apply checks again only what may change between proposal and apply.
 */
export function refusalOf(request: DataRequest, descriptor: RangeDescriptor): Refusal | undefined {
  if (descriptor.namespace === undefined) {
    return invalid(`range ${descriptor.id} takes no data`)
  }
  switch (request._tag) {
    case "Mutate":
      return refusalOfCommand(request.command, descriptor)
    case "Get":
      return refusalOfPosition(request.position, request.boundsVersion, descriptor)
    case "Scan":
      return refusalOfInterval(request, descriptor)
    default:
      return request satisfies never
  }
}

function moved(descriptor: RangeDescriptor): Refusal {
  return { _tag: "RangeMoved", descriptors: [descriptor] }
}

function refusalOfCommand(command: Uint8Array, descriptor: RangeDescriptor): Refusal | undefined {
  const problem = CommandView.problem(command)
  if (problem !== undefined) return invalid(`command: ${problem}`)
  view.at(command, 0)
  if (view.end !== command.length) return invalid("command: bytes after its end")
  if (view.operation === operations.batch) return refusalOfBatch(descriptor)
  const tooLarge = valueProblem(Math.max(view.valueLength, view.expectedValueLength))
  if (tooLarge !== undefined) return invalid(tooLarge)
  if (view.condition !== conditions.valueEquals && view.expectedValueLength > 0) {
    return invalid("command: an expected value without its condition")
  }
  return refusalOfPosition(view.position, view.boundsVersion, descriptor)
}

/** Of the batch under the view; its sizes were looked at with its form. */
function refusalOfBatch(descriptor: RangeDescriptor): Refusal | undefined {
  const refusal = refusalOfPosition(view.position, view.boundsVersion, descriptor)
  if (refusal !== undefined) return refusal
  batch.begin(view.value)
  while (batch.next()) {
    const refused = refusalOfPosition(batch.position, view.boundsVersion, descriptor)
    // Its first key is in the range, by these very bounds: no other range has all of them.
    if (refused?._tag === "RangeMoved") return invalid("a batch's keys lie in more than one range")
    if (refused !== undefined) return refused
  }
  return undefined
}

function refusalOfPosition(
  position: Uint8Array,
  boundsVersion: number,
  descriptor: RangeDescriptor,
): Refusal | undefined {
  // Whether its slot is that of its key depends on the namespace's partitioning, which the doors know.
  if (position.length <= orderedPrefixBytes) return invalid("position is shorter than its prefix")
  const problem = keyProblem(Math.max(1, position.length - hashPrefixBytes))
  if (problem !== undefined) return invalid(problem)
  if (boundsVersion !== descriptor.boundsVersion) return moved(descriptor)
  return isInside(position, descriptor) ? undefined : moved(descriptor)
}

function isInside(position: Uint8Array, descriptor: RangeDescriptor): boolean {
  return (
    compareBytes(position, descriptor.start) >= 0 &&
    (descriptor.end.length === 0 || compareBytes(position, descriptor.end) < 0)
  )
}

function refusalOfInterval(
  request: Extract<DataRequest, { _tag: "Scan" }>,
  descriptor: RangeDescriptor,
): Refusal | undefined {
  if (request.boundsVersion !== descriptor.boundsVersion) return moved(descriptor)
  const { lower, upper } = request
  if (lower.length < 4 || namespaceOf(lower) !== descriptor.namespace) {
    return invalid("a scan begins inside its namespace")
  }
  if (!(request.limit >= 1)) return invalid("a scan asks for at least one key")
  const { start, end } = descriptor
  const inside =
    compareBytes(lower, start) >= 0 && (end.length === 0 || compareBytes(upper, end) <= 0)
  return inside ? undefined : moved(descriptor)
}
