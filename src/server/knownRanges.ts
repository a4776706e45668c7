import { compareBytes, equalBytes } from "../lib/bytes.ts"
import type { RangeDescriptor, RangeId } from "../types.ts"
import { covers, isBefore, isNewer, overlap } from "./descriptors.ts"
import type { Replica } from "./replica.ts"
import type { RangeReport } from "./requests.ts"

/** The ranges of the cluster as a node knows them: its own as they are, the others as it last heard. */
export class KnownRanges {
  readonly byId: Map<RangeId, RangeDescriptor>
  private readonly replicas: ReadonlyMap<RangeId, Replica>

  constructor(
    descriptors: ReadonlyArray<RangeDescriptor>,
    replicas: ReadonlyMap<RangeId, Replica>,
  ) {
    this.byId = new Map(descriptors.map((known) => [known.id, known]))
    this.replicas = replicas
    for (const { machine, isEmpty } of replicas.values())
      if (!isEmpty) this.learn(machine.descriptor)
  }

  /** Takes note of a descriptor, unless a newer one is known. */
  learn(descriptor: RangeDescriptor): void {
    const known = this.byId.get(descriptor.id)
    if (known !== undefined && !isNewer(descriptor, known)) return
    this.byId.set(descriptor.id, descriptor)
    const grows = known !== undefined && isBefore(known.end, descriptor.end)
    if (grows || known === undefined) this.forgetWithin(descriptor)
  }

  /** Ranges that are gone: one of a later version of bounds has all that they had. */
  private forgetWithin(descriptor: RangeDescriptor): void {
    for (const [id, known] of this.byId) {
      if (known.boundsVersion >= descriptor.boundsVersion || this.replicas.has(id)) continue
      if (covers(descriptor, known)) this.byId.delete(id)
    }
  }

  /** Where a range is now, and what it was split into; or who has taken it in. */
  movedTo(range: RangeId, held: RangeDescriptor): ReadonlyArray<RangeDescriptor> {
    const present = this.byId.get(range)
    if (present === undefined) {
      return [...this.byId.values()].filter((known) => overlap(known, held))
    }
    const { end } = present
    const beside = [...this.byId.values()].filter(
      (known) => known.id !== range && end.length > 0 && equalBytes(known.start, end),
    )
    return [present, ...beside]
  }

  /** A range that has no replica here; `absorbedAt`: its bounds, if it was taken in by another. */
  whereIs(range: RangeId, absorbedAt: RangeDescriptor | undefined): ReadonlyArray<RangeDescriptor> {
    const known = this.byId.get(range)
    if (known !== undefined) return [known]
    if (absorbedAt === undefined) return []
    return [...this.byId.values()].filter((other) => overlap(other, absorbedAt))
  }

  /** All of them, in order of position. */
  reports(): ReadonlyArray<RangeReport> {
    const known = [...this.byId.values()]
    known.sort((left, right) => compareBytes(left.start, right.start))
    return known.map((descriptor) => {
      const held = this.replicas.get(descriptor.id)
      const replica = held?.isEmpty === true ? undefined : held
      return {
        descriptor: replica?.machine.descriptor ?? descriptor,
        leader: replica?.leaderNode,
        term: replica?.raft.term ?? 0,
        index: replica?.machine.appliedIndex ?? 0,
      }
    })
  }
}
