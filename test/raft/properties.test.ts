import { describe, expect, test } from "bun:test"
import type { AppendResponse } from "../../src/raft/message.ts"
import { RaftNode } from "../../src/raft/raftNode.ts"
import { noStatistics, type RunStatistics } from "./clusterChecks.ts"
import type { NodeClass } from "./messages.ts"
import { plantedBugs } from "./plantedBugs.ts"
import { runSeed } from "./randomCluster.ts"

/**
 * A leader that probes from the first entry: as right as any hint, and it meets states that hints
 * avoid.
 */
const slowlyProbing = (Node: NodeClass): NodeClass =>
  class extends Node {
    protected override probeHint(_response: AppendResponse): number {
      return 0
    }
  }

function runSeeds(Node: NodeClass, first: number, count: number): RunStatistics {
  const total = noStatistics()
  for (let seed = first; seed < first + count; seed++) {
    try {
      const run = runSeed(seed, 1000, Node)
      for (const key of Object.keys(total) as Array<keyof RunStatistics>) total[key] += run[key]
    } catch (error) {
      throw new Error(`seed ${seed}: ${error}`, { cause: error })
    }
  }
  return total
}

function firstFailing(Node: NodeClass, seeds: number): number | undefined {
  for (let seed = 1; seed <= seeds; seed++) {
    try {
      runSeed(seed, 1000, Node)
    } catch {
      return seed
    }
  }
  return undefined
}

describe("random clusters under loss, delay, reordering, replays, crashes and partitions", () => {
  test("keep the five properties, give linearizable reads, and converge", () => {
    const total = runSeeds(RaftNode, 1, 300)
    // A run in which nothing happens proves nothing.
    expect(total.committed).toBeGreaterThan(5000)
    expect(total.elections).toBeGreaterThan(600)
    expect(total.crashes).toBeGreaterThan(500)
    expect(total.reads).toBeGreaterThan(500)
    expect(total.snapshots).toBeGreaterThan(20)
    expect(total.changes).toBeGreaterThan(300)
    expect(total.transfers).toBeGreaterThan(50)
    expect(total.followerReads).toBeGreaterThan(200)
    expect(total.leaseReads).toBeGreaterThan(200)
  })

  test("keep them too when leaders probe from the first entry", () => {
    runSeeds(slowlyProbing(RaftNode), 1000, 100)
  })

  test("the same seed gives the same run", () => {
    expect(runSeed(42, 1000)).toEqual(runSeed(42, 1000))
  })

  for (const bug of [
    "cuts the log on every append",
    "votes for a log behind its own",
    "grants two votes in a term",
    "acknowledges before it is durable",
    "counts votes of earlier terms",
    "keeps a membership whose entry was replaced",
    "changes members before an entry of its own term is committed",
    "leaves joint before that is committed",
    "asks only the new voters while joint",
    "counts learners",
    "counts itself after its removal",
    "votes within the silence",
    "obeys a TimeoutNow of an earlier term",
    "keeps its lease after TimeoutNow",
    "trusts the monotonic clock alone",
  ] as const) {
    test(`a replica that ${bug} is found out`, () => {
      expect(firstFailing(plantedBugs[bug] as NodeClass, 200)).toBeNumber()
    })
  }
})
