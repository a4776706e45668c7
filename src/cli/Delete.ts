import { Effect } from "effect"
import { withCluster } from "./Cluster.ts"
import { Command } from "./EffectCli.ts"
import { deleteEventual, eventualOptions, showWritten, strongWords } from "./EventualKeys.ts"
import * as Flags from "./Flags.ts"
import { readArguments } from "./Input.ts"
import { negative, note, print, printJson } from "./Output.ts"
import { jsonReceipt } from "./receipts.ts"

export const del = Command.make(
  "delete",
  {
    namespace: Flags.namespace,
    key: Flags.key,
    consistency: Flags.eventualConsistency,
    context: Flags.context,
    strict: Flags.strict,
    hex: Flags.hex,
    json: Flags.json,
    ...Flags.cluster,
  },
  Effect.fnUntraced(function* (options) {
    const { namespace, json } = options
    const words = [{ name: "key", word: options.key }]
    const [key] = (yield* readArguments(words, options.hex)) as [Uint8Array]
    const outcome = yield* withCluster(
      options,
      Effect.fnUntraced(function* (client) {
        const found = yield* client.namespace(namespace)
        if (found.mode === "eventual") {
          const how = yield* eventualOptions(found, options)
          return { eventual: yield* deleteEventual(client, found, { key, options: how }) }
        }
        yield* strongWords(found, options)
        return yield* client.delete(namespace, key)
      }),
    )
    if ("eventual" in outcome) {
      if (outcome.eventual !== undefined) return yield* showWritten(outcome.eventual, json)
      yield* json ? printJson({ deleted: false }) : note("not found")
      return yield* negative
    }
    const { existed, version, receipt } = outcome
    if (json) yield* printJson({ deleted: existed, version, receipt: jsonReceipt(receipt) })
    else yield* existed ? print(`${version}`) : note("not found")
    if (!existed) yield* negative
  }),
).pipe(
  Command.withShortDescription("Delete a key"),
  Command.withDescription(
    "Deletes a key and prints the version of the delete. Exit code 4 when the key was absent. In an eventual namespace it deletes what --context has seen; without one it reads the key first, and deletes what that shows.",
  ),
  Command.withExamples([{ command: "kvorum delete default greeting", description: "one key" }]),
)
