import { describe, expect, test } from "bun:test"
import { utf8 } from "../../src/lib/bytes.ts"
import { hashPosition } from "../../src/lib/position.ts"
import { Prng } from "../../src/lib/prng.ts"
import { contains } from "../../src/server/descriptors.ts"
import { decodeMergeStep, encodeMergeStep, type MergeStep } from "../../src/server/merge/entries.ts"
import { type Absorbed, absorbedMax, freezeProblem } from "../../src/server/merge/state.ts"
import type { PeerMessage } from "../../src/server/peerMessage.ts"
import { decodeRangeState, encodeRangeState } from "../../src/server/rangeState.ts"
import { plainRead, type Reply } from "../../src/server/requests.ts"
import type { Consistency, RangeDescriptor } from "../../src/types.ts"
import { LoopCluster, voter } from "./loopCluster.ts"
import type { LoopNode } from "./loopNode.ts"

const keys = (count: number) => Array.from({ length: count }, (_, i) => `key${i}`)

/** Ranges 1 and 20, both with data. */
function halves(options: ConstructorParameters<typeof LoopCluster>[0] = {}): LoopCluster {
  const cluster = new LoopCluster(options)
  for (const key of keys(30)) cluster.put(key, `${key} before`.padEnd(120, "."))
  expect(cluster.split(1, 20)?._tag).toBe("Changed")
  for (const key of keys(30)) cluster.put(key, `${key} between`.padEnd(120, "."))
  return cluster
}

/** A key of the range, which has one. */
function keyOf(cluster: LoopCluster, range: number): string {
  const descriptor = cluster.descriptor(range)
  const key = keys(30).find((each) => contains(descriptor, hashPosition(1, utf8(each))))
  if (key === undefined) throw new Error(`no key in range ${range}`)
  return key
}

function refusalOf(reply: Reply | undefined): string {
  if (reply?._tag !== "Refused") return reply?._tag ?? "no answer"
  const { refusal } = reply
  return refusal._tag === "InvalidRequest" ? refusal.message : refusal._tag
}

const isMerge = (kind: string) => (message: PeerMessage) =>
  message._tag === "Merge" && message.kind === kind

describe("a range that takes in its neighbour", () => {
  test("has all of its keys and goes on with them; the neighbour is nowhere any more", () => {
    const cluster = halves()
    expect(cluster.merge(1, 20)?._tag).toBe("Changed")
    expect(cluster.descriptor(1).boundsVersion).toBe(3)
    for (const key of keys(30)) cluster.put(key, `${key} after`.padEnd(120, "."))
    cluster.expectWhole()
    for (const node of cluster.nodes.values()) {
      expect(node.loop.replicas.has(20)).toBe(false)
      expect(node.loop.storage.tombstones.get(20)?.absorbedBy?.range).toBe(1)
    }
  })

  test("can be split where it was whole, and merged again, with ids that are never used again", () => {
    const cluster = halves()
    for (let child = 21; child < 26; child++) {
      expect(cluster.merge(1, child - 1)?._tag).toBe("Changed")
      expect(cluster.split(1, child)?._tag).toBe("Changed")
      for (const key of keys(10)) cluster.put(key, `${child}`)
    }
    cluster.expectWhole()
    expect(cluster.descriptor(1).boundsVersion).toBe(12)
  })

  test("loses nothing when the power goes on all nodes at any moment after it", () => {
    for (let wait = 0; wait < 8; wait++) {
      const cluster = halves({ seed: wait + 1 })
      expect(cluster.merge(1, 20)?._tag).toBe("Changed")
      const key = keyOf(cluster, 1)
      cluster.put(key, "after")
      cluster.pass(wait * 30)
      for (const id of [1, 2, 3]) cluster.crash(id)
      for (const id of [1, 2, 3]) cluster.start(id)
      cluster.expectWhole()
    }
  })

  test("loses nothing when its node's power goes at any moment of it", () => {
    for (let wait = 0; wait < 12; wait++) {
      const cluster = halves({ seed: wait + 1 })
      const { boundsVersion } = cluster.descriptor(1)
      const { node } = cluster.begin({ _tag: "Merge", range: 1, boundsVersion, source: 20 })
      cluster.pass(wait * 10)
      cluster.restart(node.id)
      cluster.until("nothing is frozen", () =>
        [...cluster.nodes.values()].every(({ loop }) =>
          [...loop.replicas.values()].every(({ machine }) => machine.merge === undefined),
        ),
      )
      cluster.expectWhole()
    }
  })

  test("pitfall 39: requests that come while it is under way wait, and are then sent to where their keys are", () => {
    const cluster = halves()
    cluster.loses = (_from, _to, message) => isMerge("prepared")(message)
    const { boundsVersion } = cluster.descriptor(1)
    cluster.begin({ _tag: "Merge", range: 1, boundsVersion, source: 20 })
    cluster.until("the source is prepared", () => isPrepared(cluster))
    const key = keyOf(cluster, 20)
    const settle = cluster.beginPut(key, "while merging")
    const leader = cluster.untilLeader(20)
    const reads = (["linearizable", "bounded", "local"] as const).map((level) =>
      read(leader, key, level),
    )
    cluster.pass(40)
    expect(reads.map((token) => leader.replies.some((reply) => reply.token === token))).toEqual([
      false,
      false,
      false,
    ])
    cluster.loses = () => false
    cluster.until("it is merged", () => leader.loop.replicas.get(20) === undefined)
    cluster.pass(50)
    settle?.()
    for (const token of reads) {
      const reply = leader.replies.find((each) => each.token === token)
      expect(reply).toMatchObject({
        _tag: "Refused",
        refusal: { _tag: "RangeMoved", descriptors: [{ id: 1, boundsVersion: 3 }] },
      })
    }
    cluster.expectWhole()
  })

  test("pitfall 39: an aborted merge leaves both as they were, and does not confuse the next", () => {
    const cluster = halves()
    const third =
      [1, 2, 3].find(
        (id) => id !== cluster.untilLeader(1).id && id !== cluster.untilLeader(20).id,
      ) ?? 3
    cluster.loses = (from, to) => from === third || to === third
    expect(refusalOf(cluster.merge(1, 20))).toBe("Overloaded")
    const key = keyOf(cluster, 20)
    cluster.put(key, "after the abort")
    expect(cluster.get(key)).toBe("after the abort")
    cluster.loses = () => false
    cluster.pass(1000)
    expect(cluster.merge(1, 20)?._tag).toBe("Changed")
    cluster.expectWhole()
  })

  test("pitfall 39: a node that lags gets a snapshot of the whole, and buries the neighbour with its coming", () => {
    const settings = { retentionBytes: 0, retentionMs: 12, retainedEntries: 0, retentionTicks: 1 }
    const cluster = halves({ settings })
    const leader = cluster.untilLeader(1).id
    const lagging = [1, 2, 3].find((id) => id !== leader) as number
    // It confirms, and then hears nothing of what became of it.
    let isCut = false
    cluster.loses = (from, to, message) => {
      if (from === lagging && isMerge("prepared")(message)) {
        isCut = true
        return false
      }
      return isCut && (from === lagging || to === lagging)
    }
    expect(cluster.merge(1, 20)?._tag).toBe("Changed")
    expect(cluster.replica(lagging, 20)?.machine.isPrepared).toBe(true)
    for (let round = 0; round < 8; round++) {
      for (const key of keys(30)) cluster.put(key, `round ${round}`.padEnd(400, "."))
    }
    for (const node of cluster.nodes.values()) node.loop.storage.flushWanted = true
    cluster.pass(2000)
    cluster.loses = () => false
    cluster.expectWhole()
    expect(cluster.replica(lagging, 20)).toBeUndefined()
    expect(cluster.node(lagging).loop.storage.tombstones.get(20)?.absorbedBy?.range).toBe(1)
    cluster.restart(lagging)
    cluster.expectWhole()
  })

  test("pitfall 39: a stale replica of the neighbour goes, on a node that was removed before it had heard", () => {
    const cluster = halves({ founders: [1, 2, 3] })
    cluster.start(4)
    const leader = cluster.untilLeader(1).id
    const lagging = [1, 2, 3].find(
      (id) => id !== leader && id !== cluster.untilLeader(20).id,
    ) as number
    let isCut = false
    cluster.loses = (from, to, message) => {
      if (from === lagging && isMerge("prepared")(message)) {
        isCut = true
        return false
      }
      return isCut && (from === lagging || to === lagging)
    }
    expect(cluster.merge(1, 20)?._tag).toBe("Changed")
    const { replicas } = cluster.descriptor(1)
    const others = replicas.filter(({ node }) => node !== lagging)
    expect(cluster.members(1, [...others, voter(4, 40)])?._tag).toBe("Changed")
    cluster.loses = () => false
    const { set } = cluster.node(lagging).loop
    cluster.until("nothing of it is left there", () =>
      [1, 20].every((range) => !set.byRange.has(range) && !set.dying.has(range)),
    )
    cluster.expectWhole()
  })

  test("is refused where it can't be, in words that say why", () => {
    const cluster = halves()
    cluster.start(4)
    expect(refusalOf(cluster.merge(20, 1))).toContain("does not begin where range 20 ends")
    expect(refusalOf(cluster.merge(1, 77))).toContain("range 77 has no replica on node")
    const { boundsVersion } = cluster.descriptor(1)
    const stale = { _tag: "Merge", range: 1, boundsVersion: boundsVersion - 1, source: 20 } as const
    expect(refusalOf(cluster.change(stale))).toBe("RangeMoved")
    expect(cluster.members(20, [voter(1), voter(2), voter(4, 50)])?._tag).toBe("Changed")
    expect(refusalOf(cluster.merge(1, 20))).toContain(
      "do not have their replicas on the same nodes",
    )
    cluster.expectWhole()
  })

  test("keeps members and bounds of both as they are until it is over", () => {
    const cluster = halves()
    cluster.start(4)
    cluster.loses = (_from, _to, message) => isMerge("prepared")(message)
    const { boundsVersion } = cluster.descriptor(1)
    cluster.begin({ _tag: "Merge", range: 1, boundsVersion, source: 20 })
    cluster.until("the source is prepared", () => isPrepared(cluster))
    const begun = [
      cluster.begin({ _tag: "Split", range: 20, boundsVersion, child: 30, at: undefined }),
      cluster.begin({ _tag: "Clear", range: 20, boundsVersion }),
    ]
    cluster.pass(20)
    for (const { node, token } of begun) {
      expect(node.replies.find((reply) => reply.token === token)).toMatchObject({
        refusal: { _tag: "Overloaded", what: "range 20 is being merged" },
      })
    }
    cluster.loses = () => false
    cluster.expectWhole()
  })
})

function isPrepared(cluster: LoopCluster): boolean {
  const held = [...cluster.nodes.values()].flatMap(({ loop }) => loop.replicas.get(20) ?? [])
  return held.every(({ machine }) => machine.isPrepared)
}

function read(node: LoopNode, key: string, level: Consistency): number {
  const position = hashPosition(1, utf8(key))
  const boundsVersion = node.loop.replicas.get(20)?.machine.descriptor.boundsVersion ?? 0
  const maxStalenessMs = level === "bounded" ? 60_000 : 0
  return node.request((token) => ({
    ...{ _tag: "Get", token, range: 20, deadlineMs: 5000 },
    ...{ ...plainRead, maxStalenessMs, level, boundsVersion, position },
  }))
}

describe("what is stored of a merge", () => {
  const source: RangeDescriptor = {
    ...{ id: 20, namespace: 1, boundsVersion: 3, membersVersion: 4 },
    ...{ start: hashPosition(1, utf8("m")), end: hashPosition(1, utf8("z")) },
    replicas: [voter(1, 7), voter(2, 8), { node: 3, replica: 9, role: "learner" }],
  }
  const absorbed: Absorbed = {
    ...{ source, lastReplica: 12, target: 1, boundsVersion: 5, targetReplica: 6, since: 2 ** 40 },
  }

  test("every step comes back as it was, and no other bytes are one", () => {
    const versions = { boundsVersion: 7, membersVersion: 9 }
    const steps: ReadonlyArray<MergeStep> = [
      { _tag: "Freeze", ...versions, source },
      { _tag: "Prepare", target: 1, merge: 2 ** 40, ...versions },
      { _tag: "Commit", merge: 3, index: 2 ** 41, term: 8 },
      { _tag: "Abort", merge: 3 },
      { _tag: "Fence", target: 1, merge: 3, ...versions },
      { _tag: "Thaw", merge: 3 },
      { _tag: "Settle", index: 99 },
    ]
    const prng = new Prng(6)
    for (const step of steps) {
      const bytes = encodeMergeStep(2 ** 50, step)
      expect(decodeMergeStep(bytes)).toEqual(step)
      const cut = bytes.subarray(0, prng.int(0, bytes.length - 1))
      expect(() => decodeMergeStep(cut)).toThrow()
      expect(() => decodeMergeStep(new Uint8Array([...bytes, 1]))).toThrow()
    }
    const unknown = new Uint8Array(17)
    unknown[8] = 9
    expect(() => decodeMergeStep(unknown)).toThrow("step 9 of a merge")
  })

  test("the state of a range comes back with its merge and with what it has taken in", () => {
    const applied = { appliedIndex: 9, appliedTerm: 2, rangeTime: 77, chain: 5, lastReplica: 12 }
    for (const merge of [
      undefined,
      { _tag: "Target", merge: 4, phase: "frozen", source } as const,
      { _tag: "Target", merge: 4, phase: "aborted", source } as const,
      { _tag: "Source", target: 3, merge: 8, index: 5, term: 2, chain: 0xffffffff } as const,
    ]) {
      const state = { descriptor: source, replica: 8, ...applied, merge, absorbed: [absorbed] }
      expect(decodeRangeState(encodeRangeState(state))).toEqual(state)
    }
  })

  test("a range that has taken in many which are not settled yet takes in no more", () => {
    const target = { ...source, id: 1, start: hashPosition(1, utf8("m")), end: source.start }
    const full = Array.from({ length: absorbedMax }, () => absorbed)
    expect(freezeProblem(target, source, { merge: undefined, absorbed: [] })).toBeUndefined()
    expect(freezeProblem(target, source, { merge: undefined, absorbed: full })).toContain(
      "has taken in 16 ranges",
    )
  })
})
