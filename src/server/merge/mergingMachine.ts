import { assert } from "../../lib/assert.ts"
import type { LogIndex, RangeDescriptor, ReplicaId, Version } from "../../types.ts"
import { isJoint } from "../descriptors.ts"
import { type AppliedEntry, entryBase } from "../entryData.ts"
import type { KeyWriter } from "../keyWriter.ts"
import type { RangeState } from "../rangeState.ts"
import type { SessionTable } from "../sessions.ts"
import { decodeMergeStep, type MergeStep, type SourceStep } from "./entries.ts"
import {
  type Absorbed,
  absorbedMax,
  fits,
  freezeProblem,
  isAt,
  isPreparedFor,
  type MergeState,
  mergedDescriptor,
} from "./state.ts"

/**
 * What a range is, and what the steps of merges in its log make of it (merges.ts). The state machine of a range (apply.ts) is built on it.
 */
export abstract class MergingMachine {
  readonly replica: ReplicaId
  readonly sessions: SessionTable
  descriptor: RangeDescriptor
  /** The largest replica id that the range ever had. */
  lastReplica: ReplicaId
  rangeTime: Version
  /** Range time of the newest state key that is flushed here; 0 = none is. Each replica has its own. */
  flushedTime: Version = 0
  merge: MergeState | undefined
  absorbed: ReadonlyArray<Absorbed>
  /** The range that the last entry took in. */
  taken: MergingMachine | undefined
  protected readonly keys: KeyWriter
  /** Index of the last entry that took in another range. */
  private mergedIndex: LogIndex = 0

  constructor(state: RangeState, keys: KeyWriter, sessions: SessionTable) {
    this.replica = state.replica
    this.descriptor = state.descriptor
    this.lastReplica = state.lastReplica
    this.rangeTime = state.rangeTime
    this.merge = state.merge
    this.absorbed = state.absorbed
    this.keys = keys
    this.sessions = sessions
  }

  /** Running checksum over the writes of every entry applied; equal at equal index on all replicas. */
  get chain(): number {
    return this.keys.chain
  }

  /** It is about to be merged into another range: nothing changes any more, and nothing may be served, unless that comes to nothing. */
  get isPrepared(): boolean {
    return this.merge?._tag === "Source"
  }

  /** A state key of this index is flushed. One from before a merge says nothing of the keys that came with it. */
  flushed(index: LogIndex, time: Version): void {
    if (index >= this.mergedIndex && time > this.flushedTime) this.flushedTime = time
  }

  /** True when the step took effect. */
  protected applyMerge(entry: AppliedEntry, source: MergingMachine | undefined): boolean {
    const base = entryBase(entry.data)
    const before = this.rangeTime
    assert(base > before, () => `an entry stamped ${base} after range time ${before}`)
    this.keys.fold(base, entry.kind)
    const step = decodeMergeStep(entry.data)
    const isTaken = this.takesStep(step, entry, source)
    if (!this.isPrepared) {
      this.rangeTime = base
      this.sessions.sweep(before, base)
    }
    return isTaken
  }

  private takesStep(
    step: MergeStep,
    entry: AppliedEntry,
    source: MergingMachine | undefined,
  ): boolean {
    switch (step._tag) {
      case "Freeze":
        return this.freeze(step, entry.index)
      case "Prepare":
        return this.prepare(step, entry)
      case "Fence":
        return this.fence(step)
      case "Commit":
        return this.takeIn(step, entry, source)
      case "Abort":
        if (!isAt(this.merge, step)) return false
        this.merge = { ...this.merge, phase: "aborted" }
        return true
      case "Thaw":
        if (!isAt(this.merge, step)) return false
        this.merge = undefined
        return true
      case "Settle":
        this.absorbed = this.absorbed.filter(({ since }) => since > step.index)
        return true
      default:
        return step satisfies never
    }
  }

  private freeze(
    { source, boundsVersion, membersVersion }: Extract<MergeStep, { readonly _tag: "Freeze" }>,
    merge: LogIndex,
  ): boolean {
    const { descriptor } = this
    const isSame =
      descriptor.boundsVersion === boundsVersion && descriptor.membersVersion === membersVersion
    if (!isSame || freezeProblem(descriptor, source, this) !== undefined) return false
    this.merge = { _tag: "Target", merge, phase: "frozen", source }
    return true
  }

  private prepare(step: SourceStep, { index, term }: AppliedEntry): boolean {
    if (this.merge !== undefined || !fits(this.descriptor, step)) return false
    if (isJoint(this.descriptor.replicas) || this.absorbed.length >= absorbedMax) return false
    const { target, merge } = step
    this.merge = { _tag: "Source", target, merge, index, term, chain: this.chain }
    return true
  }

  /** The merge came to nothing. The versions change with it, so that no word of it that comes late prepares the range again. */
  private fence(step: SourceStep): boolean {
    if (!fits(this.descriptor, step)) return false
    if (this.isPrepared && !isPreparedFor(this.merge, step)) return false
    if (this.isPrepared) this.merge = undefined
    const membersVersion = this.descriptor.membersVersion + 1
    this.descriptor = { ...this.descriptor, membersVersion }
    return true
  }

  /** Its data stays where it is: both lie in one engine. */
  private takeIn(
    step: Extract<MergeStep, { readonly _tag: "Commit" }>,
    { index, data }: AppliedEntry,
    source: MergingMachine | undefined,
  ): boolean {
    const { merge, descriptor } = this
    if (!isAt(merge, step)) return false
    const prepared = source?.merge
    const { id } = descriptor
    const isRight =
      prepared?._tag === "Source" && prepared.target === id && prepared.merge === step.merge
    assert(source !== undefined && isRight, () => `range ${id} takes in what was prepared for it`)
    assert(entryBase(data) > source.rangeTime, "a merge is stamped above all of its source")
    this.descriptor = mergedDescriptor(descriptor, source.descriptor)
    this.merge = undefined
    this.keys.fold(prepared.chain, source.descriptor.id)
    this.sessions.unite(source.sessions)
    const { boundsVersion } = this.descriptor
    const { descriptor: last, lastReplica } = source
    this.absorbed = [
      ...this.absorbed,
      ...source.absorbed.map((each) => ({ ...each, since: index })),
      {
        source: last,
        lastReplica,
        target: id,
        boundsVersion,
        targetReplica: this.lastReplica,
        since: index,
      },
    ]
    this.taken = source
    this.flushedTime = 0
    this.mergedIndex = index
    return true
  }
}
