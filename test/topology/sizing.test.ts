import { describe, expect, test } from "bun:test"
import {
  MergeWatch,
  type PlacedRange,
  type SizedRange,
  SplitWatch,
  sizingDefaults,
} from "../../src/topology/sizing.ts"

const mebibyte = 2 ** 20
const cut = new Uint8Array([1, 2])
const atCut = () => cut
const nowhere = () => undefined
const at = (...bytes: ReadonlyArray<number>) => new Uint8Array(bytes)

function range(id: number, of: Partial<SizedRange> = {}): SizedRange {
  return {
    id,
    boundsVersion: 1,
    bytes: mebibyte,
    entries: 1000,
    requestsPerSecond: 0,
    ...of,
  }
}

describe("splits", () => {
  test("past 64 MiB or 400k entries a range is cut at once, at the middle of its data", () => {
    const watch = new SplitWatch(sizingDefaults)
    const full = [
      range(1, { bytes: 64 * mebibyte }),
      range(2, { bytes: 65 * mebibyte }),
      range(3, { entries: 400_001 }),
    ]
    expect(watch.look(full, 0, nowhere)).toEqual([
      { _tag: "Split", range: 2, at: undefined },
      { _tag: "Split", range: 3, at: undefined },
    ])
  })

  test("what was just tried is not tried again for a while", () => {
    const watch = new SplitWatch(sizingDefaults)
    const full = [range(1, { bytes: 65 * mebibyte })]
    const verdicts = [0, 1000, 29_000, 30_000].map((ms) => watch.look(full, ms, nowhere).length)
    expect(verdicts).toEqual([1, 0, 0, 1])
    // What a cut has left is another range.
    const half = [range(1, { bytes: 65 * mebibyte, boundsVersion: 2 })]
    expect(watch.look(half, 31_000, nowhere).length).toBe(1)
  })

  test("load must hold for 30 s without a gap, and cuts where it is halved", () => {
    const watch = new SplitWatch(sizingDefaults)
    const busy = [range(1, { requestsPerSecond: 10_001 })]
    const calm = [range(1, { requestsPerSecond: 9_999 })]
    expect(watch.look(busy, 0, atCut)).toEqual([])
    expect(watch.look(busy, 29_999, atCut)).toEqual([])
    expect(watch.look(calm, 30_000, atCut)).toEqual([])
    expect(watch.look(busy, 31_000, atCut)).toEqual([])
    expect(watch.look(busy, 60_000, atCut)).toEqual([])
    expect(watch.look(busy, 61_000, atCut)).toEqual([{ _tag: "Split", range: 1, at: cut }])
  })

  test("a hot key is told now and then, and never split, however long it is hot", () => {
    const watch = new SplitWatch(sizingDefaults)
    const hot = [range(1, { requestsPerSecond: 50_000 })]
    const tags: Array<string> = []
    for (let ms = 0; ms <= 600_000; ms += 1000) {
      for (const { _tag } of watch.look(hot, ms, nowhere)) tags.push(_tag)
    }
    expect(new Set(tags)).toEqual(new Set(["Hot"]))
    expect(tags.length).toBeGreaterThan(5)
    expect(tags.length).toBeLessThan(20)
  })
})

describe("merges", () => {
  const hour = 3_600_000
  const none = { rangesMin: () => 1, isKept: () => false }
  function row(
    sizes: ReadonlyArray<Partial<SizedRange>>,
    namespaces: ReadonlyArray<number | undefined> = [],
  ): ReadonlyArray<PlacedRange> {
    return sizes.map((of, i) => {
      const namespace = i in namespaces ? namespaces[i] : 7
      return { id: i + 1, namespace, start: at(0, 0, 0, 7, i), measure: range(i + 1, of) }
    })
  }

  test("neighbours that are small and quiet for an hour merge, each in one merge at a time", () => {
    const watch = new MergeWatch(sizingDefaults)
    const cold = row([{}, {}, {}, {}, {}])
    expect(watch.look(cold, none, 0)).toEqual([])
    expect(watch.look(cold, none, hour - 1)).toEqual([])
    expect(watch.look(cold, none, hour)).toEqual([
      [1, 2],
      [3, 4],
    ])
  })

  test("both together count: bytes, entries and requests; and the hour begins anew when it was interrupted", () => {
    for (const of of [
      { bytes: 8 * mebibyte },
      { entries: 50_000 },
      { requestsPerSecond: 250 },
    ] satisfies ReadonlyArray<Partial<SizedRange>>) {
      const watch = new MergeWatch(sizingDefaults)
      watch.look(row([of, of]), none, 0)
      expect(watch.look(row([of, of]), none, hour)).toEqual([])
    }
    const watch = new MergeWatch(sizingDefaults)
    watch.look(row([{}, {}]), none, 0)
    watch.look(row([{ requestsPerSecond: 9000 }, {}]), none, hour / 2)
    expect(watch.look(row([{}, {}]), none, hour)).toEqual([])
    expect(watch.look(row([{}, {}]), none, 2 * hour)).toEqual([[1, 2]])
  })

  test("not across namespaces, nor below what a namespace began with, nor at a cut that somebody ordered, nor where a measure is missing", () => {
    const watch = new MergeWatch(sizingDefaults)
    const look = (
      ranges: ReadonlyArray<PlacedRange>,
      rules: ConstructorParameters<typeof Object>[0] = {},
    ) => {
      watch.look(ranges, { ...none, ...rules }, 0)
      return watch.look(ranges, { ...none, ...rules }, hour)
    }
    expect(look(row([{}, {}], [7, 8]))).toEqual([])
    expect(look(row([{}, {}], [undefined, undefined]))).toEqual([])
    expect(look(row([{}, {}, {}]), { rangesMin: () => 2 })).toEqual([[1, 2]])
    expect(look(row([{}, {}, {}]), { rangesMin: () => 3 })).toEqual([])
    const isKept = (position: Uint8Array) => position[4] === 1
    expect(look(row([{}, {}, {}]), { isKept })).toEqual([[2, 3]])
    const unknown = row([{}, {}]).map((each) => ({ ...each, measure: undefined }))
    expect(look(unknown)).toEqual([])
  })

  test("what was merged is not cut for what it is then, whatever the limits are met by", () => {
    const { mergeBytes, mergeEntries, mergeRequestsPerSecond } = sizingDefaults
    expect(2 * mergeBytes).toBeLessThan(sizingDefaults.splitBytes)
    expect(2 * mergeEntries).toBeLessThan(sizingDefaults.splitEntries)
    expect(2 * mergeRequestsPerSecond).toBeLessThan(sizingDefaults.splitRequestsPerSecond)
  })
})
