import { contextOf } from "../../../src/dynamo/keyState.ts"
import type { SlotClock } from "../../../src/dynamo/slotClock.ts"
import { VersionVector } from "../../../src/dynamo/versionVector.ts"
import type { NodeId } from "../../../src/types.ts"
import type { Op, RuleModel, Seen } from "../rules.ts"

/** What is seen to be wrong. */
export class Divergence extends Error {}

/** Owners of a list that have to confirm a write, and whose answers a read waits for. */
export const quorum = 2

export interface KeyOp extends Op {
  readonly key: string
  readonly coordinator: NodeId
  /** Of the coordinator's store in its present life. */
  mark: number
  /** Who has to confirm, by the coordinator's ring. */
  readonly from: ReadonlyArray<NodeId>
  readonly to: ReadonlyArray<NodeId>
  readonly confirmed: Set<NodeId>
  /** Whether the coordinator still waits for confirmations. */
  isOpen: boolean
  isAcknowledged: boolean
}

/** All writes that have happened: what an owner must show follows from those that its clock says it has seen. */
export class ExchangesHistory {
  ops: Array<KeyOp> = []
  private readonly model: RuleModel

  constructor(model: RuleModel) {
    this.model = model
  }

  private get isWhole(): boolean {
    return ["counter", "set", "flag"].includes(this.model.rule)
  }

  /** The writes of a key inside a clock. A counter or a set travels whole: who has seen an actor's newest write of it has seen those before. */
  knownBy(clock: SlotClock, key: string): ReadonlyArray<KeyOp> {
    const all = this.ops.filter((op) => op.key === key)
    const seen = all.filter(({ actor, counter }) => clock.contains(actor, counter))
    if (!this.isWhole) return seen
    return all.filter((op) =>
      seen.some(({ actor, counter }) => actor === op.actor && counter >= op.counter),
    )
  }

  /** A state speaks of what its writes have covered, seen here or not; but a set's removals may run ahead of it. */
  withCovered(known: ReadonlyArray<KeyOp>): ReadonlyArray<KeyOp> {
    if (this.model.rule === "set" || this.model.rule === "flag") return known
    const covered = this.of(new Set(known.flatMap(({ covers }) => [...covers])))
    return [...new Set([...known, ...covered])]
  }

  of(ids: ReadonlySet<number>): ReadonlyArray<KeyOp> {
    return this.ops.filter(({ id }) => ids.has(id))
  }

  /** What a reader of a state has seen: a set's removals may run ahead of it, so there the vector says. */
  seenIn(state: Uint8Array, key: string, clock: SlotClock): Seen {
    const context = contextOf(state)
    if (this.model.rule === "counter") {
      return { context, ops: new Set(this.knownBy(clock, key).map(({ id }) => id)) }
    }
    const vector = new VersionVector()
    vector.joinBytes(context, 0)
    const ops = this.ops.filter((op) => op.key === key && op.counter <= vector.counterOf(op.actor))
    return { context, ops: new Set(ops.map(({ id }) => id)) }
  }

  /** What a reader should see where these are known. */
  expected(known: ReadonlyArray<KeyOp>): string {
    const covered = new Set(known.flatMap(({ covers }) => [...covers]))
    return this.model.expected(
      known.filter(({ id }) => !covered.has(id)),
      0,
    )
  }

  confirm(from: NodeId, id: number): void {
    const op = this.ops.find((other) => other.id === id)
    if (op === undefined || !op.isOpen) return
    op.confirmed.add(from)
    const confirms = (owner: NodeId) => owner === op.coordinator || op.confirmed.has(owner)
    const isMet = (owners: ReadonlyArray<NodeId>) => owners.filter(confirms).length >= quorum
    if (isMet(op.from) && isMet(op.to)) op.isAcknowledged = true
  }

  /** Whatever a node has written since a mark never happened, and nobody waits for its answers. */
  crashed(node: NodeId, durableMark: number): void {
    for (const op of this.ops) if (op.coordinator === node) op.isOpen = false
    this.ops = this.ops.filter((op) => op.coordinator !== node || op.mark <= durableMark)
  }

  /** A node has lost everything: of its writes those are left that somebody else has, or will have. */
  wiped(node: NodeId, isHeld: (op: KeyOp) => boolean): void {
    for (const op of this.ops) if (op.coordinator === node) op.mark = 0
    this.ops = this.ops.filter((op) => op.coordinator !== node || isHeld(op))
  }
}
