import { Effect } from "effect"
import type {
  ClientShape,
  EventualFound,
  EventualOptions,
  EventualPutOptions,
  EventualWriteOptions,
  EventualWritten,
} from "../client/Client.ts"
import type { Level } from "../dynamo/coordinator/slotPlan.ts"
import { InvalidRequest, type KvorumError, NotSupportedInMode } from "../Errors.ts"
import { text, toHex } from "../lib/bytes.ts"
import type { NamespaceInfo } from "../wire/answers.ts"
import { parseConsistency } from "./Durations.ts"
import { jsonEventualReceipt, jsonSiblings, receiptLine } from "./eventualLines.ts"
import {
  type CommandEnded,
  negative,
  note,
  print,
  printBytes,
  printJson,
  usageError,
} from "./Output.ts"

/** What the commands on keys do in an eventual namespace. */

/** Words of the command line that concern eventual namespaces alone, or strong ones alone. */
export interface ModeWords {
  readonly consistency?: string | undefined
  readonly context?: string | undefined
  readonly strict?: boolean
  readonly session?: string | undefined
  readonly ifAbsent?: boolean
}

const levels: ReadonlyArray<string> = ["one", "quorum", "all", "localQuorum"]

const unsupported = (detail: string) => Effect.fail(new NotSupportedInMode({ detail }))

/** Words that a strong namespace cannot take. */
export const strongWords = ({ name }: NamespaceInfo, words: ModeWords) => {
  const { context, strict, consistency } = words
  if (context !== undefined) {
    return unsupported(`--context is for eventual namespaces, and ${name} is strong: use cas`)
  }
  if (strict === true) {
    return unsupported(`--strict is for eventual namespaces: ${name} is strong, and always is`)
  }
  if (consistency !== undefined && levels.includes(consistency)) {
    return unsupported(
      `--consistency ${consistency} is for eventual namespaces: ${name} is strong (linearizable, bounded:500ms or local)`,
    )
  }
  return Effect.void
}

/** The options that such words come to in an eventual namespace. */
export const eventualOptions = Effect.fnUntraced(function* (
  { name }: NamespaceInfo,
  words: ModeWords,
): Effect.fn.Return<EventualWriteOptions, KvorumError | CommandEnded> {
  const { consistency, context, strict, session, ifAbsent } = words
  if (ifAbsent === true) {
    return yield* unsupported(
      `--if-absent is for strong namespaces: in ${name}, which is eventual, nobody can know that a key is absent`,
    )
  }
  if (session !== undefined) {
    return yield* unsupported(`--session is for strong namespaces, and ${name} is eventual`)
  }
  if (consistency !== undefined && !levels.includes(consistency)) {
    if (typeof parseConsistency(consistency) === "string") {
      return yield* usageError(`--consistency "${consistency}" is none of ${levels.join(", ")}`)
    }
    return yield* unsupported(
      `--consistency ${consistency} is not to be had in ${name}, which is eventual: ${levels.join(", ")}`,
    )
  }
  return {
    ...(consistency === undefined ? {} : { consistency: consistency as Level }),
    ...(context === undefined ? {} : { context }),
    ...(strict === true ? { strict } : {}),
  }
})

/** Under `crdt:flag` a value is true or false. */
export const putEventual = Effect.fnUntraced(function* (
  client: ClientShape,
  namespace: NamespaceInfo,
  write: {
    readonly key: Uint8Array
    readonly value: Uint8Array
    readonly options: EventualPutOptions
  },
): Effect.fn.Return<EventualWritten, KvorumError> {
  const { key, value, options } = write
  const { eventual } = client
  if (namespace.eventual?.conflict !== "flag") {
    return yield* eventual.put(namespace.name, key, value, options)
  }
  const word = text(value)
  if (word !== "true" && word !== "false") {
    const detail = `${namespace.name} holds flags: put true or false`
    return yield* new InvalidRequest({ detail })
  }
  return yield* eventual.setFlag(namespace.name, key, word === "true", options)
})

/** Adds to a counter or a set. */
export const addEventual = Effect.fnUntraced(function* (
  client: ClientShape,
  namespace: NamespaceInfo,
  write: {
    readonly key: Uint8Array
    readonly word: string | undefined
    readonly member: Uint8Array | undefined
    readonly options: EventualPutOptions
  },
): Effect.fn.Return<EventualWritten, KvorumError | CommandEnded> {
  const { key, word = "1", member, options } = write
  const { name, eventual } = namespace
  if (options.ttlMs !== undefined) {
    return yield* unsupported(`--ttl is for values and registers: ${name} holds none`)
  }
  if (eventual?.conflict === "set") {
    if (member === undefined) return yield* usageError(`${name} holds sets: say what to add`)
    return yield* client.eventual.add(name, key, member, options)
  }
  if (eventual?.conflict !== "counter") {
    return yield* unsupported(`add is for counters and sets, and ${name} holds neither`)
  }
  if (!/^[+-]?\d{1,19}$/.test(word)) {
    return yield* usageError(
      `"${word}" is not a whole number of up to 64 bits, such as 5 or -5: ${name} holds counters`,
    )
  }
  return yield* client.eventual.increment(name, key, BigInt(word), options)
})

/** Deletes what a read shows, unless the caller says what he has read. */
export const deleteEventual = Effect.fnUntraced(function* (
  client: ClientShape,
  namespace: NamespaceInfo,
  write: { readonly key: Uint8Array; readonly options: EventualWriteOptions },
): Effect.fn.Return<EventualWritten | undefined, KvorumError> {
  const { key, options } = write
  const { name } = namespace
  if (options.context !== undefined) return yield* client.eventual.delete(name, key, options)
  const { siblings, context } = yield* client.eventual.get(name, key, readOptions(options))
  if (siblings.length === 0 || context === undefined) return undefined
  return yield* client.eventual.delete(name, key, { ...options, context })
})

export function readOptions({ consistency }: EventualOptions): EventualOptions {
  return consistency === undefined ? {} : { consistency }
}

/** `written: quorum: n1 n2 of ...`, and of a counter its number first. */
export const showWritten = Effect.fnUntraced(function* (
  written: EventualWritten,
  json: boolean,
): Effect.fn.Return<void> {
  const { counter, receipt } = written
  if (json) {
    const value = counter === undefined ? {} : { value: `${counter}` }
    return yield* printJson({ ...value, receipt: jsonEventualReceipt(receipt) })
  }
  if (counter !== undefined) yield* print(`${counter}`)
  else yield* print(`written at ${receipt.asked}`)
})

export const showFound = Effect.fnUntraced(function* (
  found: EventualFound,
  how: { readonly hex: boolean; readonly json: boolean; readonly explain: boolean },
): Effect.fn.Return<void, CommandEnded> {
  const { siblings, context, receipt } = found
  if (how.json) {
    const shown = jsonSiblings(siblings, how.hex)
    yield* printJson({ ...shown, context: context ?? null, receipt: jsonEventualReceipt(receipt) })
  } else {
    for (const value of siblings) {
      if (how.hex) yield* print(toHex(value))
      else yield* Effect.andThen(printBytes(value), print(""))
    }
    if (siblings.length === 0) yield* note("not found")
  }
  if (how.explain) {
    yield* note(receiptLine(receipt, "read"))
    yield* note(explained(found))
    if (context !== undefined) yield* note(`context: ${context}`)
  }
  if (siblings.length === 0) yield* negative
})

function explained({ kind, siblings }: EventualFound): string {
  if (kind === "set") return `a set of ${siblings.length}`
  if (kind !== "values") return `a ${kind}`
  return siblings.length > 1
    ? `${siblings.length} values that no write has seen all of: put with --context to replace them`
    : `${siblings.length} value`
}
