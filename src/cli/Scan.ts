import { Effect } from "effect"
import type { ClientShape, MissingRange, ReadOptions, ScanEntry } from "../client/Client.ts"
import type { KvorumError } from "../Errors.ts"
import { toHex } from "../lib/bytes.ts"
import { limits } from "../wire/limits.ts"
import { withCluster } from "./Cluster.ts"
import { countKeys, missingRange, rangeParts } from "./Count.ts"
import { parseConsistency } from "./Durations.ts"
import { Command, Flag } from "./EffectCli.ts"
import { strongWords } from "./EventualKeys.ts"
import { scanEventual } from "./EventualScan.ts"
import * as Flags from "./Flags.ts"
import { note, print, printJson, usageError } from "./Output.ts"
import { scanOptions } from "./ScanOptions.ts"
import { argumentBytes, jsonBytes, lineText } from "./textBytes.ts"

interface ScanRequest {
  readonly namespace: string
  readonly read: ReadOptions
  readonly prefix: Uint8Array
  readonly limit: number
  readonly cursor: string | undefined
  readonly partial: boolean
}

/** Where a scan stopped, and what it lacks. */
interface Walked {
  readonly cursor: string | undefined
  readonly parts: ReadonlyMap<string, number>
  readonly missing: ReadonlyArray<MissingRange>
}

/** Hands page after page to `each`. */
const walk = Effect.fnUntraced(function* (
  client: ClientShape,
  request: ScanRequest,
  each: (entries: ReadonlyArray<ScanEntry>) => Effect.Effect<void>,
): Effect.fn.Return<Walked, KvorumError> {
  let cursor = request.cursor
  let left = request.limit
  const parts = new Map<string, number>()
  const missing: Array<MissingRange> = []
  for (;;) {
    const page = yield* client.scanPage(request.namespace, {
      ...request.read,
      prefix: request.prefix,
      limit: Math.min(left, limits.scanPageEntries),
      partial: request.partial,
      ...(cursor === undefined ? {} : { cursor }),
    })
    yield* each(page.entries)
    for (const [name, count] of rangeParts(page.parts)) {
      parts.set(name, (parts.get(name) ?? 0) + count)
    }
    missing.push(...page.missing)
    left -= page.entries.length
    cursor = page.cursor
    if (cursor === undefined || left === 0) return { cursor, parts, missing }
  }
})

export const scan = Command.make(
  "scan",
  {
    namespace: Flags.namespace,
    prefix: Flag.String("prefix").pipe(
      Flag.withDescription("Only keys that begin with it"),
      Flag.withDefault(""),
    ),
    limit: Flag.Int("limit").pipe(
      Flag.withMetavar("N"),
      Flag.withDescription("At most so many keys (1000)"),
      Flag.withDefault(1000),
    ),
    cursor: Flags.maybe(
      Flag.String("cursor").pipe(
        Flag.withDescription("Go on where an earlier scan of the same prefix stopped"),
      ),
    ),
    count: Flags.toggle("count", "As kvorum count: how many keys there are, in place of them"),
    partial: Flags.partial,
    consistency: Flags.consistency,
    hex: Flags.hex,
    json: Flags.json,
    ...Flags.cluster,
  },
  Effect.fnUntraced(function* (options) {
    const { hex, json } = options
    const prefix = argumentBytes(options.prefix, hex)
    if (prefix === undefined) return yield* usageError("--prefix is not hexadecimal")
    if (options.limit < 1) return yield* usageError("--limit must be above 0")
    if (options.count) {
      return yield* withCluster(options, (client) => countKeys(client, { ...options, prefix }))
    }
    const isEventual = yield* withCluster(
      options,
      Effect.fnUntraced(function* (client) {
        const found = yield* client.namespace(options.namespace)
        if (found.mode === "strong") {
          yield* strongWords(found, options)
          return false
        }
        yield* scanOptions(found, options)
        yield* scanEventual(client, { ...options, prefix })
        return true
      }),
    )
    if (isEventual) return
    const read = parseConsistency(options.consistency ?? "linearizable")
    if (typeof read === "string") return yield* usageError(read)
    const request = { ...options, prefix, read }
    if (json) {
      const entries: Array<unknown> = []
      const { cursor, parts, missing } = yield* withCluster(options, (client) =>
        walk(client, request, (page) =>
          Effect.sync(() => {
            for (const { key, value, version } of page) {
              entries.push({
                ...jsonBytes("key", key, hex),
                ...jsonBytes("value", value, hex),
                version,
              })
            }
          }),
        ),
      )
      const lacking = missing.map((each) => missingRange(each).json)
      return yield* printJson({
        entries,
        ...(cursor === undefined ? {} : { cursor }),
        parts: Object.fromEntries(parts),
        ...(lacking.length === 0 ? {} : { partial: true, missing: lacking }),
      })
    }
    const show = hex ? toHex : lineText
    const { cursor, missing } = yield* withCluster(options, (client) =>
      walk(client, request, (page) =>
        Effect.forEach(page, ({ key, value }) => print(`${show(key)}\t${show(value)}`), {
          discard: true,
        }),
      ),
    )
    for (const each of missing) yield* note(`partial: no answer for ${missingRange(each).what}`)
    if (cursor !== undefined) yield* note(`more: --cursor ${cursor}`)
  }),
).pipe(
  Command.withShortDescription("List keys and values"),
  Command.withDescription(
    "Prints a line per key: key, tab, value; in text, backslash, control characters and bytes that are no UTF-8 are escaped as \\\\ \\t \\n \\r \\xNN, and --hex prints both in " +
      "hexadecimal. ORDER: in an ordered namespace keys come in order of their bytes. In a hash one they come in order of slot (a hash of the key), and inside a slot in order of bytes; so keys that begin alike are spread over all ranges, the " +
      "scan asks all of them, and the lines are not sorted. HASH TAGS: the slot of a key with a tag, such as {user1}:name, is that of `user1` alone. A --prefix that holds a whole tag, " +
      "such as {user1}: , therefore reads one slot of one range, and its lines are sorted. A scan is linearizable inside a page of a range, not a snapshot of all. " +
      "When there is more than --limit, stderr (or `cursor` of --json) says where to go on. " +
      "When no node answers for a part the scan fails, unless --partial is given: then it goes on behind that, and stderr (or `missing` of --json) names it. " +
      "An eventual namespace is read like a hash one, each slot on one of its owners, with a line for each sibling, and stderr (or `parts`) says what each node gave.",
  ),
  Command.withExamples([
    {
      command: "kvorum scan default --prefix user: --limit 100",
      description: "through all ranges",
    },
    { command: "kvorum scan default --prefix '{user1}:'", description: "one slot, sorted" },
  ]),
)
