import { type ByteReader, MalformedBytes } from "../../lib/byteReader.ts"
import { equalBytes } from "../../lib/bytes.ts"
import type { ByteWriter } from "../../lib/byteWriter.ts"
import { namespaceOfInterval } from "../../lib/position.ts"
import type {
  BoundsVersion,
  LogIndex,
  RangeDescriptor,
  RangeId,
  ReplicaId,
  ReplicaPlace,
  Term,
} from "../../types.ts"
import { metaRange } from "../bootstrap.ts"
import { readDescriptor, writeDescriptor } from "../descriptorLayout.ts"
import { isJoint } from "../descriptors.ts"
import type { MergeStep, SourceStep } from "./entries.ts"

/** What a range's state says of a merge that it takes part in; each changes by the range's own log alone. */
export type MergeState = TargetState | SourceState

export interface TargetState {
  readonly _tag: "Target"
  /** Index of the entry that froze it: names the merge. */
  readonly merge: LogIndex
  /** `aborted`: it will not be; the source has still to learn that. Either way members and bounds stay as they are. */
  readonly phase: "frozen" | "aborted"
  /** As it must be when it prepares. */
  readonly source: RangeDescriptor
}

export interface SourceState {
  readonly _tag: "Source"
  readonly target: RangeId
  readonly merge: LogIndex
  /** The entry that prepared it: from there on nothing changes, and nothing is served. */
  readonly index: LogIndex
  readonly term: Term
  /** As of that entry. */
  readonly chain: number
}

/** A range that this one, or one that it was split from, has taken in. Some node may still hold a replica of it. */
export interface Absorbed {
  /** As it was in the end. */
  readonly source: RangeDescriptor
  /** The largest replica id that it ever had. */
  readonly lastReplica: ReplicaId
  /** Who took it, and with which version. */
  readonly target: RangeId
  readonly boundsVersion: BoundsVersion
  /** The largest replica id that the target had had then: a larger one came after, and begins with what the target has become. */
  readonly targetReplica: ReplicaId
  /** A replica of the range whose state this is has dealt with it once it has applied so far. */
  readonly since: LogIndex
}

/** Absorbed ranges that a state keeps: with so many no further merge begins. */
export const absorbedMax = 16

/** Why this merge can't begin, or `undefined`; of what apply looks at too, so it rests on replicated state alone. */
export function freezeProblem(
  target: RangeDescriptor,
  source: RangeDescriptor,
  state: {
    readonly merge: MergeState | undefined
    readonly absorbed: ReadonlyArray<Absorbed>
  },
): string | undefined {
  if (target.id === metaRange || source.id === metaRange) {
    return "the range of the system is never merged"
  }
  if (target.end.length === 0 || !equalBytes(target.end, source.start)) {
    return `range ${source.id} does not begin where range ${target.id} ends`
  }
  if (
    target.namespace !== source.namespace ||
    namespaceOfInterval(target.start, source.end) !== target.namespace
  ) {
    return "a range never spans two namespaces"
  }
  if (isJoint(target.replicas) || isJoint(source.replicas)) {
    return "the replicas of one of them are being changed"
  }
  if (!areTogether(target.replicas, source.replicas)) {
    return `ranges ${target.id} and ${source.id} do not have their replicas on the same nodes`
  }
  if (state.merge !== undefined) return `range ${target.id} takes part in another merge`
  if (state.absorbed.length >= absorbedMax) {
    return `range ${target.id} has taken in ${absorbedMax} ranges that some replica has not dealt with yet`
  }
  return undefined
}

/** On the same nodes, with the same roles there. */
export function areTogether(
  left: ReadonlyArray<ReplicaPlace>,
  right: ReadonlyArray<ReplicaPlace>,
): boolean {
  if (left.length !== right.length) return false
  return left.every(({ node, role }) =>
    right.some((place) => place.node === node && place.role === role),
  )
}

/** Whether the step speaks of the range as it is. */
export function fits(descriptor: RangeDescriptor, step: SourceStep): boolean {
  const { boundsVersion, membersVersion } = step
  return descriptor.boundsVersion === boundsVersion && descriptor.membersVersion === membersVersion
}

/** Whether the source is prepared for this very merge. */
export function isPreparedFor(
  merge: MergeState | undefined,
  step: Pick<SourceStep, "target" | "merge">,
): merge is SourceState {
  return merge?._tag === "Source" && merge.target === step.target && merge.merge === step.merge
}

/** What the target is once it has taken in the source. */
export function mergedDescriptor(
  target: RangeDescriptor,
  source: RangeDescriptor,
): RangeDescriptor {
  const boundsVersion = Math.max(target.boundsVersion, source.boundsVersion) + 1
  return { ...target, end: source.end, boundsVersion }
}

/** The merge of an abort, a thaw or a commit is the one that the target is frozen for, and as far. */
export function isAt(
  merge: MergeState | undefined,
  step: Extract<MergeStep, { readonly _tag: "Commit" | "Abort" | "Thaw" }>,
): merge is TargetState {
  const phase = step._tag === "Thaw" ? "aborted" : "frozen"
  return merge?._tag === "Target" && merge.merge === step.merge && merge.phase === phase
}

// ---- Stored in state keys: do not change.

const tags = { none: 0, frozen: 1, aborted: 2, source: 3 } as const

export function writeMergeState(writer: ByteWriter, merge: MergeState | undefined): void {
  if (merge === undefined) return writer.u8(tags.none)
  if (merge._tag === "Target") {
    writer.u8(tags[merge.phase])
    writer.u64(merge.merge)
    return writeDescriptor(writer, merge.source)
  }
  writer.u8(tags.source)
  writer.u64(merge.target)
  writer.u64(merge.merge)
  writer.u64(merge.index)
  writer.u64(merge.term)
  writer.u32(merge.chain)
}

/** Throws `MalformedBytes`. */
export function readMergeState(reader: ByteReader): MergeState | undefined {
  const tag = reader.u8()
  switch (tag) {
    case tags.none:
      return undefined
    case tags.frozen:
    case tags.aborted: {
      const phase = tag === tags.frozen ? "frozen" : "aborted"
      return { _tag: "Target", merge: reader.u64(), phase, source: readDescriptor(reader) }
    }
    case tags.source: {
      const [target, merge] = [reader.u64(), reader.u64()]
      const [index, term] = [reader.u64(), reader.u64()]
      return { _tag: "Source", target, merge, index, term, chain: reader.u32() }
    }
    default:
      throw new MalformedBytes(`a merge's state of kind ${tag}`)
  }
}

export function writeAbsorbed(writer: ByteWriter, absorbed: ReadonlyArray<Absorbed>): void {
  writer.u8(absorbed.length)
  for (const each of absorbed) {
    writeDescriptor(writer, each.source)
    writer.u64(each.lastReplica)
    writer.u64(each.target)
    writer.u32(each.boundsVersion)
    writer.u64(each.targetReplica)
    writer.u64(each.since)
  }
}

/** Throws `MalformedBytes`. */
export function readAbsorbed(reader: ByteReader): ReadonlyArray<Absorbed> {
  const absorbed: Array<Absorbed> = []
  const count = reader.u8()
  for (let i = 0; i < count; i++) {
    absorbed.push({
      source: readDescriptor(reader),
      lastReplica: reader.u64(),
      target: reader.u64(),
      boundsVersion: reader.u32(),
      targetReplica: reader.u64(),
      since: reader.u64(),
    })
  }
  return absorbed
}
