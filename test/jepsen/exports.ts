import { type Edn, isKeyword, type Keyword, keyword, parseEdn, printEdn } from "./edn.ts"
import {
  conditionError,
  type HistoryEvent,
  type HistoryValue,
  MalformedHistory,
  validate,
} from "./history.ts"

/**
 * Histories in the forms that outside checkers read, and back:
 *
 * - *register*: EDN of Jepsen and Knossos, one file a key, since their `cas-register` knows no keys. A delete is a write of nil, and one that found
 *   nothing is a read of nil.
 * - *list-append*: EDN of Elle, of `txn` events.
 * - *rw-register*: EDN of Elle, of reads, writes and compare-and-sets: a compare-and-set is one transaction that reads what it expects and then writes.
 *
 * Each line is one map. Fault events are left out: elle-cli takes no process but numbers.
 */

/** This history has no such form. */
export class NotExportable extends Error {}

type Fields = ReadonlyArray<readonly [string, Edn]>

function line(event: HistoryEvent, f: string, value: Edn, type: string = event.type): string {
  const fields: Array<readonly [string, Edn]> = [
    ["index", event.index],
    ["type", keyword(type)],
    ["process", event.process as number],
    ["f", keyword(f)],
    ["value", value],
    ["time", event.time],
  ]
  if (event.error !== undefined) fields.push(["error", event.error])
  return `${printEdn(new Map(fields as Fields))}\n`
}

const isClient = ({ process }: HistoryEvent) => process !== "nemesis"

// Registers

/** One text per key, in order of first use. */
export function toRegisterEdn(events: ReadonlyArray<HistoryEvent>): ReadonlyMap<string, string> {
  const texts = new Map<string, string>()
  const foundNothing = absentDeletes(events)
  for (const event of events) {
    const { key } = event
    if (!isClient(event) || key === undefined) continue
    texts.set(key, (texts.get(key) ?? "") + registerLine(event, foundNothing.has(event.index)))
  }
  return texts
}

/** Indexes of deletes that found nothing, of their invocations as of their ends: what they did is a read. */
function absentDeletes(events: ReadonlyArray<HistoryEvent>): ReadonlySet<number> {
  const found = new Set<number>()
  const open = new Map<HistoryEvent["process"], number>()
  for (const { index, type, process, f, error } of events) {
    if (f !== "delete") continue
    if (type === "invoke") open.set(process, index)
    else if (type === "fail" && error === conditionError) {
      found.add(index).add(open.get(process) as number)
    }
  }
  return found
}

function registerLine(event: HistoryEvent, foundNothing: boolean): string {
  switch (event.f) {
    case "read":
    case "write":
    case "cas":
      return line(event, event.f, plain(event.value, event))
    case "delete":
      if (!foundNothing) return line(event, "write", null)
      return line({ ...event, error: undefined } as never, "read", null, okOf(event))
    default:
      throw new NotExportable(`event ${event.index}: a register has no ${event.f}`)
  }
}

const okOf = ({ type }: HistoryEvent) => (type === "fail" ? "ok" : type)

/** Numbers, strings, null and lists of them are the same in both. */
function plain(value: HistoryValue, { index }: HistoryEvent): Edn {
  if (value === null || typeof value !== "object") return value
  if (Array.isArray(value)) return value.map((each) => plain(each, { index } as HistoryEvent))
  throw new NotExportable(`event ${index}: a map has no form here`)
}

/** Reads register files back, as they are: a delete comes back as the write or read of null that it was written as. */
export function fromRegisterEdn(texts: ReadonlyMap<string, string>): ReadonlyArray<HistoryEvent> {
  const events: Array<HistoryEvent> = []
  for (const [key, text] of texts) {
    for (const each of parseEdn(text)) events.push(eventOf(each, key))
  }
  return renumbered(events)
}

// Transactions

/** One text for all keys. */
export function toListAppendEdn(events: ReadonlyArray<HistoryEvent>): string {
  return events
    .filter(isClient)
    .map((event) => {
      if (event.f !== "txn") throw new NotExportable(`event ${event.index}: ${event.f} is no txn`)
      return line(event, "txn", microOperations(event))
    })
    .join("")
}

/** Nobody has read anything before the answer, whatever an append expects. */
function microOperations(event: HistoryEvent): Edn {
  return (event.value as ReadonlyArray<ReadonlyArray<HistoryValue>>).map(([name, key, value]) => {
    const known = event.type === "ok" || name !== "r" ? (value as HistoryValue) : null
    return [keyword(String(name)), plain(key as HistoryValue, event), plain(known, event)]
  })
}

/** Elle reads nil as the state before all writes, and wants each value written once: a history with deletes has no such form. */
export function toRwRegisterEdn(events: ReadonlyArray<HistoryEvent>): string {
  return events
    .filter(isClient)
    .map((event) => line(event, "txn", registerTransaction(event)))
    .join("")
}

function registerTransaction(event: HistoryEvent): Edn {
  const { f, key, type, index } = event
  if (key === undefined) throw new NotExportable(`event ${index}: no key`)
  const value = plain(event.value, event)
  switch (f) {
    case "read":
      return [[keyword("r"), key, value]]
    case "write":
      return [[keyword("w"), key, value]]
    case "cas": {
      const [expected, written] = value as ReadonlyArray<Edn>
      const read = type === "ok" ? (expected as Edn) : null
      return [
        [keyword("r"), key, read],
        [keyword("w"), key, written as Edn],
      ]
    }
    default:
      throw new NotExportable(`event ${index}: ${f} has no form in rw-register`)
  }
}

/** Reads either form of transactions back, as `txn` events. */
export function fromTransactionsEdn(text: string): ReadonlyArray<HistoryEvent> {
  return renumbered(parseEdn(text).map((each) => eventOf(each, undefined)))
}

// Back

function eventOf(value: Edn, key: string | undefined): HistoryEvent {
  if (!(value instanceof Map)) throw new MalformedHistory(0, "is no map")
  const map = value as ReadonlyMap<string, Edn>
  const word = (name: string) => {
    const found = map.get(name)
    if (!isKeyword(found)) throw new MalformedHistory(Number(map.get("index")), `lacks :${name}`)
    return found.keyword
  }
  const error = map.get("error")
  return {
    index: map.get("index") as number,
    type: word("type") as HistoryEvent["type"],
    process: map.get("process") as number,
    f: word("f"),
    ...(key === undefined ? {} : { key }),
    value: unprinted(map.get("value") ?? null),
    time: map.get("time") as number,
    ...(typeof error === "string" ? { error } : {}),
  }
}

function unprinted(value: Edn): HistoryValue {
  if (isKeyword(value)) return (value as Keyword).keyword
  if (Array.isArray(value)) return value.map((each: Edn) => unprinted(each))
  if (value instanceof Map) throw new MalformedHistory(0, "holds a map for a value")
  return value as HistoryValue
}

/** In order of index, and dense again where fault events were left out. */
function renumbered(events: Array<HistoryEvent>): ReadonlyArray<HistoryEvent> {
  const dense = events
    .sort((left, right) => left.index - right.index)
    .map((event, index) => ({ ...event, index }))
  validate(dense)
  return dense
}
