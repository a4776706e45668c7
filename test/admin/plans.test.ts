import { describe, expect, test } from "bun:test"
import { cutsOf, middleCuts } from "../../src/admin/cuts.ts"
import { votersWithout } from "../../src/admin/Nodes.ts"
import { isCrowded, loadsOf, placeVoters } from "../../src/admin/placement.ts"
import { heirOf, nextStep, votersOf, withLearners } from "../../src/admin/reshaping.ts"
import { parseOrder } from "../../src/admin/verbs.ts"
import { compareBytes, toHex } from "../../src/lib/bytes.ts"
import { Prng } from "../../src/lib/prng.ts"
import type { RangeDescriptor, ReplicaPlace, ReplicaRole } from "../../src/types.ts"

function rangeOf(...places: ReadonlyArray<readonly [node: number, role: ReplicaRole]>) {
  const replicas = places.map(([node, role], i): ReplicaPlace => ({ node, replica: 10 + i, role }))
  const [start, end] = [new Uint8Array(0), new Uint8Array(0)]
  const versions = { boundsVersion: 1, membersVersion: 1 }
  return { id: 1, namespace: 1, start, end, ...versions, replicas } satisfies RangeDescriptor
}

describe("reshaping a range", () => {
  test("pitfall 27: a new voter is a learner first, then one joint change does the rest", () => {
    const present = rangeOf([1, "voter"], [2, "voter"], [3, "voter"])
    expect(nextStep(present, [1, 2, 4])).toEqual({ _tag: "Learn", nodes: [4] })
    const learning = { ...present, replicas: withLearners(present, [{ node: 4, replica: 20 }]) }
    expect(nextStep(learning, [1, 2, 4])).toEqual({
      _tag: "Settle",
      replicas: [
        { node: 1, replica: 10, role: "voter" },
        { node: 2, replica: 11, role: "voter" },
        { node: 4, replica: 20, role: "voter" },
      ],
    })
    const joint = rangeOf([1, "voter"], [2, "voter"], [3, "outgoing"], [4, "incoming"])
    expect(nextStep(joint, [1, 2, 4])).toEqual({ _tag: "Wait" })
    expect(votersOf(joint)).toEqual([1, 2, 4])
    expect(nextStep(rangeOf([1, "voter"], [2, "voter"], [4, "voter"]), [1, 2, 4])).toEqual({
      _tag: "Done",
    })
    // What an earlier order left behind goes with the change.
    expect(nextStep(rangeOf([1, "voter"], [5, "learner"]), [1])._tag).toBe("Settle")
  })

  test("from any range to any voters it takes at most three changes, and ends there", () => {
    for (let seed = 1; seed <= 300; seed++) {
      const prng = new Prng(seed)
      const nodes = [1, 2, 3, 4, 5, 6].filter(() => prng.chance(0.6))
      const roles = nodes.map((node) => [node, prng.chance(0.7) ? "voter" : "learner"] as const)
      let range: RangeDescriptor = rangeOf([7, "voter"], ...roles)
      const wanted = [1, 2, 3, 4, 5, 6, 7].filter(() => prng.chance(0.5))
      if (wanted.length === 0) continue
      let changes = 0
      for (;;) {
        const step = nextStep(range, wanted)
        if (step._tag === "Done") break
        expect(step._tag).not.toBe("Wait")
        expect(changes++).toBeLessThan(3)
        const replica = 100 * changes
        const replicas =
          step._tag === "Learn"
            ? withLearners(
                range,
                step.nodes.map((node, i) => ({ node, replica: replica + i })),
              )
            : step._tag === "Settle"
              ? step.replicas
              : []
        range = { ...range, replicas }
        const ids = replicas.map((place) => place.replica)
        expect(ids).toEqual(ids.toSorted((left, right) => left - right))
      }
      expect(votersOf(range).toSorted()).toEqual(wanted)
    }
  })

  test("leadership is handed over only when the leader goes and another voter stays", () => {
    const present = rangeOf([1, "voter"], [2, "voter"], [4, "learner"])
    expect(heirOf(present, [2, 4], 1)).toBe(2)
    expect(heirOf(present, [1, 4], 1)).toBeUndefined()
    expect(heirOf(present, [4], 1)).toBeUndefined()
    expect(heirOf(present, [2, 4], undefined)).toBeUndefined()
  })
})

describe("placing replicas", () => {
  const candidate = (node: number, host = `h${node}`) => ({ node, host })

  test("other hosts before fewer replicas before lower ids", () => {
    const candidates = [candidate(1, "a"), candidate(2, "a"), candidate(3, "b"), candidate(4, "c")]
    const loads = new Map([[4, 9]])
    const place = (count: number, keep: ReadonlyArray<number> = []) =>
      placeVoters({ candidates, loads, keep, present: [], count })
    expect(place(1)).toEqual([1])
    expect(place(3)).toEqual([1, 3, 4])
    expect(place(4)).toEqual([1, 2, 3, 4])
    expect(place(9)).toEqual([1, 2, 3, 4])
    expect(place(3, [2])).toEqual([2, 3, 4])
  })

  test("zones before racks before hosts, whatever the loads", () => {
    const at = (node: number, zone: string, rack: string) => ({
      node,
      host: `h${node}`,
      zone,
      rack,
    })
    const candidates = [
      at(1, "z1", "r1"),
      at(2, "z1", "r1"),
      at(3, "z1", "r2"),
      at(4, "z2", "r1"),
      at(5, "z3", "r1"),
    ]
    const loads = new Map([
      [4, 50],
      [5, 60],
    ])
    const place = (count: number, keep: ReadonlyArray<number> = []) =>
      placeVoters({ candidates, loads, keep, present: [], count })
    expect(place(3)).toEqual([1, 4, 5])
    expect(place(3, [4])).toEqual([1, 4, 5])
    expect(place(4)).toEqual([1, 3, 4, 5])
    expect(isCrowded(candidates, [1, 4, 5], [1, 2, 4])).toBe(true)
    expect(isCrowded(candidates, [1, 2, 4], [1, 3, 4])).toBe(false)
    expect(isCrowded(candidates, [1, 3, 4], [1, 2, 4])).toBe(true)
  })

  test("where the data is already counts for one replica less", () => {
    const candidates = [candidate(1), candidate(2), candidate(3)]
    const options = { candidates, loads: new Map([[3, 1]]), keep: [], count: 2 }
    expect(placeVoters({ ...options, present: [3] })).toEqual([1, 3])
    expect(placeVoters({ ...options, present: [] })).toEqual([1, 2])
  })

  test("a leaving node's replicas go to another node, or are one fewer, never none without a word", () => {
    const range = rangeOf([1, "voter"], [2, "voter"], [3, "voter"])
    const loads = loadsOf([range])
    const without = (nodes: ReadonlyArray<number>, of = range) =>
      votersWithout(of, { leaving: 3, candidates: nodes.map((node) => candidate(node)), loads })
    expect(without([1, 2, 4, 5])).toEqual([1, 2, 4])
    expect(without([1, 2])).toEqual([1, 2])
    expect(without([1, 2], rangeOf([3, "voter"]))).toEqual([1])
    expect(without([], rangeOf([3, "voter"]))).toEqual([])
  })
})

describe("cutting out a namespace", () => {
  test("begins at its first position and ends at the next namespace's, in order", () => {
    for (const partitioning of ["hash", "ordered"] as const) {
      for (const ranges of [1, 2, 3, 16, 1024]) {
        const cuts = cutsOf({ id: 7, partitioning, ranges })
        expect(cuts).toHaveLength(ranges + 1)
        for (let i = 1; i < cuts.length; i++) {
          expect(compareBytes(cuts[i - 1] as Uint8Array, cuts[i] as Uint8Array)).toBeLessThan(0)
        }
      }
    }
    expect(cutsOf({ id: 7, partitioning: "hash", ranges: 2 }).map(toHex)).toEqual([
      "00000007",
      "000000072000",
      "00000008",
    ])
    expect(cutsOf({ id: 7, partitioning: "ordered", ranges: 2 }).map(toHex)[1]).toBe("000000078000")
  })

  test("are made in rounds that halve, and wait for what no node knows yet", () => {
    const cuts = cutsOf({ id: 7, partitioning: "hash", ranges: 1000 })
    const whole = {
      ...rangeOf([1, "voter"]),
      id: 1,
      start: Uint8Array.of(0),
      end: new Uint8Array(0),
    }
    let ranges: ReadonlyArray<RangeDescriptor> = [whole]
    let rounds = 0
    for (; ; rounds++) {
      const { due, unknown } = middleCuts(ranges, cuts)
      expect(unknown).toBe(false)
      if (due.length === 0) break
      ranges = ranges.flatMap((range) => {
        const at = due.find(({ descriptor }) => descriptor === range)?.at
        return at === undefined
          ? [range]
          : [
              { ...range, end: at },
              { ...range, start: at },
            ]
      })
    }
    expect(rounds).toBe(10)
    expect(ranges.map(({ start }) => toHex(start))).toEqual(["00", ...cuts.map(toHex)])
    expect(middleCuts(ranges, cuts)).toEqual({ due: [], unknown: false })
    expect(middleCuts(ranges.slice(0, -1), cuts)).toEqual({ due: [], unknown: true })
  })
})

describe("orders", () => {
  test("are read, or refused by what is wrong with them", () => {
    expect(parseOrder("range.split", { range: 3, at: "0a" })).toEqual({
      _tag: "RangeSplit",
      range: 3,
      at: Uint8Array.of(10),
    })
    expect(parseOrder("range.split", { range: 3 })).toMatchObject({ at: undefined })
    expect(parseOrder("namespace.create", { name: "a" })).toEqual({
      _tag: "NamespaceCreate",
      namespace: {
        ...{ mode: "strong", name: "a", partitioning: "hash" },
        ...{ ranges: 1, replicas: undefined },
      },
    })
    const asked = { name: "a", mode: "eventual", conflict: "crdt:set", read: "one", replicas: 5 }
    expect(parseOrder("namespace.create", asked)).toEqual({
      _tag: "NamespaceCreate",
      namespace: {
        ...{ mode: "eventual", name: "a", replicas: 5 },
        ...{ conflict: "set", write: "quorum", read: "one" },
      },
    })
    const eventual = { name: "a", mode: "eventual" }
    for (const [verb, args, problem] of [
      ["range.split", { range: 3, at: "xyz" }, "at is a position in hexadecimal"],
      ["range.move", { range: 3, from: 1 }, "to is a number"],
      ["range.move", { range: -1, from: 1, to: 2 }, "range is a number"],
      ["namespace.create", { name: "" }, '"" is no name: a letter'],
      ["namespace.delete", { name: "" }, "name is empty"],
      ["namespace.create", { name: "9" }, "is no name"],
      ["namespace.create", { name: "system" }, "the cluster's own"],
      ["namespace.create", { name: "a", mode: "other" }, "mode is strong or eventual"],
      ["namespace.create", { name: "a", conflict: "lww" }, "eventual namespaces only"],
      ["namespace.create", { ...eventual, conflict: "newest" }, "conflict is one of siblings, lww"],
      ["namespace.create", { ...eventual, write: "most" }, "write is one of one, quorum, all"],
      ["namespace.create", { ...eventual, partitioning: "ordered" }, "always hash"],
      ["namespace.create", { ...eventual, ranges: 4 }, "has no ranges"],
      ["namespace.create", { ...eventual, replicas: 8 }, "replicas are 1 to 7"],
      ["namespace.create", { name: "a", ranges: 0 }, "ranges are 1 to 1024"],
      ["namespace.create", { name: "a", replicas: 8 }, "replicas are 1 to 7"],
      ["namespace.create", null, "name is a text"],
      ["node.join", { incarnation: 5 }, "incarnation is a text"],
      ["nothing", {}, "knows no such order"],
    ] as const) {
      expect(parseOrder(verb, args)).toContain(problem)
    }
  })
})
