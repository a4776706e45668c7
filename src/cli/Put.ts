import { Effect } from "effect"
import type { PutOptions } from "../client/Client.ts"
import { withCluster } from "./Cluster.ts"
import { Command } from "./EffectCli.ts"
import { eventualOptions, putEventual, showWritten, strongWords } from "./EventualKeys.ts"
import * as Flags from "./Flags.ts"
import { readArguments, warnIfLarge } from "./Input.ts"
import { negative, note, print, printJson, usageError } from "./Output.ts"
import { jsonReceipt } from "./receipts.ts"
import { jsonSession, noteSession, sessionFlag, sessionOption } from "./Sessions.ts"

export const put = Command.make(
  "put",
  {
    namespace: Flags.namespace,
    key: Flags.key,
    value: Flags.value,
    ttl: Flags.ttl,
    ifAbsent: Flags.toggle("if-absent", "Write only if there is no such key; else exit code 4"),
    consistency: Flags.eventualConsistency,
    context: Flags.context,
    strict: Flags.strict,
    session: sessionFlag,
    hex: Flags.hex,
    json: Flags.json,
    ...Flags.cluster,
  },
  Effect.fnUntraced(function* (options) {
    const { namespace, json, ifAbsent } = options
    const ttl = Flags.ttlOption(options.ttl)
    if (typeof ttl === "string") return yield* usageError(ttl)
    const words = [
      { name: "key", word: options.key },
      { name: "value", word: options.value },
    ]
    const [key, value] = (yield* readArguments(words, options.hex)) as [Uint8Array, Uint8Array]
    yield* warnIfLarge(value)
    const outcome = yield* withCluster(
      options,
      Effect.fnUntraced(function* (client) {
        const found = yield* client.namespace(namespace)
        if (found.mode === "eventual") {
          const how = { ...ttl, ...(yield* eventualOptions(found, options)) }
          return { eventual: yield* putEventual(client, found, { key, value, options: how }) }
        }
        yield* strongWords(found, options)
        const held = yield* sessionOption(client, options.session)
        const putOptions: PutOptions = { ...ttl, ...held, ifAbsent }
        return { result: yield* client.put(namespace, key, value, putOptions), session: held }
      }),
    )
    if ("eventual" in outcome) return yield* showWritten(outcome.eventual, json)
    const { result, session } = outcome
    const { written, version, receipt } = result
    yield* noteSession(session, json)
    if (json) {
      const said = ifAbsent ? { written } : {}
      const rest = { version, receipt: jsonReceipt(receipt), ...jsonSession(session) }
      yield* printJson({ ...said, ...rest })
    } else if (written) yield* print(`${version}`)
    else yield* note(`there is such a key: version ${version}`)
    if (!written) yield* negative
  }),
).pipe(
  Command.withShortDescription("Write a key"),
  Command.withDescription(
    "Writes a key and prints its new version. In an eventual namespace a write without --context replaces nothing that others wrote: where nobody has seen both, both stay (siblings). Put -- before arguments that begin with a dash. With --ttl the key is absent again once so much time has passed.",
  ),
  Command.withExamples([
    { command: "kvorum put default greeting hello", description: "text" },
    {
      command: "kvorum put notes a one --consistency quorum",
      description: "in an eventual namespace",
    },
    { command: "kvorum put default picture - < picture.png", description: "the bytes of a file" },
    { command: "kvorum put default --hex 00ff 6869", description: "key 00 ff, value `hi`" },
    {
      command: "kvorum put default lock me --if-absent --ttl 30s",
      description: "unless somebody has it; gone after half a minute",
    },
  ]),
)
