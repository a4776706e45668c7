import { Effect, Option } from "effect"
import { withCluster } from "./Cluster.ts"
import { Argument, Command } from "./EffectCli.ts"
import { addEventual, eventualOptions, showWritten, strongWords } from "./EventualKeys.ts"
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
    what: Argument.String("n").pipe(
      Argument.withDescription("What to add: a number, 1 if left out; of a set: the member"),
      Argument.optional,
      Argument.map(Option.getOrUndefined),
    ),
    consistency: Flags.eventualConsistency,
    context: Flags.context,
    strict: Flags.strict,
    ttl: Flags.ttl,
    session: sessionFlag,
    hex: Flags.toggle("hex", "The key, and a member, on the command line are hexadecimal"),
    json: Flags.json,
    ...Flags.cluster,
  },
  Effect.fnUntraced(function* (options) {
    const { namespace, json, what } = options
    const ttl = Flags.ttlOption(options.ttl)
    if (typeof ttl === "string") return yield* usageError(ttl)
    const words = [{ name: "key", word: options.key }]
    const [key] = (yield* readArguments(words, options.hex)) as [Uint8Array]
    const outcome = yield* withCluster(
      options,
      Effect.fnUntraced(function* (client) {
        const found = yield* client.namespace(namespace)
        if (found.mode === "eventual") {
          const how = { ...ttl, ...(yield* eventualOptions(found, options)) }
          const isSet = found.eventual?.conflict === "set" && what !== undefined
          const words = isSet ? [{ name: "member", word: what }] : []
          const [member] = yield* readArguments(words, options.hex)
          return {
            eventual: yield* addEventual(client, found, { key, word: what, member, options: how }),
          }
        }
        yield* strongWords(found, options)
        const number = what ?? "1"
        if (!/^[+-]?\d{1,19}$/.test(number)) {
          return yield* usageError(
            `"${number}" is not a whole number of up to 64 bits, such as 5 or -5`,
          )
        }
        const delta = BigInt(number)
        const held = yield* sessionOption(client, options.session)
        return {
          added: yield* client.add(namespace, key, delta, { ...ttl, ...held }),
          session: held,
        }
      }),
    )
    if ("eventual" in outcome) return yield* showWritten(outcome.eventual, json)
    const { added, session } = outcome
    const { value, version, receipt } = added
    yield* noteSession(session, json)
    if (!json) return yield* print(`${value}`)
    // As text, because the numbers go beyond what JSON readers keep exact.
    const rest = { version, receipt: jsonReceipt(receipt), ...jsonSession(session) }
    yield* printJson({ value: `${value}`, ...rest })
  }),
).pipe(
  Command.withShortDescription("Add to a number, or to a set"),
  Command.withDescription(
    "Adds a whole number to the decimal number that the key holds (0 if it is absent) in one step, exactly once however often it is retried, and prints the new value. " +
      "Numbers have 64 bits with a sign; a value that is no number, or a sum beyond that, is refused and nothing changes. Without --ttl an expiry that the key has stays. In an eventual namespace it adds to a counter (--conflict crdt:counter), or a member to a set (crdt:set).",
  ),
  Command.withExamples([
    { command: "kvorum add default visits", description: "one more" },
    { command: "kvorum add default stock -3", description: "three less" },
    { command: "kvorum add carts cart1 iPhone", description: "a member of a set" },
  ]),
)
