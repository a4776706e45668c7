import { type ByteReader, MalformedBytes } from "../../lib/byteReader.ts"
import type { ByteWriter } from "../../lib/byteWriter.ts"
import type {
  BoundsVersion,
  LogIndex,
  MembersVersion,
  RangeId,
  ReplicaId,
  Term,
  Version,
} from "../../types.ts"

/** Sent: do not change the order. */
const kinds = ["prepare", "waiting", "prepared", "fence", "fenced", "asked", "applied"] as const

/**
 * What nodes say to each other about a merge (merges.ts). Any may be lost, repeated or late.
 *
 * - `prepare`: the target's leader wants the source as it is said here to be prepared. `waiting`: the replica lives, and is not there yet. `prepared`: it has applied
 *   the entry at `index`, of `term`, which prepared it, and its range time is `rangeTime`.
 * - `fence`: the merge was aborted, and the source is to go on. `fenced`: it has, or is another by now than the one that was to prepare.
 * - `asked`: how far has the receiver's replica of the target applied? `applied`: up to `index`.
 */
export interface MergeMessage {
  readonly _tag: "Merge"
  readonly kind: (typeof kinds)[number]
  /** Whose replica is to take it: the source or the target. */
  readonly range: RangeId
  readonly source: RangeId
  readonly target: RangeId
  /** Index of the entry in the target's log that froze it. */
  readonly merge: LogIndex
  /** Of the source, when the merge began. */
  readonly boundsVersion: BoundsVersion
  readonly membersVersion: MembersVersion
  /** Who says so: of `waiting`, `prepared` and `applied`. */
  readonly replica: ReplicaId
  readonly index: LogIndex
  readonly term: Term
  readonly rangeTime: Version
}

/** `u8 kind ‖ u64 range ‖ u64 source ‖ u64 target ‖ u64 merge ‖ u32 boundsVersion ‖ u32 membersVersion ‖ u64 replica ‖ u64 index ‖ u64 term ‖ u64 rangeTime` */
export function writeMergeMessage(writer: ByteWriter, message: MergeMessage): void {
  writer.u8(kinds.indexOf(message.kind))
  writer.u64(message.range)
  writer.u64(message.source)
  writer.u64(message.target)
  writer.u64(message.merge)
  writer.u32(message.boundsVersion)
  writer.u32(message.membersVersion)
  writer.u64(message.replica)
  writer.u64(message.index)
  writer.u64(message.term)
  writer.u64(message.rangeTime)
}

/** Throws `MalformedBytes`. */
export function readMergeMessage(reader: ByteReader): MergeMessage {
  const code = reader.u8()
  const kind = kinds[code]
  if (kind === undefined) throw new MalformedBytes(`a message of kind ${code} about a merge`)
  const message = {
    _tag: "Merge",
    kind,
    range: reader.u64(),
    source: reader.u64(),
    target: reader.u64(),
    merge: reader.u64(),
    boundsVersion: reader.u32(),
    membersVersion: reader.u32(),
    replica: reader.u64(),
    index: reader.u64(),
    term: reader.u64(),
    rangeTime: reader.u64(),
  } as const
  reader.end()
  return message
}
