import { Effect } from "effect"
import type { Expectation } from "../client/Client.ts"
import { withCluster } from "./Cluster.ts"
import { Command, Flag } from "./EffectCli.ts"
import * as Flags from "./Flags.ts"
import { readArguments, warnIfLarge } from "./Input.ts"
import { type CommandEnded, negative, note, print, printJson, usageError } from "./Output.ts"
import { jsonReceipt } from "./receipts.ts"

interface Expected {
  readonly expectVersion: number | undefined
  readonly expectValue: string | undefined
  readonly expectAbsent: boolean
}

/** The one condition that the flags name; its value, if any, is the third of `bytes`. */
const expectation = Effect.fnUntraced(function* (
  options: Expected,
  bytes: ReadonlyArray<Uint8Array>,
): Effect.fn.Return<Expectation, CommandEnded> {
  const { expectVersion, expectAbsent } = options
  const value = bytes[2]
  const given = [expectVersion !== undefined, value !== undefined, expectAbsent]
  if (given.filter(Boolean).length !== 1) {
    return yield* usageError("give one of --expect-version, --expect-value, --expect-absent")
  }
  if (value !== undefined) return { value }
  if (expectVersion === undefined) return { absent: true }
  if (!Number.isSafeInteger(expectVersion) || expectVersion < 0) {
    return yield* usageError(
      "--expect-version must be a version that kvorum printed, or 0 for absent",
    )
  }
  return expectVersion === 0 ? { absent: true } : { version: expectVersion }
})

export const cas = Command.make(
  "cas",
  {
    namespace: Flags.namespace,
    key: Flags.key,
    value: Flags.value,
    expectVersion: Flags.maybe(
      Flag.Int("expect-version").pipe(
        Flag.withMetavar("VERSION"),
        Flag.withDescription("The key must have this version; 0 = it must be absent"),
      ),
    ),
    expectValue: Flags.maybe(
      Flag.String("expect-value").pipe(
        Flag.withMetavar("VALUE"),
        Flag.withDescription("The key must have this value, in hexadecimal with --hex"),
      ),
    ),
    expectAbsent: Flags.toggle("expect-absent", "The key must be absent"),
    hex: Flags.hex,
    json: Flags.json,
    ...Flags.cluster,
  },
  Effect.fnUntraced(function* (options) {
    const { namespace, json } = options
    const words = [
      { name: "key", word: options.key },
      { name: "value", word: options.value },
      ...(options.expectValue === undefined
        ? []
        : [{ name: "expected value", word: options.expectValue }]),
    ]
    const bytes = yield* readArguments(words, options.hex)
    const expect = yield* expectation(options, bytes)
    const [key, value] = bytes as [Uint8Array, Uint8Array]
    yield* warnIfLarge(value)
    const { swapped, version, receipt } = yield* withCluster(options, (client) =>
      client.compareAndSet(namespace, key, { expect, value }),
    )
    if (json) yield* printJson({ swapped, version, receipt: jsonReceipt(receipt) })
    else if (swapped) yield* print(`${version}`)
    else
      yield* note(version === 0 ? "not as expected: absent" : `not as expected: version ${version}`)
    if (!swapped) yield* negative
  }),
).pipe(
  Command.withShortDescription("Write a key if it is as expected"),
  Command.withDescription(
    "Writes a key only if it is as expected, in one step, and prints its new version. Exit code 4 when the condition did not hold; " +
      "stderr then tells the present version.",
  ),
  Command.withExamples([
    {
      command: "kvorum cas default greeting --expect-version 215872439190313 hi",
      description: "if nobody has written since",
    },
    {
      command: "kvorum cas default lock --expect-absent me",
      description: "if there is no such key",
    },
  ]),
)
