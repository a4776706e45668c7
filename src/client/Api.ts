import type { Effect, Stream } from "effect"
import type { KvorumError } from "../Errors.ts"
import type { Consistency, NodeId, Version } from "../types.ts"
import type { NamespaceInfo, NodeStatus, RangeReport, Receipt } from "../wire/answers.ts"

/** What the client offers, as types; Client.ts explains it. */

export type Bytes = string | Uint8Array

export interface CallOptions {
  /** Milliseconds that the whole call may take, retries included; default 10,000. */
  readonly deadlineMs?: number
}

export interface ReadOptions extends CallOptions {
  /** Default linearizable. `local` answers from any replica, without asking others. */
  readonly level?: Consistency
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
  readonly version: Version
  readonly receipt: Receipt
}

export interface Deleted extends Written {
  /** False when there was no such key. */
  readonly existed: boolean
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
  | { readonly op: "put"; readonly key: Bytes; readonly value: Bytes }
  | { readonly op: "delete"; readonly key: Bytes }

export type BatchResult =
  | {
      readonly ok: true
      readonly existed: boolean
      readonly version: Version
      readonly receipt: Receipt
    }
  | { readonly ok: false; readonly error: KvorumError }

/** Where a scan goes on: opaque, printable. */
export type Cursor = string

export interface ScanOptions extends ReadOptions {
  /**
   * Only keys that begin with it. Keys come in order of slot, then key, through all ranges; a prefix that holds a whole hash tag
   * (`{user1}:`) names one slot, so that its keys come sorted and only one slot is read.
   */
  readonly prefix?: Bytes
  /** Entries wanted: of a page, up to 1000 and by default 1000; of a stream, any number and by default all. */
  readonly limit?: number
  readonly cursor?: Cursor
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
}

export interface ClusterStatus {
  readonly nodes: ReadonlyArray<NodeStatus>
  /** Nodes that the cluster has, but that did not answer. */
  readonly unreachable: ReadonlyArray<NodeId>
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
    options?: CallOptions,
  ) => Effect.Effect<Written, KvorumError>
  readonly delete: (
    namespace: string,
    key: Bytes,
    options?: CallOptions,
  ) => Effect.Effect<Deleted, KvorumError>
  /** Writes `value` if the key is as expected. A condition that does not hold is a result, not an error. */
  readonly compareAndSet: (
    namespace: string,
    key: Bytes,
    options: CallOptions & { readonly expect: Expectation; readonly value: Bytes },
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
  /** One page. Linearizable inside a range, not a snapshot across ranges. The deadline counts for each range asked. */
  readonly scanPage: (
    namespace: string,
    options?: ScanOptions,
  ) => Effect.Effect<ScanPage, KvorumError>
  /** All pages, fetched as they are consumed. */
  readonly scan: (namespace: string, options?: ScanOptions) => Stream.Stream<ScanEntry, KvorumError>
  /** The namespaces that the cluster has. */
  readonly namespaces: () => Effect.Effect<ReadonlyArray<NamespaceInfo>, KvorumError>
  /** Every range as the nodes that answer see it, the best informed report of each, in order of start. */
  readonly ranges: () => Effect.Effect<ReadonlyArray<RangeReport>, KvorumError>
  readonly status: () => Effect.Effect<ClusterStatus, KvorumError>
}
