import { Effect } from "effect"
import { withCluster } from "./Cluster.ts"
import { Argument, Command } from "./EffectCli.ts"
import { eventualOptions, showWritten } from "./EventualKeys.ts"
import * as Flags from "./Flags.ts"
import { readArguments } from "./Input.ts"

export const remove = Command.make(
  "remove",
  {
    namespace: Flags.namespace,
    key: Flags.key,
    member: Argument.String("member").pipe(
      Argument.withDescription(
        "What to take out: text, hexadecimal with --hex, or - for the bytes of stdin",
      ),
    ),
    consistency: Flags.eventualConsistency,
    context: Flags.context,
    strict: Flags.strict,
    hex: Flags.hex,
    json: Flags.json,
    ...Flags.cluster,
  },
  Effect.fnUntraced(function* (options) {
    const words = [
      { name: "key", word: options.key },
      { name: "member", word: options.member },
    ]
    const [key, member] = (yield* readArguments(words, options.hex)) as [Uint8Array, Uint8Array]
    const written = yield* withCluster(
      options,
      Effect.fnUntraced(function* (client) {
        const namespace = yield* client.namespace(options.namespace)
        const how = yield* eventualOptions(namespace, options)
        return yield* client.eventual.remove(namespace.name, key, member, how)
      }),
    )
    yield* showWritten(written, options.json)
  }),
).pipe(
  Command.withShortDescription("Take a member out of a set"),
  Command.withDescription(
    "Takes a member out of a set of an eventual namespace (--conflict crdt:set). What is removed is what the coordinator has, or with --context what was read then: an add that nobody of those has seen stays.",
  ),
  Command.withExamples([{ command: "kvorum remove carts cart1 iPhone", description: "one item" }]),
)
