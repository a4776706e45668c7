import { ByteReader, MalformedBytes } from "../../lib/byteReader.ts"
import { ByteWriter } from "../../lib/byteWriter.ts"
import type {
  BoundsVersion,
  LogIndex,
  MembersVersion,
  RangeDescriptor,
  RangeId,
  Term,
  Version,
} from "../../types.ts"
import { readDescriptor, writeDescriptor } from "../descriptorLayout.ts"

/**
 * What entries of kind `merge` hold. Each is a step of a merge (merges.ts), in the log of the target or of the source. A merge is named by the target's id and the
 * index of the entry that froze it. Stored and sent: do not change. Numbers are little-endian.
 *
 *     u64 base ‖ u8 step ‖
 *       1 freeze    target   u32 boundsVersion ‖ u32 membersVersion ‖ descriptor of the source (descriptorLayout.ts)
 *       2 prepare   source   u64 target ‖ u64 merge ‖ u32 boundsVersion ‖ u32 membersVersion
 *       3 commit    target   u64 merge ‖ u64 index ‖ u64 term: of the entry that prepared the source
 *       4 abort     target   u64 merge
 *       5 fence     source   as prepare
 *       6 thaw      target   u64 merge
 *       7 settle    either   u64 index
 *
 * Versions are those of the range whose log it is, as the proposer saw them: with others at apply the step does nothing.
 */
export type MergeStep =
  | {
      readonly _tag: "Freeze"
      readonly boundsVersion: BoundsVersion
      readonly membersVersion: MembersVersion
      readonly source: RangeDescriptor
    }
  | SourceStep
  | {
      readonly _tag: "Commit"
      readonly merge: LogIndex
      /** Of the entry that prepared the source. */
      readonly index: LogIndex
      readonly term: Term
    }
  | { readonly _tag: "Abort"; readonly merge: LogIndex }
  | { readonly _tag: "Thaw"; readonly merge: LogIndex }
  /** Ranges absorbed up to this index are gone from all nodes that hold the range. */
  | { readonly _tag: "Settle"; readonly index: LogIndex }

/** A step in the source's log. */
export interface SourceStep {
  readonly _tag: "Prepare" | "Fence"
  readonly target: RangeId
  readonly merge: LogIndex
  readonly boundsVersion: BoundsVersion
  readonly membersVersion: MembersVersion
}

const steps = { Freeze: 1, Prepare: 2, Commit: 3, Abort: 4, Fence: 5, Thaw: 6, Settle: 7 } as const

export function encodeMergeStep(base: Version, step: MergeStep): Uint8Array {
  const writer = new ByteWriter(64)
  writer.u64(base)
  writer.u8(steps[step._tag])
  switch (step._tag) {
    case "Freeze":
      writer.u32(step.boundsVersion)
      writer.u32(step.membersVersion)
      writeDescriptor(writer, step.source)
      break
    case "Prepare":
    case "Fence":
      writer.u64(step.target)
      writer.u64(step.merge)
      writer.u32(step.boundsVersion)
      writer.u32(step.membersVersion)
      break
    case "Commit":
      writer.u64(step.merge)
      writer.u64(step.index)
      writer.u64(step.term)
      break
    case "Abort":
    case "Thaw":
      writer.u64(step.merge)
      break
    case "Settle":
      writer.u64(step.index)
      break
    default:
      step satisfies never
  }
  return writer.take()
}

/** Throws `MalformedBytes`. */
export function decodeMergeStep(data: Uint8Array): MergeStep {
  const reader = new ByteReader(data)
  reader.u64()
  const step = readStep(reader.u8(), reader)
  reader.end()
  return step
}

function readStep(code: number, reader: ByteReader): MergeStep {
  switch (code) {
    case steps.Freeze: {
      const [boundsVersion, membersVersion] = [reader.u32(), reader.u32()]
      return { _tag: "Freeze", boundsVersion, membersVersion, source: readDescriptor(reader) }
    }
    case steps.Prepare:
    case steps.Fence: {
      const [target, merge] = [reader.u64(), reader.u64()]
      const [boundsVersion, membersVersion] = [reader.u32(), reader.u32()]
      const _tag = code === steps.Prepare ? "Prepare" : "Fence"
      return { _tag, target, merge, boundsVersion, membersVersion }
    }
    case steps.Commit: {
      const merge = reader.u64()
      return { _tag: "Commit", merge, index: reader.u64(), term: reader.u64() }
    }
    case steps.Abort:
      return { _tag: "Abort", merge: reader.u64() }
    case steps.Thaw:
      return { _tag: "Thaw", merge: reader.u64() }
    case steps.Settle:
      return { _tag: "Settle", index: reader.u64() }
    default:
      throw new MalformedBytes(`step ${code} of a merge`)
  }
}
