import { Effect } from "effect"
import { limits } from "../wire/limits.ts"
import { type CommandEnded, note, usageError } from "./Output.ts"
import { argumentBytes } from "./textBytes.ts"

/**
 * The bytes of stdin as they are; refused beyond `limitBytes`, so that a wrong pipe does not fill the memory. `slackBytes` more are let through, for somebody
 * else to refuse.
 */
export const readStdin = (
  limitBytes: number,
  what: string,
  slackBytes = 0,
): Effect.Effect<Uint8Array, CommandEnded> =>
  Effect.promise(() => collectStdin(limitBytes + slackBytes)).pipe(
    Effect.flatMap((bytes) =>
      bytes === undefined
        ? Effect.fail(usageError(`stdin holds more than ${limitBytes} bytes, the limit of ${what}`))
        : Effect.succeed(bytes),
    ),
  )

async function collectStdin(limitBytes: number): Promise<Uint8Array | undefined> {
  const chunks: Array<Uint8Array> = []
  let sizeBytes = 0
  for await (const chunk of Bun.stdin.stream()) {
    chunks.push(chunk)
    sizeBytes += chunk.length
    if (sizeBytes > limitBytes) return undefined
  }
  return Buffer.concat(chunks)
}

/**
 * The bytes that key and value arguments stand for: text, hexadecimal, or stdin for `-`, which only one of them may be. Stdin is taken as it is,
 * `--hex` or not. It may hold one byte more than a value may have, so that the refusal comes from the one place that knows the limits.
 */
export const readArguments = Effect.fnUntraced(function* (
  words: ReadonlyArray<{ readonly name: string; readonly word: string }>,
  hex: boolean,
): Effect.fn.Return<ReadonlyArray<Uint8Array>, CommandEnded> {
  if (words.filter(({ word }) => word === "-").length > 1) {
    return yield* usageError("only one argument can be - (stdin)")
  }
  const result: Array<Uint8Array> = []
  for (const { name, word } of words) {
    if (word === "-") {
      result.push(yield* readStdin(limits.valueBytes, "a value", 1))
      continue
    }
    const bytes = argumentBytes(word, hex)
    if (bytes === undefined) return yield* usageError(`the ${name} "${word}" is not hexadecimal`)
    result.push(bytes)
  }
  return result
})

/** Says on stderr that a value is larger than what Kvorum is made for. It is written all the same. */
export const warnIfLarge = (value: Uint8Array): Effect.Effect<void> =>
  value.length > limits.valueWarnBytes && value.length <= limits.valueBytes
    ? note(`warning: a value of ${value.length} bytes; Kvorum is made for values up to 10 KiB`)
    : Effect.void
