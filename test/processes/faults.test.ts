import { afterAll, describe, expect, test } from "bun:test"
import {
  FaultCluster,
  type FaultName,
  faultNames,
  faultProblem,
  needsProxy,
  strike,
} from "./Faults.ts"

/**
 * One fault of each kind against real processes under load: writes go on, no call fails, and the history of all calls is linearizable. For how long writes
 * stood still is measured by `npm run bench -- failover`, and not asserted here.
 */
const seed = Number(process.env.KVORUM_SEED ?? Math.floor(performance.timeOrigin % 2 ** 31))

const pitfalls: Readonly<Record<FaultName, string>> = {
  killed: "a killed leader is replaced",
  paused: "pitfall 19: a leader that was paused serves nothing old when it goes on",
  mute: "a leader that nobody hears is replaced",
  deaf: "a leader that hears nobody steps down",
  stalled:
    "pitfall 34: a leader whose disk stands still gives its ranges away, and takes nothing back",
  follower: "a killed follower is not noticed",
  split: "pitfalls 37, 38: a range that splits under load holds nobody up",
  merge: "pitfall 39: two ranges that become one under load lose nothing and refuse nobody",
}

for (const behindProxy of [false, true]) {
  const faults = (Object.keys(faultNames) as Array<FaultName>).filter(
    (fault) => needsProxy(fault) === behindProxy,
  )
  describe(behindProxy ? "three nodes with a proxy between them" : "three nodes", () => {
    let cluster: FaultCluster | undefined
    afterAll(() => cluster?.close())

    for (const fault of faults) {
      const problem = faultProblem(fault)
      const title = problem === undefined ? pitfalls[fault] : `${pitfalls[fault]} (${problem})`
      if (problem !== undefined) console.warn(`faults.test.ts: ${title}`)
      test.skipIf(problem !== undefined)(
        title,
        async () => {
          cluster ??= await FaultCluster.open({ behindProxy })
          try {
            const swallowed = cluster.proxy.swallowedBytes
            const result = await strike(cluster, fault, { lastsMs: 600, seed })
            expect(result.violations).toEqual([])
            expect([...result.errors]).toEqual([])
            // A run that did nothing proves nothing.
            expect(result.gapsMs.length).toBeGreaterThan(0)
            expect(result.calls).toBeGreaterThan(200)
            if (behindProxy) expect(cluster.proxy.swallowedBytes).toBeGreaterThan(swallowed)
            expect(cluster.nodes.fallen).toEqual([])
          } catch (error) {
            console.error(`seed ${seed}\n${cluster.nodes.logs}`)
            throw error
          }
        },
        60_000,
      )
    }
  })
}
