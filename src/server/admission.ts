import { compareBytes } from "../lib/bytes.ts"
import { hashPrefixBytes, isHashPosition, namespaceOf } from "../lib/position.ts"
import type { RangeDescriptor } from "../types.ts"
import { CommandView, conditions } from "../wire/command.ts"
import { keyProblem, valueProblem } from "../wire/limits.ts"
import { systemNamespace } from "./bootstrap.ts"
import type { Refusal, Request } from "./requests.ts"

const view = new CommandView()

function invalid(message: string): Refusal {
  return { _tag: "InvalidRequest", message }
}

/**
 * Why a request for a range that this node holds is not taken, or `undefined`. Everything that came from outside is checked here, once;
 * apply checks again only what may change between proposal and apply.
 */
export function refusalOf(request: Request, descriptor: RangeDescriptor): Refusal | undefined {
  if (descriptor.namespace === undefined || descriptor.namespace === systemNamespace) {
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
  const tooLarge = valueProblem(Math.max(view.valueLength, view.expectedValueLength))
  if (tooLarge !== undefined) return invalid(tooLarge)
  if (view.condition !== conditions.valueEquals && view.expectedValueLength > 0) {
    return invalid("command: an expected value without its condition")
  }
  return refusalOfPosition(view.position, view.boundsVersion, descriptor)
}

function refusalOfPosition(
  position: Uint8Array,
  boundsVersion: number,
  descriptor: RangeDescriptor,
): Refusal | undefined {
  const problem = keyProblem(Math.max(0, position.length - hashPrefixBytes))
  if (problem !== undefined) return invalid(problem)
  if (boundsVersion !== descriptor.boundsVersion) return moved(descriptor)
  if (!isHashPosition(position)) return invalid("the slot of a position is not that of its key")
  return isInside(position, descriptor) ? undefined : moved(descriptor)
}

function isInside(position: Uint8Array, descriptor: RangeDescriptor): boolean {
  return (
    compareBytes(position, descriptor.start) >= 0 &&
    (descriptor.end.length === 0 || compareBytes(position, descriptor.end) < 0)
  )
}

function refusalOfInterval(
  request: Extract<Request, { _tag: "Scan" }>,
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
