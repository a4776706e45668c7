import { Effect } from "effect"
import { tokenText } from "../../dynamo/contextToken.ts"
import type {
  EventualEntries,
  EventualReply,
  EventualPage as PageRequest,
} from "../../dynamo/node/requests.ts"
import { tokenOf } from "../../dynamo/valueView.ts"
import { type KvorumError, NotSupportedInMode, QuorumUnavailable } from "../../Errors.ts"
import { compareBytes, emptyBytes, fromHex, toHex } from "../../lib/bytes.ts"
import { hashTag, slotCount, slotOf } from "../../lib/slot.ts"
import type { MonotonicMs, NodeId, Slot } from "../../types.ts"
import { limits } from "../../wire/limits.ts"
import { type Caller, invalid, toBytes } from "../Caller.ts"
import { siblingsIn } from "./Eventual.ts"
import type {
  EventualCounted,
  EventualCountOptions,
  EventualEntry,
  EventualPage,
  EventualScanOptions,
  MissingSlots,
  ScanPart,
} from "./EventualApi.ts"
import type { EventualCallOptions } from "./EventualCalls.ts"

type Call = (options: EventualCallOptions) => Effect.Effect<EventualReply, KvorumError>

/** What one node is asked for: the slots that it is chosen for, as runs. */
interface Part {
  readonly node: NodeId
  readonly slots: ReadonlyArray<number>
}

/** What a node answered for its part. */
interface Given extends Part {
  readonly reply: EventualEntries
}

/** A page on its way. */
interface Gathering {
  readonly start: Slot
  readonly end: Slot
  readonly copies: number
  readonly request: (slots: ReadonlyArray<number>, deadlineMs: number) => PageRequest
  readonly deadlineAt: MonotonicMs
  /** Nodes that did not answer lately, and what the last of them said. */
  readonly failed: ReadonlySet<NodeId>
  readonly error?: KvorumError
  /** Slots without an owner that answers are passed over. */
  readonly partial: boolean
}

/** What was gathered, and the slots that nobody answered for, as runs. */
interface Gathered {
  readonly given: ReadonlyArray<Given>
  readonly missing: ReadonlyArray<MissingSlots>
}

interface Place {
  readonly slot: Slot
  readonly key: Uint8Array
}

/**
 * Scans by scatter-gather: each slot is read on one of its owners, all nodes are asked side by side for the beginning of what they hold, and the answers are merged in order of
 * slot and key up to where the shortest of them ends. A node that fails is passed over for the other owners of its slots.
 */
export class EventualScan {
  private readonly caller: Caller
  private readonly call: Call

  constructor(caller: Caller, call: Call) {
    this.caller = caller
    this.call = call
  }

  page(name: string, options: EventualScanOptions): Effect.Effect<EventualPage, KvorumError> {
    const limit = options.limit ?? limits.scanPageEntries
    const prefix = toBytes(options.prefix ?? emptyBytes)
    if (!Number.isInteger(limit) || limit < 1 || limit > limits.scanPageEntries) {
      return invalid(
        `scan page of ${limit} entries: limit is 1 to ${limits.scanPageEntries} entries`,
      )
    }
    if (prefix.length > limits.keyBytes) {
      return invalid(`prefix of ${prefix.length} bytes: limit is ${limits.keyBytes} bytes`)
    }
    const after = options.cursor === undefined ? undefined : placeOf(options.cursor)
    if (after === "wrong") return invalid("cursor is not one of this scan")
    return this.caller.withinAny(name, options, ({ namespace, leftMs }) => {
      const { eventual } = namespace
      if (eventual === undefined) {
        const detail = `namespace ${namespace.name} is strong: this is for eventual ones`
        return Effect.fail(new NotSupportedInMode({ detail }))
      }
      const request = (slots: ReadonlyArray<number>, deadlineMs: number): PageRequest => {
        const common = { token: 0, namespace: namespace.id, level: undefined }
        return { _tag: "EventualPage", ...common, slots, prefix, after, limit, deadlineMs }
      }
      const gathered = this.gather({
        ...{ ...slotsOf(prefix, after?.slot ?? 0), copies: eventual.copies, request },
        ...{ deadlineAt: this.caller.core.directory.nowMs() + leftMs, failed: new Set() },
        partial: options.partial === true,
      })
      return Effect.map(gathered, ({ given, missing }) => ({
        ...merged(given, limit, (state, key) => tokenText(tokenOf(state, namespace.id, key))),
        missing,
      }))
    })
  }

  /** Page after page: what was counted, and by whom. */
  readonly count = Effect.fnUntraced(function* (
    this: EventualScan,
    name: string,
    options: EventualCountOptions,
  ): Effect.fn.Return<EventualCounted, KvorumError> {
    const byNode = new Map<NodeId, ScanPart>()
    let missing: ReadonlyArray<MissingSlots> = []
    let count = 0
    let cursor: string | undefined
    do {
      const page: EventualPage = yield* this.page(name, {
        ...options,
        ...(cursor === undefined ? {} : { cursor }),
      })
      for (const { node, slots, entries } of page.parts) {
        const known = byNode.get(node)
        const seen = Math.max(known?.slots ?? 0, slots)
        byNode.set(node, { node, slots: seen, entries: (known?.entries ?? 0) + entries })
      }
      if (cursor === undefined || page.missing.length > missing.length) missing = page.missing
      count += page.entries.length
      cursor = page.cursor
    } while (cursor !== undefined)
    const parts = [...byNode.values()].sort((left, right) => left.node - right.node)
    return { count, parts, missing, partial: missing.length > 0 }
  })

  /** Asks one owner of each slot. Where one fails, all is asked for again, of the others, until the deadline. */
  private gather(page: Gathering): Effect.Effect<Gathered, KvorumError> {
    if (page.partial) return this.gatherSome(page)
    return Effect.suspend(() => {
      const { directory } = this.caller.core
      const leftMs = page.deadlineAt - directory.nowMs()
      if (leftMs <= 0) return Effect.fail(page.error ?? noRing)
      const parts = this.partsOf(page)
      if (parts === undefined) {
        if (page.error?._tag === "InvalidRequest") return Effect.fail(page.error)
        return this.gatherLater({ ...page, failed: new Set() })
      }
      const asked = Effect.forEach(parts, (part) => this.ask(page, part, leftMs), {
        concurrency: "unbounded",
      })
      const whole = Effect.map(asked, (given): Gathered => ({ given, missing: [] }))
      return Effect.catch(whole, ({ error, node }) =>
        goesElsewhere.has(error._tag)
          ? this.gatherLater({ ...page, error, failed: new Set([...page.failed, node]) })
          : Effect.fail(error),
      )
    })
  }

  private ask(page: Gathering, part: Part, deadlineMs: number) {
    return this.call({
      ...{ slot: undefined, copies: page.copies, nodes: [part.node] },
      ...{ repeats: "anywhere", deadlineMs: Math.ceil(deadlineMs) },
      request: (leftMs) => page.request(part.slots, leftMs),
    }).pipe(
      Effect.map((reply): Given => ({ ...part, reply: reply as EventualEntries })),
      Effect.mapError((error) => ({ error, node: part.node })),
    )
  }

  /** The same, but what one node does not give within half of the time left is asked of other owners, and what none of them gives is named. */
  private readonly gatherSome = Effect.fnUntraced(function* (
    this: EventualScan,
    page: Gathering,
  ): Effect.fn.Return<Gathered, KvorumError> {
    const { directory } = this.caller.core
    const given: Array<Given> = []
    const failed = new Set<NodeId>()
    let error: KvorumError = noRing
    let wanted = slotRuns(page.start, page.end)
    while (wanted.length > 0) {
      const leftMs = page.deadlineAt - directory.nowMs()
      const { parts, without } = this.ownersOf(wanted, page.copies, failed)
      if (leftMs <= leastMs || parts.length === 0) break
      const answers = yield* Effect.forEach(
        parts,
        (part) => Effect.result(this.ask(page, part, leftMs / 2)),
        { concurrency: "unbounded" },
      )
      wanted = without
      for (const [i, answer] of answers.entries()) {
        if (answer._tag === "Success") {
          given.push(answer.success)
          continue
        }
        if (!goesElsewhere.has(answer.failure.error._tag)) return yield* answer.failure.error
        error = answer.failure.error
        failed.add(answer.failure.node)
        wanted = [...wanted, ...((parts[i] as Part).slots as ReadonlyArray<number>)]
      }
    }
    const missing = wanted.length === 0 ? [] : [{ slots: countOf(wanted), error }]
    return { given, missing }
  })

  private gatherLater(page: Gathering): Effect.Effect<Gathered, KvorumError> {
    return Effect.sleep(pauseMs).pipe(
      Effect.andThen(Effect.ignore(this.caller.refreshed)),
      Effect.andThen(this.gather(page)),
    )
  }

  /** Each slot goes to the first of its owners that can be reached and has not failed; `undefined` where a slot has none. */
  private partsOf({ start, end, copies, failed }: Gathering): ReadonlyArray<Part> | undefined {
    const { parts, without } = this.ownersOf(slotRuns(start, end), copies, failed)
    return without.length === 0 ? parts : undefined
  }

  private ownersOf(runs: ReadonlyArray<number>, copies: number, failed: ReadonlySet<NodeId>) {
    const { directory } = this.caller.core
    const byNode = new Map<NodeId, Array<number>>()
    const without: Array<number> = []
    for (let i = 0; i < runs.length; i += 2) {
      const [start, count] = [runs[i] as number, runs[i + 1] as number]
      for (let slot = start; slot < start + count; slot++) {
        const owners = directory.ownersOf(slot, copies).filter((node) => !failed.has(node))
        const node = owners.find((each) => directory.link(each)?.isDown === false) ?? owners[0]
        const list = node === undefined ? without : (byNode.get(node) ?? [])
        if (node !== undefined) byNode.set(node, list)
        addSlot(list, slot)
      }
    }
    return { parts: [...byNode].map(([node, slots]): Part => ({ node, slots })), without }
  }
}

function slotRuns(start: Slot, end: Slot): ReadonlyArray<number> {
  return start < end ? [start, end - start] : []
}

/** To runs of slots, each its first slot and their number. */
function addSlot(runs: Array<number>, slot: Slot): void {
  const last = runs.length
  if (last > 0 && (runs[last - 2] as number) + (runs[last - 1] as number) === slot) {
    runs[last - 1] = (runs[last - 1] as number) + 1
  } else runs.push(slot, 1)
}

function countOf(runs: ReadonlyArray<number>): number {
  return runs.reduce((sum, number, k) => (k % 2 === 1 ? sum + number : sum), 0)
}

/** There is no use in asking anybody for less. */
const leastMs = 5

/** Another owner may answer. */
const goesElsewhere: ReadonlySet<KvorumError["_tag"]> = new Set([
  "InvalidRequest",
  "QuorumUnavailable",
  "RangeMoved",
  "Overloaded",
  "StorageCorrupt",
])

const pauseMs = 50
const noRing = new QuorumUnavailable({ detail: "no node that was asked knows the ring yet" })

function slotsOf(prefix: Uint8Array, from: Slot): { readonly start: Slot; readonly end: Slot } {
  // A prefix that holds a whole hash tag names one slot.
  if (hashTag(prefix).start === 0) return { start: from, end: slotCount }
  const slot = slotOf(prefix)
  return { start: Math.max(from, slot), end: slot + 1 }
}

function merged(
  given: ReadonlyArray<Given>,
  limit: number,
  contextOf: (state: Uint8Array, key: Uint8Array) => string,
): Omit<EventualPage, "missing"> {
  const all = given
    .flatMap(({ node, reply }) =>
      reply.entries.map(({ key, state }) => ({ node, slot: slotOf(key), key, state })),
    )
    .sort(comparePlaces)
  // Beyond where one node has stopped nobody knows whether something of its lies in between.
  const ends = given
    .flatMap(({ reply }) => (reply.next === undefined ? [] : [reply.next]))
    .sort(comparePlaces)
  const [firstEnd] = ends
  const known =
    firstEnd === undefined ? all : all.filter((each) => comparePlaces(each, firstEnd) <= 0)
  const taken = known.slice(0, limit)
  const last = taken.length < known.length ? taken[taken.length - 1] : firstEnd
  const entries = taken.map(({ key, state }): EventualEntry => {
    return { key: key.slice(), siblings: siblingsIn(state), context: contextOf(state, key) }
  })
  // A node may have been asked twice: for its own slots, and for those of one that failed.
  const slotsOfNode = new Map<NodeId, number>()
  for (const { node, slots } of given) {
    slotsOfNode.set(node, (slotsOfNode.get(node) ?? 0) + countOf(slots))
  }
  const parts = [...slotsOfNode].map(([node, slots]): ScanPart => {
    return { node, slots, entries: taken.filter((each) => each.node === node).length }
  })
  return { entries, cursor: last === undefined ? undefined : cursorOf(last), parts }
}

function comparePlaces(left: Place, right: Place): number {
  return left.slot - right.slot || compareBytes(left.key, right.key)
}

function cursorOf({ slot, key }: Place): string {
  return `${slot.toString(16).padStart(4, "0")}${toHex(key)}`
}

function placeOf(cursor: string): Place | "wrong" {
  const bytes = fromHex(cursor)
  if (bytes === undefined || bytes.length < 2) return "wrong"
  const slot = ((bytes[0] as number) << 8) | (bytes[1] as number)
  return slot < slotCount ? { slot, key: bytes.subarray(2) } : "wrong"
}
