import type { NodeId } from "../../types.ts"
import {
  hasOverlap,
  isReadMet,
  isWriteMet,
  type Level,
  type SlotPlan,
} from "../coordinator/slotPlan.ts"
import type { WriteReceipt } from "../coordinator/writeRequest.ts"
import type { EventualNamespace } from "./ports.ts"
import type { EventualReceipt } from "./requests.ts"

/** From the one that asks for most. */
const levels: ReadonlyArray<Level> = ["all", "quorum", "localQuorum", "one"]

function maskOf({ owners }: SlotPlan, nodes: ReadonlyArray<NodeId>): number {
  let mask = 0
  for (let i = 0; i < owners.count; i++) if (nodes.includes(owners.nodes[i])) mask |= 1 << i
  return mask
}

function ownersOf({ owners }: SlotPlan): ReadonlyArray<NodeId> {
  return Array.from({ length: owners.count }, (_, i) => owners.nodes[i])
}

interface Coordinated {
  readonly coordinator: NodeId
  readonly namespace: EventualNamespace
  readonly plan: SlotPlan
}

export function writeReceipt(by: Coordinated, receipt: WriteReceipt): EventualReceipt {
  const { coordinator, namespace, plan } = by
  const { asked, stored, standIns, sloppy } = receipt
  const holders = {
    stored: maskOf(plan, stored),
    hinted: maskOf(
      plan,
      standIns.map(({ owner }) => owner),
    ),
    hintedLocally: 0,
  }
  const achieved: Level | "none" =
    levels.find((level) => isWriteMet(plan, level, holders)) ?? "none"
  const { copies, read } = namespace
  const overlap = !sloppy && hasOverlap({ read, write: asked, copies })
  const owners = ownersOf(plan)
  const what = { asked, achieved, answered: stored, owners, standIns, sloppy, overlap }
  return { coordinator, ...what, repairs: [] }
}

export function readReceipt(
  by: Coordinated,
  read: {
    readonly asked: Level
    readonly answered: ReadonlyArray<NodeId>
    readonly repairs: ReadonlyArray<NodeId>
  },
): EventualReceipt {
  const { coordinator, namespace, plan } = by
  const { asked, answered, repairs } = read
  const mask = maskOf(plan, answered)
  const achieved: Level | "none" = levels.find((level) => isReadMet(plan, level, mask)) ?? "none"
  const { copies, write } = namespace
  const overlap = hasOverlap({ read: asked, write, copies })
  const owners = ownersOf(plan)
  const what = { asked, achieved, answered, owners, standIns: [], sloppy: false, overlap, repairs }
  return { coordinator, ...what }
}
