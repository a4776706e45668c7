import { Effect } from "effect"
import { withCluster } from "./Cluster.ts"
import { Command } from "./EffectCli.ts"
import * as Flags from "./Flags.ts"
import { readArguments } from "./Input.ts"
import { negative, note, print, printJson } from "./Output.ts"
import { jsonReceipt } from "./receipts.ts"

export const del = Command.make(
  "delete",
  {
    namespace: Flags.namespace,
    key: Flags.key,
    hex: Flags.hex,
    json: Flags.json,
    ...Flags.cluster,
  },
  Effect.fnUntraced(function* (options) {
    const { namespace, json } = options
    const words = [{ name: "key", word: options.key }]
    const [key] = (yield* readArguments(words, options.hex)) as [Uint8Array]
    const { existed, version, receipt } = yield* withCluster(options, (client) =>
      client.delete(namespace, key),
    )
    if (json) yield* printJson({ deleted: existed, version, receipt: jsonReceipt(receipt) })
    else yield* existed ? print(`${version}`) : note("not found")
    if (!existed) yield* negative
  }),
).pipe(
  Command.withShortDescription("Delete a key"),
  Command.withDescription(
    "Deletes a key and prints the version of the delete. Exit code 4 when the key was absent.",
  ),
  Command.withExamples([{ command: "kvorum delete default greeting", description: "one key" }]),
)
