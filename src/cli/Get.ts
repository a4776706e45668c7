import { Effect } from "effect"
import { toHex } from "../lib/bytes.ts"
import { withCluster } from "./Cluster.ts"
import { parseConsistency } from "./Durations.ts"
import { Command } from "./EffectCli.ts"
import { eventualOptions, readOptions, showFound, strongWords } from "./EventualKeys.ts"
import * as Flags from "./Flags.ts"
import { readArguments } from "./Input.ts"
import { negative, note, print, printBytes, printJson, usageError } from "./Output.ts"
import { jsonReceipt } from "./receipts.ts"
import { jsonSession, noteSession, sessionFlag, sessionOption } from "./Sessions.ts"
import { jsonBytes } from "./textBytes.ts"

export const get = Command.make(
  "get",
  {
    namespace: Flags.namespace,
    key: Flags.key,
    consistency: Flags.consistency,
    explain: Flags.toggle("explain", "Of an eventual namespace: say on stderr how it was read"),
    session: sessionFlag,
    hex: Flags.hex,
    json: Flags.json,
    ...Flags.cluster,
  },
  Effect.fnUntraced(function* (options) {
    const { namespace, hex, json } = options
    const [key] = (yield* readArguments([{ name: "key", word: options.key }], hex)) as [Uint8Array]
    const outcome = yield* withCluster(
      options,
      Effect.fnUntraced(function* (client) {
        const within = yield* client.namespace(namespace)
        if (within.mode === "eventual") {
          const how = readOptions(yield* eventualOptions(within, options))
          return { eventual: yield* client.eventual.get(namespace, key, how) }
        }
        yield* strongWords(within, options)
        const level = parseConsistency(options.consistency ?? "linearizable")
        if (typeof level === "string") return yield* usageError(level)
        const held = yield* sessionOption(client, options.session)
        return { found: yield* client.get(namespace, key, { ...level, ...held }), session: held }
      }),
    )
    if ("eventual" in outcome) return yield* showFound(outcome.eventual, options)
    const { found, session } = outcome
    const receipt = jsonReceipt(found.receipt)
    yield* noteSession(session, json)
    if (!found.found) {
      const answer = { found: false, receipt, ...jsonSession(session) }
      yield* json ? printJson(answer) : note("not found")
      return yield* negative
    }
    const { value, version } = found
    if (json) {
      const shown = jsonBytes("value", value, hex)
      return yield* printJson({ found: true, ...shown, version, receipt, ...jsonSession(session) })
    }
    if (hex) return yield* print(toHex(value))
    yield* printBytes(value)
    if (process.stdout.isTTY) yield* print("")
  }),
).pipe(
  Command.withShortDescription("Read a key"),
  Command.withDescription(
    "Writes the value to stdout exactly as it is stored (and a newline on a terminal only). Exit code 4 when the key is absent. " +
      "A linearizable read sees every write acknowledged before it. bounded:500ms is answered by any replica that knows its state to be at most so old, local by any replica as it is; " +
      "with --session both show at least what the session has written and seen. " +
      "In an eventual namespace it prints a line for each value that no write has replaced, for each member of a set, or the number of a counter; --json adds the context to write back with, and the receipt.",
  ),
  Command.withExamples([
    { command: "kvorum get default greeting", description: "the value" },
    { command: "kvorum get default greeting --json", description: "with its version and receipt" },
    {
      command: "kvorum get default greeting --consistency bounded:500ms",
      description: "from any replica, at most half a second old",
    },
    {
      command: "kvorum get default greeting --consistency local --session new",
      description: "from any replica; begins a session",
    },
  ]),
)
