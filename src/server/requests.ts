import type {
  Consistency,
  NodeId,
  Position,
  RangeDescriptor,
  RangeId,
  ReplicaPlace,
  Version,
} from "../types.ts"
import type { PageEntry, Receipt, Refusal } from "../wire/answers.ts"
import type { CommandStatus } from "../wire/command.ts"

export type { PageEntry, RangeReport, Receipt, Refusal } from "../wire/answers.ts"

/**
 * What the doors ask of the store loop, and what it answers. Plain data: a door decodes a frame to a `Request`, and writes the `Reply`
 * with the same token back to the connection that the token stands for.
 */
interface RequestBase {
  /** Chosen by the door; unique among the requests that it has under way. */
  readonly token: number
  readonly range: RangeId
  /** Milliseconds until the answer is useless; then the loop answers by itself. */
  readonly deadlineMs: number
}

export interface MutateRequest extends RequestBase {
  readonly _tag: "Mutate"
  /** One encoded command (wire/command.ts). The loop keeps the bytes: the door must not reuse their buffer. */
  readonly command: Uint8Array
}

/** How current a read must be, beyond its level. */
export interface Freshness {
  /** Of a `bounded` read: how old, in milliseconds, the state may be. Else 0. */
  readonly maxStalenessMs: number
  /** What the session has seen: a state of an earlier range time is not served. 0 = nothing. */
  readonly atLeast: Version
  /** A `linearizable` read may be served by a follower, which asks its leader for a read index. */
  readonly anyReplica: boolean
}

/** A read that asks for nothing beyond its level. */
export const plainRead: Freshness = { maxStalenessMs: 0, atLeast: 0, anyReplica: false }

export interface GetRequest extends RequestBase, Freshness {
  readonly _tag: "Get"
  readonly level: Consistency
  readonly boundsVersion: number
  readonly position: Position
}

export interface ScanRequest extends RequestBase, Freshness {
  readonly _tag: "Scan"
  readonly level: Consistency
  readonly boundsVersion: number
  /** Inclusive. */
  readonly lower: Position
  /** Exclusive. Must lie inside the range, or be its end. */
  readonly upper: Position
  readonly limit: number
  /** Keys are counted, and none is returned. */
  readonly count?: KeyFilter | undefined
}

/** Which keys count: those that begin with `prefix`. */
export interface KeyFilter {
  /** Where the key begins in its position. */
  readonly offset: number
  readonly prefix: Uint8Array
}

/** Cuts a range in two. */
export interface SplitRequest extends RequestBase {
  readonly _tag: "Split"
  readonly boundsVersion: number
  /** The first position of the right half; `undefined` = about the middle of the data. */
  readonly at: Position | undefined
  /** Id of the right half, never used before. */
  readonly child: RangeId
}

/** Moves a range's replicas, in as many steps as it takes, to the places given. */
export interface ChangeMembersRequest extends RequestBase {
  readonly _tag: "ChangeMembers"
  readonly membersVersion: number
  /** All that there are to be in the end: voters and learners only. */
  readonly replicas: ReadonlyArray<ReplicaPlace>
}

/** Hands leadership to the voter on a node. */
export interface TransferRequest extends RequestBase {
  readonly _tag: "Transfer"
  readonly to: NodeId
}

/** Empties a range. */
export interface ClearRequest extends RequestBase {
  readonly _tag: "Clear"
  readonly boundsVersion: number
}

/** Takes in the right neighbour. */
export interface MergeRequest extends RequestBase {
  readonly _tag: "Merge"
  /** Of the range that takes it in: `range`. */
  readonly boundsVersion: number
  /** The neighbour, whose replicas are on the same nodes. Its id is gone after it. */
  readonly source: RangeId
}

export type DataRequest = MutateRequest | GetRequest | ScanRequest
/** What changes a range itself rather than its data; answered by `Changed`. */
export type RangeRequest =
  | SplitRequest
  | ChangeMembersRequest
  | TransferRequest
  | ClearRequest
  | MergeRequest
export type Request = DataRequest | RangeRequest

interface ReplyBase {
  readonly token: number
  /** The range's time (DESIGN section 3), from which the client reckons `expiresAt`; 0 when unknown. */
  readonly rangeTime: Version
}

export interface MutatedReply extends ReplyBase {
  readonly _tag: "Mutated"
  readonly status: CommandStatus
  readonly version: Version
  /** What `add` left; of a batch whose condition was false: which one. */
  readonly value: Uint8Array | undefined
  readonly receipt: Receipt
}

export interface ValueReply extends ReplyBase {
  readonly _tag: "Value"
  /** `undefined` = absent. */
  readonly value: Uint8Array | undefined
  readonly version: Version
  readonly receipt: Receipt
}

export interface PageReply extends ReplyBase {
  readonly _tag: "Page"
  readonly entries: ReadonlyArray<PageEntry>
  /** Keys of the page, also where they were only counted. */
  readonly count: number
  /** Where to go on inside the interval asked for; `undefined` when it is exhausted. */
  readonly next: Position | undefined
  readonly receipt: Receipt
}

export interface RefusedReply extends ReplyBase {
  readonly _tag: "Refused"
  readonly refusal: Refusal
}

/** A change of a range is applied in full. */
export interface ChangedReply extends ReplyBase {
  readonly _tag: "Changed"
  /** As it is now; of a split: the left half. */
  readonly descriptor: RangeDescriptor
  readonly receipt: Receipt
}

export type Reply = MutatedReply | ValueReply | PageReply | ChangedReply | RefusedReply
