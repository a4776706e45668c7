import type { Effect } from "effect"
import type { Level } from "../../dynamo/coordinator/slotPlan.ts"
import type { EventualReceipt } from "../../dynamo/node/requests.ts"
import type { KvorumError } from "../../Errors.ts"
import type { NodeId } from "../../types.ts"
import type { Bytes, Cursor } from "../Api.ts"

/** What the client offers in eventual namespaces. There is no compare-and-set and no atomic batch among it: nobody could keep their promise. */

export interface EventualOptions {
  /** Milliseconds that the whole call may take, retries included; default 10,000. */
  readonly deadlineMs?: number
  /** Copies that have to answer; default as the namespace has it. */
  readonly consistency?: Level
}

export interface EventualWriteOptions extends EventualOptions {
  /** Of the read that the write goes by: it replaces what was shown then, and nothing else. Without one it replaces nothing that others wrote. */
  readonly context?: string | undefined
  /** No stand-in may hold the write for an owner that is out of reach. */
  readonly strict?: boolean
}

export interface EventualPutOptions extends EventualWriteOptions {
  /** The value expires so many milliseconds after it was taken. */
  readonly ttlMs?: number
}

/** What a key holds, by the namespace's conflict rule. */
export interface EventualFound {
  /** Concurrent values; the members of a set; a counter or flag as text. None: the key is absent. */
  readonly siblings: ReadonlyArray<Uint8Array>
  readonly kind: "values" | "set" | "counter" | "flag"
  /** What was read, for the next write of this key; `undefined` when nothing is known of it. */
  readonly context: string | undefined
  readonly receipt: EventualReceipt
}

export interface EventualWritten {
  /** Of an increment: what its coordinator counts now. */
  readonly counter: bigint | undefined
  readonly receipt: EventualReceipt
}

export interface EventualEntry {
  readonly key: Uint8Array
  readonly siblings: ReadonlyArray<Uint8Array>
  readonly context: string
}

/** What a page has of one node. */
export interface ScanPart {
  readonly node: NodeId
  /** How many were read on it. */
  readonly slots: number
  readonly entries: number
}

export interface EventualPage {
  /** In order of slot, then key. */
  readonly entries: ReadonlyArray<EventualEntry>
  readonly cursor: Cursor | undefined
  readonly parts: ReadonlyArray<ScanPart>
  /** Only where `partial` was asked for. */
  readonly missing: ReadonlyArray<MissingSlots>
}

/** Slots of which no owner answered. */
export interface MissingSlots {
  /** How many. */
  readonly slots: number
  readonly error: KvorumError
}

export interface EventualCountOptions extends EventualOptions {
  readonly prefix?: Bytes
  readonly partial?: boolean
}

export interface EventualCounted {
  readonly count: number
  /** What each node gave, and of how many slots, in order of id. */
  readonly parts: ReadonlyArray<ScanPart>
  readonly partial: boolean
  readonly missing: ReadonlyArray<MissingSlots>
}

export interface EventualScanOptions extends EventualOptions {
  readonly prefix?: Bytes
  /** Entries wanted; up to 1000 and by default 1000. */
  readonly limit?: number
  readonly cursor?: Cursor
  /** Slots of which no owner answers are passed over and named in `missing`; without it the call fails. */
  readonly partial?: boolean
}

export type EventualBatchOperation =
  | {
      readonly op: "put"
      readonly key: Bytes
      readonly value: Bytes
      readonly ttlMs?: number
      readonly context?: string
    }
  | { readonly op: "delete"; readonly key: Bytes; readonly context?: string }
  | { readonly op: "add" | "remove"; readonly key: Bytes; readonly member: Bytes }
  | { readonly op: "increment"; readonly key: Bytes; readonly delta: number | bigint }

export type EventualBatchResult =
  | ({ readonly ok: true } & EventualWritten)
  | { readonly ok: false; readonly error: KvorumError }

export interface EventualClient {
  readonly get: (
    namespace: string,
    key: Bytes,
    options?: EventualOptions,
  ) => Effect.Effect<EventualFound, KvorumError>
  /** Under `siblings`, `lww` and `crdt:register`. */
  readonly put: (
    namespace: string,
    key: Bytes,
    value: Bytes,
    options?: EventualPutOptions,
  ) => Effect.Effect<EventualWritten, KvorumError>
  /** What the context covers; without one, what the coordinator holds (sets, flags and counters), or nothing that others wrote. */
  readonly delete: (
    namespace: string,
    key: Bytes,
    options?: EventualWriteOptions,
  ) => Effect.Effect<EventualWritten, KvorumError>
  /** Under `crdt:set`. */
  readonly add: (
    namespace: string,
    key: Bytes,
    member: Bytes,
    options?: EventualWriteOptions,
  ) => Effect.Effect<EventualWritten, KvorumError>
  readonly remove: (
    namespace: string,
    key: Bytes,
    member: Bytes,
    options?: EventualWriteOptions,
  ) => Effect.Effect<EventualWritten, KvorumError>
  /** Under `crdt:counter`. Counted once, however often the client has to ask. */
  readonly increment: (
    namespace: string,
    key: Bytes,
    delta: number | bigint,
    options?: EventualWriteOptions,
  ) => Effect.Effect<EventualWritten, KvorumError>
  /** Under `crdt:flag`; enabling wins over a disabling that had not seen it. */
  readonly setFlag: (
    namespace: string,
    key: Bytes,
    enabled: boolean,
    options?: EventualWriteOptions,
  ) => Effect.Effect<EventualWritten, KvorumError>
  /**
   * Reads the key, hands its concurrent values to `merge`, and writes what comes out in their place. Another write meanwhile is a sibling that the next `update` merges.
   */
  readonly update: (
    namespace: string,
    key: Bytes,
    merge: (values: ReadonlyArray<Uint8Array>) => Bytes,
    options?: EventualPutOptions,
  ) => Effect.Effect<EventualWritten, KvorumError>
  /** Many writes, each with its own result, in the order given. Writes of the same key happen in the order given. Fails as a whole only before anything was sent. */
  readonly batch: (
    namespace: string,
    operations: ReadonlyArray<EventualBatchOperation>,
    options?: EventualOptions,
  ) => Effect.Effect<ReadonlyArray<EventualBatchResult>, KvorumError>
  /** One page, gathered from owners of all slots, one of each: at level `one`. */
  readonly scanPage: (
    namespace: string,
    options?: EventualScanOptions,
  ) => Effect.Effect<EventualPage, KvorumError>
  /** How many keys there are, at level `one`: each slot is counted on one of its owners. The deadline counts for each page. */
  readonly count: (
    namespace: string,
    options?: EventualCountOptions,
  ) => Effect.Effect<EventualCounted, KvorumError>
}
