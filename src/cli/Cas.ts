import { Effect } from "effect"
import type { Expectation } from "../client/Client.ts"
import { withCluster } from "./Cluster.ts"
import { Command, Flag } from "./EffectCli.ts"
import * as Flags from "./Flags.ts"
import { readArguments, warnIfLarge } from "./Input.ts"
import { CommandEnded, negative, note, print, printJson, usageError } from "./Output.ts"
import { jsonReceipt } from "./receipts.ts"

/** The condition that `--expect-version` stands for. A key that is absent has version 0, in what `cas` prints as well. */
function expectation(version: number): Expectation | CommandEnded {
  if (!Number.isSafeInteger(version) || version < 0) {
    return usageError("--expect-version must be a version that kvorum printed, or 0 for absent")
  }
  return version === 0 ? { absent: true } : { version }
}

export const cas = Command.make(
  "cas",
  {
    namespace: Flags.namespace,
    key: Flags.key,
    value: Flags.value,
    expectVersion: Flag.Int("expect-version").pipe(
      Flag.withMetavar("VERSION"),
      Flag.withDescription("The key must have this version; 0 means that it must be absent"),
    ),
    hex: Flags.hex,
    json: Flags.json,
    ...Flags.cluster,
  },
  Effect.fnUntraced(function* (options) {
    const { namespace, json } = options
    const expect = expectation(options.expectVersion)
    if (expect instanceof CommandEnded) return yield* expect
    const words = [
      { name: "key", word: options.key },
      { name: "value", word: options.value },
    ]
    const [key, value] = (yield* readArguments(words, options.hex)) as [Uint8Array, Uint8Array]
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
  Command.withShortDescription("Write a key if nobody has since"),
  Command.withDescription(
    "Writes a key only if it has the version expected, in one step, and prints its new version. Exit code 4 when it has another; " +
      "stderr then tells which.",
  ),
  Command.withExamples([
    {
      command: "kvorum cas default greeting --expect-version 215872439190313 hi",
      description: "if nobody has written since",
    },
    {
      command: "kvorum cas default lock --expect-version 0 me",
      description: "if there is no such key",
    },
  ]),
)
