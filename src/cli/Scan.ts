import { Effect } from "effect"
import type { ClientShape, ReadOptions, ScanEntry } from "../client/Client.ts"
import { type KvorumError, NotSupportedInMode } from "../Errors.ts"
import { toHex } from "../lib/bytes.ts"
import type { NamespaceInfo } from "../wire/answers.ts"
import { limits } from "../wire/limits.ts"
import { withCluster } from "./Cluster.ts"
import { parseConsistency } from "./Durations.ts"
import { Command, Flag } from "./EffectCli.ts"
import { eventualOptions, strongWords } from "./EventualKeys.ts"
import { scanEventual } from "./EventualScan.ts"
import * as Flags from "./Flags.ts"
import { type CommandEnded, note, print, printJson, usageError } from "./Output.ts"
import { argumentBytes, jsonBytes, lineText } from "./textBytes.ts"

interface ScanRequest {
  readonly namespace: string
  readonly read: ReadOptions
  readonly prefix: Uint8Array
  readonly limit: number
  readonly cursor: string | undefined
}

/** Hands page after page to `each`; the cursor to go on from, if there is more. */
const walk = Effect.fnUntraced(function* (
  client: ClientShape,
  request: ScanRequest,
  each: (entries: ReadonlyArray<ScanEntry>) => Effect.Effect<void>,
): Effect.fn.Return<string | undefined, KvorumError> {
  let cursor = request.cursor
  let left = request.limit
  for (;;) {
    const page = yield* client.scanPage(request.namespace, {
      ...request.read,
      prefix: request.prefix,
      limit: Math.min(left, limits.scanPageEntries),
      ...(cursor === undefined ? {} : { cursor }),
    })
    yield* each(page.entries)
    left -= page.entries.length
    cursor = page.cursor
    if (cursor === undefined || left === 0) return cursor
  }
})

/** Each slot of an eventual namespace is read on one owner: a scan has no other level. */
const scanOptions = Effect.fnUntraced(function* (
  namespace: NamespaceInfo,
  words: { readonly consistency: string | undefined },
): Effect.fn.Return<void, KvorumError | CommandEnded> {
  const { consistency } = yield* eventualOptions(namespace, words)
  if (consistency === undefined || consistency === "one") return
  const detail = `a scan of ${namespace.name}, which is eventual, reads each slot on one owner: --consistency one`
  return yield* new NotSupportedInMode({ detail })
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
    count: Flags.toggle("count", "Print how many keys there are, however many, in place of them"),
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
    if (options.count) {
      let total = 0
      const all = { ...request, limit: Number.POSITIVE_INFINITY }
      yield* withCluster(options, (client) =>
        walk(client, all, (page) =>
          Effect.sync(() => {
            total += page.length
          }),
        ),
      )
      return yield* json ? printJson({ count: total }) : print(`${total}`)
    }
    if (json) {
      const entries: Array<unknown> = []
      const cursor = yield* withCluster(options, (client) =>
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
      return yield* printJson({ entries, ...(cursor === undefined ? {} : { cursor }) })
    }
    const show = hex ? toHex : lineText
    const cursor = yield* withCluster(options, (client) =>
      walk(client, request, (page) =>
        Effect.forEach(page, ({ key, value }) => print(`${show(key)}\t${show(value)}`), {
          discard: true,
        }),
      ),
    )
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
