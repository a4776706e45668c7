import { Effect } from "effect"
import { toHex } from "../lib/bytes.ts"
import { withCluster } from "./Cluster.ts"
import { parseConsistency } from "./Durations.ts"
import { Command } from "./EffectCli.ts"
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
    session: sessionFlag,
    hex: Flags.hex,
    json: Flags.json,
    ...Flags.cluster,
  },
  Effect.fnUntraced(function* (options) {
    const { namespace, hex, json } = options
    const level = parseConsistency(options.consistency)
    if (typeof level === "string") return yield* usageError(level)
    const [key] = (yield* readArguments([{ name: "key", word: options.key }], hex)) as [Uint8Array]
    const { found, session } = yield* withCluster(
      options,
      Effect.fnUntraced(function* (client) {
        const held = yield* sessionOption(client, options.session)
        return { found: yield* client.get(namespace, key, { ...level, ...held }), session: held }
      }),
    )
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
      "with --session both show at least what the session has written and seen.",
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
