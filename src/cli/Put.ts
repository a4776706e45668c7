import { Effect } from "effect"
import { withCluster } from "./Cluster.ts"
import { Command } from "./EffectCli.ts"
import * as Flags from "./Flags.ts"
import { readArguments, warnIfLarge } from "./Input.ts"
import { print, printJson } from "./Output.ts"
import { jsonReceipt } from "./receipts.ts"

export const put = Command.make(
  "put",
  {
    namespace: Flags.namespace,
    key: Flags.key,
    value: Flags.value,
    hex: Flags.hex,
    json: Flags.json,
    ...Flags.cluster,
  },
  Effect.fnUntraced(function* (options) {
    const { namespace, json } = options
    const words = [
      { name: "key", word: options.key },
      { name: "value", word: options.value },
    ]
    const [key, value] = (yield* readArguments(words, options.hex)) as [Uint8Array, Uint8Array]
    yield* warnIfLarge(value)
    const { version, receipt } = yield* withCluster(options, (client) =>
      client.put(namespace, key, value),
    )
    yield* json ? printJson({ version, receipt: jsonReceipt(receipt) }) : print(`${version}`)
  }),
).pipe(
  Command.withShortDescription("Write a key"),
  Command.withDescription(
    "Writes a key and prints its new version. Put -- before arguments that begin with a dash.",
  ),
  Command.withExamples([
    { command: "kvorum put default greeting hello", description: "text" },
    { command: "kvorum put default picture - < picture.png", description: "the bytes of a file" },
    { command: "kvorum put default --hex 00ff 6869", description: "key 00 ff, value `hi`" },
  ]),
)
