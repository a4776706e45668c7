import { slotCount } from "../lib/slot.ts"
import type { Directory } from "../server/directory.ts"
import { replicasMax } from "../topology/member.ts"
import { slotsToMove } from "../topology/ringChange.ts"

/** The ring as `kvorum ring` shows it; `undefined` before there is one. */
export function ringShown({ ring: record }: Directory): unknown {
  if (record === undefined) return null
  const { ring } = record
  const first = new Map<number, number>()
  const anywhere = new Map<number, number>()
  for (let slot = 0; slot < slotCount; slot++) {
    const list = ring.listOf(slot)
    for (const [rank, node] of list.slice(0, replicasMax).entries()) {
      if (rank === 0) first.set(node, (first.get(node) ?? 0) + 1)
      if (rank < 3) anywhere.set(node, (anywhere.get(node) ?? 0) + 1)
    }
  }
  const changing = { pending: 0, filled: 0 }
  for (const { state } of ring.changes()) changing[state]++
  return {
    version: ring.version,
    strategy: ring.strategy,
    slotsToMove: slotsToMove(ring, ring.goal()),
    changing,
    members: ring.members.map(({ node, zone, rack, host, state, tokens }) => ({
      ...{ node, zone, rack, host, state, virtualNodes: tokens.length },
      /** Slots of which it is the first owner, and of which it holds one of three copies. */
      firstOf: first.get(node) ?? 0,
      ownerOfThree: anywhere.get(node) ?? 0,
    })),
  }
}
