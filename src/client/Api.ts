import type { Effect, Stream } from "effect"
import type { KvorumError } from "../Errors.ts"
import type { Consistency, NodeId, RangeDescriptor, RangeId, Version } from "../types.ts"
import type { NamespaceInfo, NodeStatus, RangeReport, Receipt } from "../wire/answers.ts"
import type { RangeChange } from "../wire/native.ts"
import type { EventualClient } from "./eventual/EventualApi.ts"

export type { RangeChange } from "../wire/native.ts"
export type * from "./eventual/EventualApi.ts"

/** What the client offers, as types; Client.ts explains it. */

export type Bytes = string | Uint8Array

/**
 * What a user of several calls has seen: reads with it, at any level and on any replica, show its own writes and never go back behind what an earlier read showed.
 */
export interface ClientSession {
  /** All of it as printable text, for another process to go on with; it changes with every call. */
  readonly token: string
}

export interface CallOptions {
  /** Milliseconds that the whole call may take, retries included; default 10,000. */
  readonly deadlineMs?: number
  readonly session?: ClientSession
}

export interface ReadOptions extends CallOptions {
  /**
   * Default linearizable. `bounded` answers from any replica whose state is at most `maxStalenessMs` old. `local` answers from any replica, without asking
   * others.
   */
  readonly level?: Consistency
  /** Of `bounded`, and only of it: 1 or more. */
  readonly maxStalenessMs?: number
  /** Of `linearizable`: any replica may answer, after asking its leader how far it must be; so that reads need not all go to one node. */
  readonly anyReplica?: boolean
}

export interface WriteOptions extends CallOptions {
  /** The value expires so many milliseconds after its version; from then on the key is absent. */
  readonly ttlMs?: number
}

export interface PutOptions extends WriteOptions {
  /** Write only if there is no such key. */
  readonly ifAbsent?: boolean
}

export type Found =
  | {
      readonly found: true
      readonly value: Uint8Array
      readonly version: Version
      readonly receipt: Receipt
    }
  | { readonly found: false; readonly receipt: Receipt }

export interface Written {
  /** False only with `ifAbsent`, when the key was there: nothing changed, and `version` is its present one. */
  readonly written: boolean
  readonly version: Version
  readonly receipt: Receipt
}

export interface Deleted {
  /** False when there was no such key. */
  readonly existed: boolean
  readonly version: Version
  readonly receipt: Receipt
}

export interface Added {
  /** What the key holds now. */
  readonly value: bigint
  readonly version: Version
  readonly receipt: Receipt
}

export interface Compared {
  /** False when the condition did not hold: nothing changed, and `version` is the key's present one, 0 when absent. */
  readonly swapped: boolean
  readonly version: Version
  readonly receipt: Receipt
}

export type Expectation =
  | { readonly version: Version }
  | { readonly absent: true }
  | { readonly value: Bytes }

export type BatchOperation =
  | { readonly op: "put"; readonly key: Bytes; readonly value: Bytes; readonly ttlMs?: number }
  | { readonly op: "delete"; readonly key: Bytes }
  | {
      readonly op: "add"
      readonly key: Bytes
      readonly delta: number | bigint
      readonly ttlMs?: number
    }

export type BatchResult =
  | {
      readonly ok: true
      readonly existed: boolean
      /** What an add left. */
      readonly value: bigint | undefined
      readonly version: Version
      readonly receipt: Receipt
    }
  | { readonly ok: false; readonly error: KvorumError }

/** One of a batch that is carried out as a whole or not at all. */
export type AtomicOperation = BatchOperation & { readonly expect?: Expectation }

export type AtomicResult =
  | { readonly applied: true; readonly version: Version; readonly receipt: Receipt }
  | {
      /** Nothing changed. */
      readonly applied: false
      /** Place of the first operation that stood in the way, from 0. */
      readonly failed: number
      /** Its condition did not hold, or it adds to what is no number. */
      readonly reason: "condition" | "notNumber"
      /** Present version of its key, 0 when absent. */
      readonly version: Version
      readonly receipt: Receipt
    }

/** Where a scan goes on: opaque, printable. */
export type Cursor = string

export interface ScanOptions extends ReadOptions {
  /**
   * Only keys that begin with it. In an `ordered` namespace keys come in order. In a `hash` one they come in order of slot, then key, through all ranges; a prefix
   * that holds a whole hash tag (`{user1}:`) names one slot, so that its keys come sorted and only one slot is read.
   */
  readonly prefix?: Bytes
  /** Entries wanted: of a page, up to 1000 and by default 1000; of a stream, any number and by default all. */
  readonly limit?: number
  readonly cursor?: Cursor
  /** What no node answers for is passed over and named in `missing`; without it the call fails. */
  readonly partial?: boolean
}

export interface CountOptions extends ReadOptions {
  /** As of a scan. */
  readonly prefix?: Bytes
  readonly partial?: boolean
}

/** What one range gave. */
export interface RangePart {
  readonly range: RangeId
  readonly entries: number
}

/** A range for which nobody answered; without an id where none is known. */
export interface MissingRange {
  readonly range: RangeId | undefined
  readonly error: KvorumError
}

export interface Counted {
  readonly count: number
  /** In order of id. */
  readonly parts: ReadonlyArray<RangePart>
  /** Some part is missing: only where `partial` was asked for. */
  readonly partial: boolean
  readonly missing: ReadonlyArray<MissingRange>
}

export interface ScanEntry {
  readonly key: Uint8Array
  readonly value: Uint8Array
  readonly version: Version
}

export interface ScanPage {
  readonly entries: ReadonlyArray<ScanEntry>
  /** `undefined` at the end. */
  readonly cursor: Cursor | undefined
  /** What each range gave of it. */
  readonly parts: ReadonlyArray<RangePart>
  readonly missing: ReadonlyArray<MissingRange>
}

export interface ClusterStatus {
  readonly nodes: ReadonlyArray<NodeStatus>
  /** Nodes that the cluster has, but that did not answer. */
  readonly unreachable: ReadonlyArray<NodeId>
}

export interface RangeChanged {
  /** As it is now; of a split: the left half. */
  readonly descriptor: RangeDescriptor
  readonly receipt: Receipt
}

export interface ClientShape {
  readonly get: (
    namespace: string,
    key: Bytes,
    options?: ReadOptions,
  ) => Effect.Effect<Found, KvorumError>
  readonly put: (
    namespace: string,
    key: Bytes,
    value: Bytes,
    options?: PutOptions,
  ) => Effect.Effect<Written, KvorumError>
  readonly delete: (
    namespace: string,
    key: Bytes,
    options?: CallOptions,
  ) => Effect.Effect<Deleted, KvorumError>
  /**
   * Adds to the decimal number that the key holds, 0 when absent; whole numbers of 64 bits with a sign. A value that is no such number, or a sum that is none, is
   * refused, and nothing changes. Without `ttlMs` an expiry that the key has stays.
   */
  readonly add: (
    namespace: string,
    key: Bytes,
    delta: number | bigint,
    options?: WriteOptions,
  ) => Effect.Effect<Added, KvorumError>
  /** Writes `value` if the key is as expected. A condition that does not hold is a result, not an error. */
  readonly compareAndSet: (
    namespace: string,
    key: Bytes,
    options: WriteOptions & { readonly expect: Expectation; readonly value: Bytes },
  ) => Effect.Effect<Compared, KvorumError>
  /**
   * Many writes at once, not atomic: each has its own result, in the order given. Writes of the same key happen in the order given.
   * Fails as a whole only before anything was sent.
   */
  readonly batch: (
    namespace: string,
    operations: ReadonlyArray<BatchOperation>,
    options?: CallOptions,
  ) => Effect.Effect<ReadonlyArray<BatchResult>, KvorumError>
  /**
   * All operations at one moment, or none. Their keys must lie in one range, each in one operation only; conditions, and the numbers that adds begin from, are
   * those before the batch. A condition that does not hold is a result, not an error.
   */
  readonly atomicBatch: (
    namespace: string,
    operations: ReadonlyArray<AtomicOperation>,
    options?: CallOptions,
  ) => Effect.Effect<AtomicResult, KvorumError>
  /** A new session, or the one that a token stands for; refused when the token is of another cluster. */
  readonly session: (token?: string) => Effect.Effect<ClientSession, KvorumError>
  /** One page. Linearizable inside a range, not a snapshot across ranges. The deadline counts for each range asked. */
  readonly scanPage: (
    namespace: string,
    options?: ScanOptions,
  ) => Effect.Effect<ScanPage, KvorumError>
  /** All pages, fetched as they are consumed. */
  readonly scan: (namespace: string, options?: ScanOptions) => Stream.Stream<ScanEntry, KvorumError>
  /** How many keys there are, counted where they are. The deadline counts for each question to a range. */
  readonly count: (namespace: string, options?: CountOptions) => Effect.Effect<Counted, KvorumError>
  /** What there is to do in eventual namespaces. */
  readonly eventual: EventualClient
  /** A namespace by its name: its mode, and how it spreads keys. */
  readonly namespace: (name: string) => Effect.Effect<NamespaceInfo, KvorumError>
  /** The namespaces that the cluster has. */
  readonly namespaces: () => Effect.Effect<ReadonlyArray<NamespaceInfo>, KvorumError>
  /** Every range as the nodes that answer see it, the best informed report of each, in order of start. */
  readonly ranges: () => Effect.Effect<ReadonlyArray<RangeReport>, KvorumError>
  readonly status: () => Effect.Effect<ClusterStatus, KvorumError>
  /**
   * Has a procedure of the control plane carried out by a node, any one unless `node` is given. Arguments and result are JSON. It is sent once:
   * an answer that is lost leaves the outcome unknown. `deadlineMs` is 60,000 by default and an hour at most.
   */
  readonly admin: (
    verb: string,
    args: unknown,
    options?: CallOptions & { readonly node?: NodeId },
  ) => Effect.Effect<unknown, KvorumError>
  /** For nodes only (`internal`). `RangeMoved` when the range is no longer of the version named, also because this very change has happened. */
  readonly changeRange: (
    range: RangeId,
    change: RangeChange,
    options?: CallOptions,
  ) => Effect.Effect<RangeChanged, KvorumError>
}
