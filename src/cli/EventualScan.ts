import { Effect } from "effect"
import type {
  ClientShape,
  EventualEntry,
  EventualPage,
  MissingSlots,
  ScanPart,
} from "../client/Client.ts"
import type { KvorumError } from "../Errors.ts"
import { toHex } from "../lib/bytes.ts"
import { limits } from "../wire/limits.ts"
import { missingSlots } from "./Count.ts"
import { jsonSiblings } from "./eventualLines.ts"
import { note, print, printJson } from "./Output.ts"
import { nodeName } from "./receipts.ts"
import { jsonBytes, lineText } from "./textBytes.ts"

export interface EventualScanRequest {
  readonly namespace: string
  readonly prefix: Uint8Array
  readonly limit: number
  readonly cursor: string | undefined
  readonly partial: boolean
  readonly hex: boolean
  readonly json: boolean
}

/** What each node gave, over all pages. */
class Parts {
  private readonly byNode = new Map<number, { slots: number; entries: number }>()

  take(parts: ReadonlyArray<ScanPart>): void {
    for (const { node, slots, entries } of parts) {
      const known = this.byNode.get(node)
      const slotsSeen = Math.max(known?.slots ?? 0, slots)
      this.byNode.set(node, { slots: slotsSeen, entries: (known?.entries ?? 0) + entries })
    }
  }

  get json() {
    return this.sorted.map(([node, part]) => ({ node: nodeName(node), ...part }))
  }

  get line(): string {
    const parts = this.sorted.map(
      ([node, { slots, entries }]) => `${nodeName(node)}: ${entries} of ${slots} slots`,
    )
    return `parts: ${parts.join(", ")}`
  }

  private get sorted() {
    return [...this.byNode].sort(([left], [right]) => left - right)
  }
}

/** Prints what eventual namespaces hold, gathered from one owner of each slot; what each node gave goes to stderr, or into the JSON. */
export const scanEventual = Effect.fnUntraced(function* (
  client: ClientShape,
  request: EventualScanRequest,
): Effect.fn.Return<void, KvorumError> {
  const { namespace, prefix, partial, hex, json } = request
  const parts = new Parts()
  const shown: Array<unknown> = []
  let left = request.limit
  const missing: Array<MissingSlots> = []
  let cursor = request.cursor
  for (;;) {
    const page: EventualPage = yield* client.eventual.scanPage(namespace, {
      prefix,
      limit: Math.min(left, limits.scanPageEntries),
      partial,
      ...(cursor === undefined ? {} : { cursor }),
    })
    parts.take(page.parts)
    // Each page says it again.
    if (missing.length === 0) missing.push(...page.missing)
    left -= page.entries.length
    if (json) for (const entry of page.entries) shown.push(jsonEntry(entry, hex))
    else yield* printEntries(page.entries, hex)
    cursor = page.cursor
    if (cursor === undefined || left === 0) break
  }
  const more = cursor === undefined ? {} : { cursor }
  if (json) {
    const lacking = missing.map((each) => missingSlots(each).json)
    const partly = lacking.length === 0 ? {} : { partial: true, missing: lacking }
    return yield* printJson({ entries: shown, ...more, parts: parts.json, ...partly })
  }
  yield* note(parts.line)
  for (const each of missing) yield* note(`partial: no answer for ${missingSlots(each).what}`)
  if (cursor !== undefined) yield* note(`more: --cursor ${cursor}`)
})

function jsonEntry({ key, siblings, context }: EventualEntry, hex: boolean) {
  return { ...jsonBytes("key", key, hex), ...jsonSiblings(siblings, hex), context }
}

/** A line for each sibling. */
function printEntries(entries: ReadonlyArray<EventualEntry>, hex: boolean) {
  const show = hex ? toHex : lineText
  const lines = entries.flatMap(({ key, siblings }) =>
    siblings.map((value) => `${show(key)}\t${show(value)}`),
  )
  return Effect.forEach(lines, print, { discard: true })
}
