import { Effect } from "effect"
import type { NodeRecord } from "../server/directory.ts"
import type { Plane } from "./Plane.ts"

/** What `node list` shows of each node: its record, and whether it lives, as the node that was asked believes (topology/swim/swim.ts). */
export interface ShownNode {
  readonly id: number
  readonly state: ShownState
  readonly host: string
  readonly zone: string | null
  readonly rack: string | null
  readonly capacity: number
  readonly client: string
  readonly peer: string
}

/** `joining`: let in, and not heard of as running since. `suspect`: a probe did not reach it. `down`: it did not clear itself of that. `gone`: removed for good. */
export type ShownState = "joining" | "up" | "suspect" | "down" | "draining" | "gone"

/** The state of a record where the node lives. */
const states = {
  joining: "joining",
  member: "up",
  draining: "draining",
  leaving: "draining",
  removed: "gone",
} as const

export const nodesShown = ({ meta, control }: Plane) =>
  Effect.map(meta.read, ({ directory }) => {
    const stateOf = ({ id, state }: NodeRecord): ShownState => {
      const belief = control.believes(id)?.belief ?? "up"
      if (state === "removed" || state === "joining" || belief === "up") return states[state]
      return belief
    }
    const nodes = directory.nodes.map((record): ShownNode => {
      const { id, host, zone = null, rack = null, capacity = 1, client, peer } = record
      return { id, state: stateOf(record), host, zone, rack, capacity, client, peer }
    })
    return { nodes }
  })
