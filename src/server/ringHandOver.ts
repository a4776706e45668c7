import type { HandOverPort } from "../dynamo/node/exchangeFills.ts"
import { memberOf, replicasMax } from "../topology/member.ts"
import type { Ring } from "../topology/ring.ts"
import { reportersOf, transfersOf } from "../topology/ringChange.ts"
import type { NodeId, RingVersion, Slot } from "../types.ts"

/** What the changes of a ring bring to one node. */
export class RingHandOver implements HandOverPort {
  private present: Ring | undefined
  private readonly node: NodeId
  /** Of the present ring, by slot and copies. */
  private readonly sourcesOf = new Map<number, ReadonlyArray<NodeId>>()

  constructor(node: NodeId) {
    this.node = node
  }

  set ring(ring: Ring) {
    this.present = ring
    this.sourcesOf.clear()
  }

  pending(): ReadonlyArray<{ readonly slot: Slot; readonly since: RingVersion }> {
    const changes = this.present?.changes() ?? []
    return changes
      .filter((change) => change.state === "pending" && reportersOf(change).includes(this.node))
      .map(({ slot, since }) => ({ slot, since }))
  }

  sources(slot: Slot, copies: number): ReadonlyArray<NodeId> {
    const name = slot * (replicasMax + 1) + copies
    let sources = this.sourcesOf.get(name)
    if (sources === undefined) {
      sources = this.findSources(slot, copies)
      this.sourcesOf.set(name, sources)
    }
    return sources
  }

  private findSources(slot: Slot, copies: number): ReadonlyArray<NodeId> {
    const { present: ring, node } = this
    const change = ring?.changeOf(slot)
    if (ring === undefined || change === undefined) return []
    const isGone = (other: NodeId) => memberOf(ring.members, other)?.state === "gone"
    return transfersOf(change, copies, isGone)
      .filter(({ target }) => target === node)
      .map(({ source }) => source)
  }
}
