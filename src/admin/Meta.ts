import { Effect } from "effect"
import type { ClientShape } from "../client/Client.ts"
import { InvalidRequest, type KvorumError, Overloaded } from "../Errors.ts"
import { text, toHex } from "../lib/bytes.ts"
import {
  counterOf,
  type Directory,
  directoryOf,
  type NamespaceRecord,
  type NodeRecord,
  rangeAsJson,
} from "../server/directory.ts"
import type { Position, RangeDescriptor, Version } from "../types.ts"

/** The directory as it is now, with what it takes to change a record of it only if nobody else did. */
export interface Snapshot {
  readonly directory: Directory
  /** Of each key that exists. */
  readonly versions: ReadonlyMap<string, Version>
}

export type Counter = "node" | "namespace" | "eventual" | "range" | "replica"

const system = "system"
/** Somebody else changed the same record first, again and again. */
const attemptsMax = 20

/** The records of the meta group (server/directory.ts), over the ordinary client. Every write is conditional, so that two procedures cannot undo each other. */
export class Meta {
  private readonly client: ClientShape
  private last: { readonly stamp: string; readonly snapshot: Snapshot } | undefined

  constructor(client: ClientShape) {
    this.client = client
  }

  readonly read: Effect.Effect<Snapshot, KvorumError> = Effect.suspend(() => this.readAll())

  /**
   * As it was at one moment: a page is, and what takes several of them is read again until nothing has changed in between. A node that knew a ring, and not yet a namespace that was
   * made before it, would report slots filled that it has nothing of.
   */
  private readonly readAll = Effect.fnUntraced(function* (this: Meta) {
    let before: string | undefined
    for (let attempt = 0; attempt < attemptsMax; attempt++) {
      const { found, pages } = yield* this.readPages()
      // Every write in the range takes a higher version, and a delete leaves one record fewer: with both the same, nothing has changed, as nearly always.
      const newest = found.reduce((most, { version }) => Math.max(most, version), 0)
      const stamp = `${found.length} ${newest}`
      if (this.last?.stamp === stamp) return this.last.snapshot
      if (pages === 1 || stamp === before) return this.take(stamp, found)
      before = stamp
    }
    return yield* new Overloaded({ what: "the directory, which changes all the time," })
  })

  private readonly readPages = Effect.fnUntraced(function* (this: Meta) {
    const found: Array<Page["entries"][number]> = []
    let pages = 0
    let cursor: string | undefined
    do {
      const options = { deadlineMs: 5000, ...(cursor === undefined ? {} : { cursor }) }
      const page: { readonly cursor: string | undefined } & Page = yield* this.client.scanPage(
        system,
        options,
      )
      found.push(...page.entries)
      pages++
      cursor = page.cursor
    } while (cursor !== undefined)
    return { found, pages }
  })

  private take(stamp: string, found: Page["entries"]): Snapshot {
    const pairs = found.map(({ key, value }) => [text(key), text(value)] as const)
    const versions = new Map(found.map(({ key, version }) => [text(key), version]))
    const snapshot: Snapshot = { directory: directoryOf(pairs), versions }
    this.last = { stamp, snapshot }
    return snapshot
  }

  /** False when the key exists already. */
  create(key: string, value: string): Effect.Effect<boolean, KvorumError> {
    return this.set(key, value, undefined)
  }

  /** Writes the key if it is still of that version; `undefined` = still absent. */
  set(
    key: string,
    value: string,
    version: Version | undefined,
  ): Effect.Effect<boolean, KvorumError> {
    const expect = version === undefined ? ({ absent: true } as const) : { version }
    return Effect.map(
      this.client.compareAndSet(system, key, { expect, value }),
      ({ swapped }) => swapped,
    )
  }

  remove(key: string): Effect.Effect<void, KvorumError> {
    return Effect.asVoid(this.client.delete(system, key))
  }

  /** The next id of a kind, never given out before; with `count` the first of as many that follow each other. One that is not used in the end is lost. */
  readonly nextId = Effect.fnUntraced(function* (this: Meta, counter: Counter, count = 1) {
    const key = `counter/${counter}`
    for (let attempt = 0; attempt < attemptsMax; attempt++) {
      const found = yield* this.client.get(system, key)
      const last = found.found ? counterOf(text(found.value)) : undefined
      if (!found.found || last === undefined) {
        return yield* new Overloaded({ what: "the cluster, which is still being founded," })
      }
      if (yield* this.set(key, `${last + count}`, found.version)) return last + 1
    }
    return yield* new Overloaded({ what: `the queue for ${key}` })
  })

  /**
   * Changes a record to what `change` makes of it, as often as it takes to do so on the present one. `undefined` leaves it as it is. Returns
   * the record as it is then; `undefined` when there is none.
   */
  readonly changeNamespace = Effect.fnUntraced(function* (
    this: Meta,
    name: string,
    change: (record: NamespaceRecord) => NamespaceRecord | undefined,
  ) {
    const key = namespaceKey(name)
    for (let attempt = 0; attempt < attemptsMax; attempt++) {
      const { directory, versions } = yield* this.read
      const record = directory.namespaces.find((each) => each.name === name)
      const next = record === undefined ? undefined : change(record)
      if (record === undefined || next === undefined) return record
      if (yield* this.set(key, JSON.stringify(next), versions.get(key))) return next
    }
    return yield* new Overloaded({ what: `the queue for ${key}` })
  })

  /** The same for a node. */
  readonly changeNode = Effect.fnUntraced(function* (
    this: Meta,
    id: number,
    change: (record: NodeRecord) => NodeRecord | undefined,
  ) {
    const key = nodeKey(id)
    for (let attempt = 0; attempt < attemptsMax; attempt++) {
      const { directory, versions } = yield* this.read
      const record = directory.nodes.find((each) => each.id === id)
      const next = record === undefined ? undefined : change(record)
      if (record === undefined || next === undefined) return record
      if (yield* this.set(key, JSON.stringify(next), versions.get(key))) return next
    }
    return yield* new Overloaded({ what: `the queue for ${key}` })
  })
}

interface Page {
  readonly entries: ReadonlyArray<{
    readonly key: Uint8Array
    readonly value: Uint8Array
    readonly version: Version
  }>
}

export function nodeKey(id: number): string {
  return `node/${id}`
}

export function namespaceKey(name: string): string {
  return `namespace/${name}`
}

export function rangeKey(id: number): string {
  return `range/${id}`
}

/** A cut that somebody has ordered, which stays until somebody orders a merge. */
export function boundaryKey(position: Position): string {
  return `boundary/${toHex(position)}`
}

export function rangeValue(descriptor: RangeDescriptor): string {
  return JSON.stringify(rangeAsJson(descriptor))
}

export function invalid(detail: string): Effect.Effect<never, InvalidRequest> {
  return Effect.fail(new InvalidRequest({ detail }))
}
