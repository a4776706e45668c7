import { Effect } from "effect"
import type { BatchResult } from "../client/Client.ts"
import { type BatchLine, parseBatch } from "./batchLines.ts"
import { withCluster } from "./Cluster.ts"
import { Command } from "./EffectCli.ts"
import * as Flags from "./Flags.ts"
import { readStdin } from "./Input.ts"
import { CommandEnded, exitCodes, print, printJson, usageError } from "./Output.ts"
import { jsonReceipt } from "./receipts.ts"
import { exactText, jsonBytes } from "./textBytes.ts"

/** Of the file, not of the batch: hexadecimal takes twice the bytes, and field names some more. */
const inputBytesMax = 32 * 1024 * 1024

function resultOf(line: BatchLine, result: BatchResult, hex: boolean) {
  const head = { op: line.op, ...jsonBytes("key", line.key, hex) }
  if (!result.ok) return { ...head, error: result.error._tag, message: result.error.message }
  const { version, receipt } = result
  const deleted = line.op === "delete" ? { deleted: result.existed } : {}
  return { ...head, ...deleted, version, receipt: jsonReceipt(receipt) }
}

/** The worst of all results: unknown, then refused, then absent. */
function exitCodeOf(lines: ReadonlyArray<BatchLine>, results: ReadonlyArray<BatchResult>): number {
  const errors = results.flatMap((result) => (result.ok ? [] : [result.error._tag]))
  if (errors.includes("OutcomeUnknown")) return exitCodes.outcomeUnknown
  if (errors.length > 0) return exitCodes.refused
  const absent = results.some(
    (result, i) => lines[i]?.op === "delete" && result.ok && !result.existed,
  )
  return absent ? exitCodes.negative : exitCodes.done
}

function summaryOf(results: ReadonlyArray<BatchResult>): string | undefined {
  const counts = new Map<string, number>()
  for (const result of results) {
    if (!result.ok) counts.set(result.error._tag, (counts.get(result.error._tag) ?? 0) + 1)
  }
  if (counts.size === 0) return undefined
  return [...counts]
    .map(([name, count]) => `${name}: ${count} of ${results.length} operations`)
    .join(", ")
}

export const batch = Command.make(
  "batch",
  { namespace: Flags.namespace, hex: Flags.hex, json: Flags.json, ...Flags.cluster },
  Effect.fnUntraced(function* (options) {
    const { namespace, hex, json } = options
    const source = exactText(yield* readStdin(inputBytesMax, "a batch file"))
    if (source === undefined) return yield* usageError("stdin is not UTF-8")
    const lines = parseBatch(source)
    if (typeof lines === "string") return yield* usageError(lines)
    const results = yield* withCluster(options, (client) => client.batch(namespace, lines))
    const shown = results.map((result, i) => resultOf(lines[i] as BatchLine, result, hex))
    if (json) yield* printJson({ results: shown })
    else yield* Effect.forEach(shown, (each) => print(JSON.stringify(each)), { discard: true })
    const code = exitCodeOf(lines, results)
    if (code !== exitCodes.done) {
      return yield* new CommandEnded({ code, message: summaryOf(results) })
    }
  }),
).pipe(
  Command.withShortDescription("Carry out operations from stdin"),
  Command.withDescription(
    'Reads operations from stdin, one JSON object a line: {"op":"put","key":"a","value":"b"} or {"op":"delete","key":"a"}, with keyHex and valueHex for ' +
      "bytes that are no text. At most 1,000 operations and 4 MiB. A bad line refuses the whole file before anything is sent; otherwise each operation has its own result, a line of " +
      "JSON in the order of the input. Not atomic. Operations of the same key happen in order. Exit code: that of the worst result.",
  ),
  Command.withExamples([
    { command: "kvorum batch default < operations.jsonl", description: "results on stdout" },
  ]),
)
