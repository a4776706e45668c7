import { Effect } from "effect"
import type { AtomicResult, BatchResult, EventualBatchResult } from "../client/Client.ts"
import { toHex } from "../lib/bytes.ts"
import { type BatchLine, parseBatch } from "./batchLines.ts"
import { type ClusterFlags, withCluster } from "./Cluster.ts"
import { Command } from "./EffectCli.ts"
import { batchEventual, eventualResultOf, strongLineProblem } from "./EventualBatch.ts"
import * as Flags from "./Flags.ts"
import { readStdin } from "./Input.ts"
import { CommandEnded, exitCodes, negative, note, print, printJson, usageError } from "./Output.ts"
import { jsonReceipt } from "./receipts.ts"
import { exactText, jsonBytes, lineText } from "./textBytes.ts"

/** Of the file, not of the batch: hexadecimal takes twice the bytes, and field names some more. */
const inputBytesMax = 32 * 1024 * 1024

type StrongLine = Exclude<BatchLine, { op: "addMember" | "remove" }>
type AnyResult = BatchResult | EventualBatchResult

function resultOf(line: BatchLine, result: BatchResult, hex: boolean) {
  const head = { op: line.op, ...jsonBytes("key", line.key, hex) }
  if (!result.ok) return { ...head, error: result.error._tag, message: result.error.message }
  const { version, receipt } = result
  const deleted = line.op === "delete" ? { deleted: result.existed } : {}
  const sum = result.value === undefined ? {} : { value: `${result.value}` }
  return { ...head, ...deleted, ...sum, version, receipt: jsonReceipt(receipt) }
}

/** Why nothing was done, in words: `operation 2 of 3 (put a): not as expected: version 7`. */
function obstacle(
  lines: ReadonlyArray<BatchLine>,
  result: AtomicResult & { readonly applied: false },
  hex: boolean,
): string {
  const { failed, reason, version } = result
  const { op, key } = lines[failed] as BatchLine
  const name = `operation ${failed + 1} of ${lines.length} (${op} ${hex ? toHex(key) : lineText(key)})`
  if (reason === "notNumber") {
    return `nothing was done: ${name}: the value, version ${version}, is no decimal number of 64 bits, or the sum is none`
  }
  const found = version === 0 ? "absent" : `version ${version}`
  return `nothing was done: ${name}: not as expected: ${found}`
}

/** The worst of all results: unknown, then refused, then absent. */
function exitCodeOf(lines: ReadonlyArray<BatchLine>, results: ReadonlyArray<AnyResult>): number {
  const errors = results.flatMap((result) => (result.ok ? [] : [result.error._tag]))
  if (errors.includes("OutcomeUnknown")) return exitCodes.outcomeUnknown
  if (errors.length > 0) return exitCodes.refused
  const absent = results.some(
    (result, i) => lines[i]?.op === "delete" && result.ok && "existed" in result && !result.existed,
  )
  return absent ? exitCodes.negative : exitCodes.done
}

function summaryOf(results: ReadonlyArray<AnyResult>): string | undefined {
  const counts = new Map<string, number>()
  for (const result of results) {
    if (!result.ok) counts.set(result.error._tag, (counts.get(result.error._tag) ?? 0) + 1)
  }
  if (counts.size === 0) return undefined
  return [...counts]
    .map(([name, count]) => `${name}: ${count} of ${results.length} operations`)
    .join(", ")
}

/** One line for the whole batch. */
const runAtomic = Effect.fnUntraced(function* (
  options: BatchOptions,
  lines: ReadonlyArray<BatchLine>,
) {
  const { namespace, hex, json } = options
  const result = yield* withCluster(options, (client) =>
    client.atomicBatch(namespace, lines as ReadonlyArray<StrongLine>),
  )
  const { version, receipt } = result
  if (result.applied) {
    const answer = { applied: true, version, receipt: jsonReceipt(receipt) }
    return yield* json ? printJson(answer) : print(`${version}`)
  }
  const { failed, reason } = result
  if (json) {
    yield* printJson({ applied: false, failed, reason, version, receipt: jsonReceipt(receipt) })
  } else yield* note(obstacle(lines, result, hex))
  yield* negative
})

const runEach = Effect.fnUntraced(function* (
  options: BatchOptions,
  lines: ReadonlyArray<BatchLine>,
) {
  const { namespace, hex, json } = options
  const { results, shown } = yield* withCluster(
    options,
    Effect.fnUntraced(function* (client) {
      const found = yield* client.namespace(namespace)
      if (found.mode === "eventual") {
        const results = yield* batchEventual(client, found, lines)
        const shown = results.map((each, i) => eventualResultOf(lines[i] as BatchLine, each, hex))
        return { results, shown }
      }
      const problem = strongLineProblem(lines)
      if (problem !== undefined) return yield* problem
      const results = yield* client.batch(namespace, lines as ReadonlyArray<StrongLine>)
      const shown = results.map((each, i) => resultOf(lines[i] as BatchLine, each, hex))
      return { results, shown }
    }),
  )
  if (json) yield* printJson({ results: shown })
  else yield* Effect.forEach(shown, (each) => print(JSON.stringify(each)), { discard: true })
  const code = exitCodeOf(lines, results)
  if (code !== exitCodes.done) {
    return yield* new CommandEnded({ code, message: summaryOf(results) })
  }
})

interface BatchOptions extends ClusterFlags {
  readonly namespace: string
  readonly hex: boolean
  readonly json: boolean
}

export const batch = Command.make(
  "batch",
  {
    namespace: Flags.namespace,
    atomic: Flags.toggle("atomic", "All operations at one moment, or none; all keys in one range"),
    hex: Flags.hex,
    json: Flags.json,
    ...Flags.cluster,
  },
  Effect.fnUntraced(function* (options) {
    const { atomic } = options
    const source = exactText(yield* readStdin(inputBytesMax, "a batch file"))
    if (source === undefined) return yield* usageError("stdin is not UTF-8")
    const lines = parseBatch(source, { atomic })
    if (typeof lines === "string") return yield* usageError(lines)
    yield* (atomic ? runAtomic : runEach)(options, lines)
  }),
).pipe(
  Command.withShortDescription("Carry out operations from stdin"),
  Command.withDescription(
    'Reads operations from stdin, one JSON object a line: {"op":"put","key":"a","value":"b"}, {"op":"delete","key":"a"} or {"op":"add","key":"a","delta":2}, with keyHex and valueHex for ' +
      'bytes that are no text, and "ttlMs":30000 for a value that expires. At most 1,000 operations and 4 MiB. A bad line refuses the whole file before anything is sent. ' +
      "Without --atomic each operation has its own result, a line of JSON in the order of the input; operations of the same key happen in order; exit code: that of the worst result. " +
      'With --atomic all happen at one moment, or none: each key may be named once, and a line may have a condition, "ifAbsent":true, "ifVersion":N or "ifValue":"x", judged before the batch. ' +
      "When one does not hold, nothing changes, stderr says which, and the exit code is 4. The keys must lie in one range: in a hash namespace a common tag, such as {user1}:name and {user1}:mail, keeps " +
      'them together. In an eventual namespace there is no --atomic; an add may name a number or a member of a set, {"op":"remove","key":"cart1","member":"iPhone"} takes one out, and puts and deletes may have a "context".',
  ),
  Command.withExamples([
    { command: "kvorum batch default < operations.jsonl", description: "results on stdout" },
    { command: "kvorum batch default --atomic < transfer.jsonl", description: "all or nothing" },
  ]),
)
