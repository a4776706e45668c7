import type { Effect } from "effect"
import type { ClientShape, EventualBatchOperation, EventualBatchResult } from "../client/Client.ts"
import { type KvorumError, NotSupportedInMode } from "../Errors.ts"
import type { NamespaceInfo } from "../wire/answers.ts"
import type { BatchLine } from "./batchLines.ts"
import { jsonEventualReceipt } from "./eventualLines.ts"
import { jsonBytes } from "./textBytes.ts"

/** Lines of a batch in an eventual namespace, carried out one by one. */
export const batchEventual = (
  client: ClientShape,
  namespace: NamespaceInfo,
  lines: ReadonlyArray<BatchLine>,
): Effect.Effect<ReadonlyArray<EventualBatchResult>, KvorumError> =>
  client.eventual.batch(namespace.name, lines.map(operationOf))

function operationOf(line: BatchLine): EventualBatchOperation {
  const { key } = line
  const context = line.context === undefined ? {} : { context: line.context }
  switch (line.op) {
    case "put": {
      const ttl = line.ttlMs === undefined ? {} : { ttlMs: line.ttlMs }
      return { op: "put", key, value: line.value, ...ttl, ...context }
    }
    case "delete":
      return { op: "delete", key, ...context }
    case "add":
      return { op: "increment", key, delta: line.delta }
    case "addMember":
      return { op: "add", key, member: line.member }
    case "remove":
      return { op: "remove", key, member: line.member }
    default:
      return line satisfies never
  }
}

export function eventualResultOf(line: BatchLine, result: EventualBatchResult, hex: boolean) {
  const op = line.op === "addMember" ? "add" : line.op
  const head = { op, ...jsonBytes("key", line.key, hex) }
  if (!result.ok) return { ...head, error: result.error._tag, message: result.error.message }
  const value = result.counter === undefined ? {} : { value: `${result.counter}` }
  return { ...head, ...value, receipt: jsonEventualReceipt(result.receipt) }
}

/** Why a line is none of a strong namespace, or `undefined`. */
export function strongLineProblem(lines: ReadonlyArray<BatchLine>): NotSupportedInMode | undefined {
  const odd = lines.find(
    ({ op, context }) => op === "addMember" || op === "remove" || context !== undefined,
  )
  if (odd === undefined) return undefined
  const what = odd.context === undefined ? "members of sets" : "contexts"
  return new NotSupportedInMode({
    detail: `${what} are for eventual namespaces; this one is strong`,
  })
}
