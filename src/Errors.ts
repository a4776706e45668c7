import { Schema } from "effect"

/**
 * What a caller of Kvorum can get instead of an answer, each documented by what the caller does about it. The client has
 * already retried inside the call's deadline whatever a retry can help.
 */

/** Go elsewhere: the node asked does not lead the range, and no leader was found before the deadline. */
export class NotLeader extends Schema.TaggedError<NotLeader>()("NotLeader", {
  range: Schema.Number,
  leader: Schema.UndefinedOr(Schema.Number),
}) {
  override get message(): string {
    const hint = this.leader === undefined ? "no leader is known" : `n${this.leader} leads`
    return `range ${this.range} is not led by the node asked; ${hint}`
  }
}

/** Go elsewhere: the range's bounds or members changed, and its new place was not found before the deadline. */
export class RangeMoved extends Schema.TaggedError<RangeMoved>()("RangeMoved", {
  detail: Schema.String,
}) {
  override get message(): string {
    return this.detail
  }
}

/** Wait, then try again: no majority of the range's replicas could be reached in time. Nothing was done. */
export class QuorumUnavailable extends Schema.TaggedError<QuorumUnavailable>()(
  "QuorumUnavailable",
  { detail: Schema.String },
) {
  override get message(): string {
    return this.detail
  }
}

/** Wait, then try again with less: a queue or table is full. Nothing was done. */
export class Overloaded extends Schema.TaggedError<Overloaded>()("Overloaded", {
  what: Schema.String,
}) {
  override get message(): string {
    return `${this.what} is full`
  }
}

/**
 * Free space on the disk of that node, or wait until somebody has: it takes no puts, and takes them again by itself within seconds of
 * space. Reads go on, and deletes too unless a majority of the range's journals has no space left. Nothing was done.
 */
export class DiskFull extends Schema.TaggedError<DiskFull>()("DiskFull", {
  /** A node, or a directory. */
  where: Schema.String,
}) {
  override get message(): string {
    return `the disk of ${this.where} is full: free space there (reads still work, and deletes while a majority of the replicas can log them); puts are taken again within seconds, without a restart`
  }
}

/** Fix the request: the text names the limit or rule that it breaks. Nothing was done. */
export class InvalidRequest extends Schema.TaggedError<InvalidRequest>()("InvalidRequest", {
  detail: Schema.String,
}) {
  override get message(): string {
    return this.detail
  }
}

/** Fix the request: there is no namespace of this name. Nothing was done. */
export class NamespaceNotFound extends Schema.TaggedError<NamespaceNotFound>()(
  "NamespaceNotFound",
  { namespace: Schema.String },
) {
  override get message(): string {
    return `there is no namespace "${this.namespace}"`
  }
}

/** Wait for the repair: stored bytes of this range are damaged on the node that would answer. Nothing was answered from them. */
export class StorageCorrupt extends Schema.TaggedError<StorageCorrupt>()("StorageCorrupt", {
  detail: Schema.String,
}) {
  override get message(): string {
    return this.detail
  }
}

/** Find out, by reading: the write may or may not have happened, or may yet happen until it expires. */
export class OutcomeUnknown extends Schema.TaggedError<OutcomeUnknown>()("OutcomeUnknown", {
  detail: Schema.String,
}) {
  override get message(): string {
    return this.detail
  }
}

/** Read the key, and write with the context read: more concurrent values than these are not kept apart. Nothing was done. */
export class TooManySiblings extends Schema.TaggedError<TooManySiblings>()("TooManySiblings", {
  limit: Schema.Number,
}) {
  override get message(): string {
    return `the key has ${this.limit} values, or 1 MiB of them, that this write has not seen: read it, and write with the context that was read`
  }
}

/** Use another operation, or a namespace of the other mode: what was asked for is not to be had in this one. Nothing was done. */
export class NotSupportedInMode extends Schema.TaggedError<NotSupportedInMode>()(
  "NotSupportedInMode",
  { detail: Schema.String },
) {
  override get message(): string {
    return this.detail
  }
}

export type KvorumError =
  | NotLeader
  | RangeMoved
  | QuorumUnavailable
  | Overloaded
  | DiskFull
  | InvalidRequest
  | NamespaceNotFound
  | StorageCorrupt
  | OutcomeUnknown
  | TooManySiblings
  | NotSupportedInMode

/** Any of them, for decoding. */
export const KvorumError = Schema.Union([
  NotLeader,
  RangeMoved,
  QuorumUnavailable,
  Overloaded,
  DiskFull,
  InvalidRequest,
  NamespaceNotFound,
  StorageCorrupt,
  OutcomeUnknown,
  TooManySiblings,
  NotSupportedInMode,
])
