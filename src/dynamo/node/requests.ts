import type { NamespaceId, NodeId } from "../../types.ts"
import type { Level } from "../coordinator/slotPlan.ts"

/**
 * What the doors ask of the eventual half of a node, and what it answers: plain data. Whichever node is asked coordinates: an owner of the key's slot, or else a
 * stand-in, so clients ask an owner first.
 */
interface RequestBase {
  /** Chosen by the driver; unique among the requests that are under way. */
  readonly token: number
  readonly namespace: NamespaceId
  /** `undefined`: as the namespace has it. */
  readonly level: Level | undefined
  /** Milliseconds until the answer is useless; then the coordinator answers by itself. */
  readonly deadlineMs: number
}

/** What a write does to its key. Which of them a namespace takes goes by its conflict rule (`changesOf`). */
export type EventualChange =
  /** `ttlMs` 0: for ever. */
  | { readonly _tag: "Put"; readonly value: Uint8Array; readonly ttlMs: number }
  | { readonly _tag: "Delete" }
  | { readonly _tag: "Add"; readonly member: Uint8Array }
  | { readonly _tag: "Remove"; readonly member: Uint8Array }
  | { readonly _tag: "Increment"; readonly delta: bigint }
  | { readonly _tag: "Enable" }
  | { readonly _tag: "Disable" }

export interface EventualWrite extends RequestBase {
  readonly _tag: "EventualWrite"
  readonly key: Uint8Array
  readonly change: EventualChange
  /** A context token (contextToken.ts); `undefined`: a blind write. */
  readonly context: Uint8Array | undefined
  /** No stand-in may hold it. */
  readonly strict: boolean
  /** The same on every retry of one increment; 0 = it is never retried. */
  readonly requestId: number
  /** The increment was sent before: only a coordinator that remembers it may answer for it, any other does not know what became of it. */
  readonly isRetry?: boolean
}

export interface EventualRead extends RequestBase {
  readonly _tag: "EventualRead"
  readonly key: Uint8Array
}

/** A page of what this node alone holds, of slots that it owns: a part of a scan that somebody gathers from all nodes. */
export interface EventualPage extends RequestBase {
  readonly _tag: "EventualPage"
  /** Runs of slots, ascending: first slot and how many, first slot and how many. */
  readonly slots: ReadonlyArray<number>
  readonly prefix: Uint8Array
  /** Go on behind this slot and key. */
  readonly after: { readonly slot: number; readonly key: Uint8Array } | undefined
  readonly limit: number
}

export type EventualRequest = EventualWrite | EventualRead | EventualPage

/** What an answer says of itself. */
export interface EventualReceipt {
  readonly coordinator: NodeId
  readonly asked: Level
  /** The highest level that those who answered make up; of `OutcomeUnknown` below the one asked. `none`: not even one owner. */
  readonly achieved: Level | "none"
  /** Owners that hold the write, or answered the read, when the client was answered. */
  readonly answered: ReadonlyArray<NodeId>
  /** Owners of the slot, old ones first. */
  readonly owners: ReadonlyArray<NodeId>
  /** Nodes that hold the write as a hint, and for whom. An owner that holds one for itself goes by a newer ring than the coordinator, and brings it to whoever that names. */
  readonly standIns: ReadonlyArray<{ readonly node: NodeId; readonly owner: NodeId }>
  /** Owners alone do not make up the level. */
  readonly sloppy: boolean
  /** Whether reads and writes at the levels given overlap: of a write with the namespace's reads, of a read with its writes. */
  readonly overlap: boolean
  /** Of a read: owners that were sent what they lacked before it was answered. */
  readonly repairs: ReadonlyArray<NodeId>
}

export interface EventualWritten {
  readonly _tag: "EventualWritten"
  readonly token: number
  /** Of an increment: the counter as its coordinator has it now. */
  readonly counter: bigint | undefined
  readonly receipt: EventualReceipt
}

export interface EventualValue {
  readonly _tag: "EventualValue"
  readonly token: number
  /** A state (keyState.ts) in which nothing is left that has expired; `undefined`: nobody who answered has anything of the key. `valueView.ts` takes it apart. */
  readonly state: Uint8Array | undefined
  readonly receipt: EventualReceipt
}

export interface EventualEntries {
  readonly _tag: "EventualEntries"
  readonly token: number
  readonly node: NodeId
  /** In order of slot, then key. Deleted ones are left out. */
  readonly entries: ReadonlyArray<{ readonly key: Uint8Array; readonly state: Uint8Array }>
  /** Where to go on; `undefined`: these were all. */
  readonly next: { readonly slot: number; readonly key: Uint8Array } | undefined
}

/** Why a request was not carried out, and what the caller does next. */
export type EventualRefusal =
  /** Fewer nodes are up than the level asks for; or too few owners could be brought what a read has found in time. Nothing new was written. */
  | {
      readonly _tag: "LevelUnavailable"
      readonly level: Level
      readonly answered: ReadonlyArray<NodeId>
    }
  /** The write is held somewhere, and may or may not become visible; repair spreads it. */
  | { readonly _tag: "WriteUnknown"; readonly receipt: EventualReceipt | undefined }
  /** The node does not own the slot (any more), and the request allows no stand-in: ask by a newer ring. */
  | { readonly _tag: "RingMoved"; readonly ringVersion: number }
  /** The key has more concurrent values than are kept apart: read, and write with the context read. */
  | { readonly _tag: "TooManySiblings"; readonly limit: number }
  /** The context is none of this key, or from before the node lost its data: read again. */
  | { readonly _tag: "BadContext"; readonly message: string }
  | { readonly _tag: "NotSupportedInMode"; readonly message: string }
  | { readonly _tag: "ClockAhead"; readonly message: string }
  | { readonly _tag: "InvalidRequest"; readonly message: string }
  | { readonly _tag: "Overloaded"; readonly what: string }
  | { readonly _tag: "DiskFull"; readonly node: NodeId }
  | { readonly _tag: "StorageCorrupt"; readonly message: string }

export interface EventualRefused {
  readonly _tag: "EventualRefused"
  readonly token: number
  readonly refusal: EventualRefusal
}

export type EventualReply = EventualWritten | EventualValue | EventualEntries | EventualRefused
