import { Effect } from "effect"
import type { ClientShape, MissingRange, MissingSlots, RangePart } from "../client/Client.ts"
import type { KvorumError } from "../Errors.ts"
import { withCluster } from "./Cluster.ts"
import { parseConsistency } from "./Durations.ts"
import { Command, Flag } from "./EffectCli.ts"
import { strongWords } from "./EventualKeys.ts"
import * as Flags from "./Flags.ts"
import { type CommandEnded, note, print, printJson, usageError } from "./Output.ts"
import { nodeName } from "./receipts.ts"
import { scanOptions } from "./ScanOptions.ts"
import { argumentBytes } from "./textBytes.ts"

/** What was counted, in one shape for both modes. */
interface Shown {
  readonly count: number
  readonly partial: boolean
  /** By name: of a range its id, of a node n1, n2, ... */
  readonly parts: ReadonlyArray<readonly [name: string, count: number]>
  readonly missing: ReadonlyArray<Missing>
}

interface Missing {
  readonly what: string
  readonly json: object
}

export interface CountRequest {
  readonly namespace: string
  readonly prefix: Uint8Array
  readonly partial: boolean
  readonly consistency: string | undefined
  readonly json: boolean
}

export const textOf = (error: KvorumError): string => `${error._tag}: ${error.message}`

/** A range that gave nothing, as people and programs are told. */
export function missingRange({ range, error }: MissingRange): Missing {
  const name = range === undefined ? "a range that is not known" : `range ${range}`
  return {
    what: `${name} (${textOf(error)})`,
    json: { range: range ?? null, error: textOf(error) },
  }
}

/** The same of slots of an eventual namespace. */
export function missingSlots({ slots, error }: MissingSlots): Missing {
  return { what: `${slots} slots (${textOf(error)})`, json: { slots, error: textOf(error) } }
}

export function rangeParts(parts: ReadonlyArray<RangePart>): Shown["parts"] {
  return parts.map(({ range, entries }) => [`${range}`, entries] as const)
}

const counted = Effect.fnUntraced(function* (
  client: ClientShape,
  request: CountRequest,
): Effect.fn.Return<Shown, KvorumError | CommandEnded> {
  const { namespace, prefix, partial, consistency } = request
  const found = yield* client.namespace(namespace)
  if (found.mode === "eventual") {
    yield* scanOptions(found, { consistency })
    const result = yield* client.eventual.count(namespace, { prefix, partial })
    const parts = result.parts.map(({ node, entries }) => [nodeName(node), entries] as const)
    return { ...result, parts, missing: result.missing.map(missingSlots) }
  }
  yield* strongWords(found, { consistency })
  const read = parseConsistency(consistency ?? "linearizable")
  if (typeof read === "string") return yield* usageError(read)
  const result = yield* client.count(namespace, { ...read, prefix, partial })
  const missing = result.missing.map(missingRange)
  return { ...result, parts: rangeParts(result.parts), missing }
})

/** Counts keys where they are, and prints the total; what each part gave goes to stderr, or into the JSON. */
export const countKeys = Effect.fnUntraced(function* (
  client: ClientShape,
  request: CountRequest,
): Effect.fn.Return<void, KvorumError | CommandEnded> {
  const { count, partial, parts, missing } = yield* counted(client, request)
  if (request.json) {
    const lacking = missing.length === 0 ? {} : { missing: missing.map(({ json }) => json) }
    return yield* printJson({ count, partial, parts: Object.fromEntries(parts), ...lacking })
  }
  yield* print(`${count}`)
  yield* note(`parts: ${parts.map(([name, n]) => `${name}: ${n}`).join(", ")}`)
  for (const { what } of missing) yield* note(`partial: no answer for ${what}`)
})

export const count = Command.make(
  "count",
  {
    namespace: Flags.namespace,
    prefix: Flag.String("prefix").pipe(
      Flag.withDescription("Only keys that begin with it"),
      Flag.withDefault(""),
    ),
    partial: Flags.partial,
    consistency: Flags.consistency,
    hex: Flags.toggle("hex", "The prefix is hexadecimal"),
    json: Flags.json,
    ...Flags.cluster,
  },
  Effect.fnUntraced(function* (options) {
    const prefix = argumentBytes(options.prefix, options.hex)
    if (prefix === undefined) return yield* usageError("--prefix is not hexadecimal")
    yield* withCluster(options, (client) => countKeys(client, { ...options, prefix }))
  }),
).pipe(
  Command.withShortDescription("Count keys"),
  Command.withDescription(
    "Prints how many keys there are; stderr (or `parts` of --json) says how many each range gave, or each node of an eventual namespace. Nodes count what they hold, all ranges side by side, and send numbers. " +
      "The count is linearizable inside a part, not a snapshot of all. When no node answers for a part the command fails, unless --partial is given: then what is missing is named, and --json says `partial: true`.",
  ),
  Command.withExamples([
    { command: "kvorum count default", description: "all keys" },
    {
      command: "kvorum count default --prefix user: --partial",
      description: "what can be reached",
    },
  ]),
)
