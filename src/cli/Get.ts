import { Effect } from "effect"
import { toHex } from "../lib/bytes.ts"
import { withCluster } from "./Cluster.ts"
import { Command } from "./EffectCli.ts"
import * as Flags from "./Flags.ts"
import { readArguments } from "./Input.ts"
import { negative, note, print, printBytes, printJson } from "./Output.ts"
import { jsonReceipt } from "./receipts.ts"
import { jsonBytes } from "./textBytes.ts"

export const get = Command.make(
  "get",
  {
    namespace: Flags.namespace,
    key: Flags.key,
    hex: Flags.hex,
    json: Flags.json,
    ...Flags.cluster,
  },
  Effect.fnUntraced(function* (options) {
    const { namespace, hex, json } = options
    const [key] = (yield* readArguments([{ name: "key", word: options.key }], hex)) as [Uint8Array]
    const found = yield* withCluster(options, (client) => client.get(namespace, key))
    const receipt = jsonReceipt(found.receipt)
    if (!found.found) {
      yield* json ? printJson({ found: false, receipt }) : note("not found")
      return yield* negative
    }
    const { value, version } = found
    if (json) {
      return yield* printJson({ found: true, ...jsonBytes("value", value, hex), version, receipt })
    }
    if (hex) return yield* print(toHex(value))
    yield* printBytes(value)
    if (process.stdout.isTTY) yield* print("")
  }),
).pipe(
  Command.withShortDescription("Read a key"),
  Command.withDescription(
    "Writes the value to stdout exactly as it is stored (and a newline on a terminal only). Exit code 4 when the key is absent.",
  ),
  Command.withExamples([
    { command: "kvorum get default greeting", description: "the value" },
    { command: "kvorum get default greeting --json", description: "with its version and receipt" },
  ]),
)
