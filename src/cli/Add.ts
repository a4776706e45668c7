import { Effect } from "effect"
import { withCluster } from "./Cluster.ts"
import { Argument, Command } from "./EffectCli.ts"
import * as Flags from "./Flags.ts"
import { readArguments } from "./Input.ts"
import { print, printJson, usageError } from "./Output.ts"
import { jsonReceipt } from "./receipts.ts"
import { jsonSession, noteSession, sessionFlag, sessionOption } from "./Sessions.ts"

export const add = Command.make(
  "add",
  {
    namespace: Flags.namespace,
    key: Flags.key,
    number: Argument.String("n").pipe(
      Argument.withDescription("What to add, 1 if left out"),
      Argument.withDefault("1"),
    ),
    ttl: Flags.ttl,
    session: sessionFlag,
    hex: Flags.toggle("hex", "The key on the command line is hexadecimal"),
    json: Flags.json,
    ...Flags.cluster,
  },
  Effect.fnUntraced(function* (options) {
    const { namespace, json, number } = options
    const ttl = Flags.ttlOption(options.ttl)
    if (typeof ttl === "string") return yield* usageError(ttl)
    if (!/^[+-]?\d{1,19}$/.test(number)) {
      return yield* usageError(
        `"${number}" is not a whole number of up to 64 bits, such as 5 or -5`,
      )
    }
    const words = [{ name: "key", word: options.key }]
    const [key] = (yield* readArguments(words, options.hex)) as [Uint8Array]
    const delta = BigInt(number)
    const { added, session } = yield* withCluster(
      options,
      Effect.fnUntraced(function* (client) {
        const held = yield* sessionOption(client, options.session)
        return {
          added: yield* client.add(namespace, key, delta, { ...ttl, ...held }),
          session: held,
        }
      }),
    )
    const { value, version, receipt } = added
    yield* noteSession(session, json)
    if (!json) return yield* print(`${value}`)
    // As text, because the numbers go beyond what JSON readers keep exact.
    const rest = { version, receipt: jsonReceipt(receipt), ...jsonSession(session) }
    yield* printJson({ value: `${value}`, ...rest })
  }),
).pipe(
  Command.withShortDescription("Add to a number"),
  Command.withDescription(
    "Adds a whole number to the decimal number that the key holds (0 if it is absent) in one step, exactly once however often it is retried, and prints the new value. " +
      "Numbers have 64 bits with a sign; a value that is no number, or a sum beyond that, is refused and nothing changes. Without --ttl an expiry that the key has stays.",
  ),
  Command.withExamples([
    { command: "kvorum add default visits", description: "one more" },
    { command: "kvorum add default stock -3", description: "three less" },
  ]),
)
