import type { EventualCluster } from "./eventualCluster.ts"

export { damageEnd, damageLog, damageTable, eventualTables } from "../sim/eventual/damage.ts"

/** Brings all that nodes hold into tables. */
export function flushAll(cluster: EventualCluster): void {
  for (const { loop } of cluster.nodes.values()) loop.storage.flushWanted = true
  cluster.pass(1000)
}

/** Steps the ring until no node refills anything. */
export function untilWhole(cluster: EventualCluster): void {
  cluster.until("all slots are whole", () => {
    cluster.stepRing()
    cluster.pass(200)
    const halves = [...cluster.nodes.values()].map(({ loop }) => loop.eventual)
    return halves.every((half) => half.status().refilling.slots === 0)
  })
}
