import type { Consistency, Position, RangeId, Version } from "../types.ts"
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

export interface GetRequest extends RequestBase {
  readonly _tag: "Get"
  readonly level: Consistency
  readonly boundsVersion: number
  readonly position: Position
}

export interface ScanRequest extends RequestBase {
  readonly _tag: "Scan"
  readonly level: Consistency
  readonly boundsVersion: number
  /** Inclusive. */
  readonly lower: Position
  /** Exclusive. Must lie inside the range, or be its end. */
  readonly upper: Position
  readonly limit: number
}

export type Request = MutateRequest | GetRequest | ScanRequest

interface ReplyBase {
  readonly token: number
  /** The range's time (DESIGN section 3), from which the client reckons `expiresAt`; 0 when unknown. */
  readonly rangeTime: Version
}

export interface MutatedReply extends ReplyBase {
  readonly _tag: "Mutated"
  readonly status: CommandStatus
  readonly version: Version
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
  /** Where to go on inside the interval asked for; `undefined` when it is exhausted. */
  readonly next: Position | undefined
  readonly receipt: Receipt
}

export interface RefusedReply extends ReplyBase {
  readonly _tag: "Refused"
  readonly refusal: Refusal
}

export type Reply = MutatedReply | ValueReply | PageReply | RefusedReply
