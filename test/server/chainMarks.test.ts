import { describe, expect, test } from "bun:test"
import { ChainMarks, compareReplicas } from "../../src/server/chainMarks.ts"

describe("chain marks", () => {
  test("are kept at multiples only, the newest so many", () => {
    const marks = new ChainMarks({ every: 4, capacity: 3 })
    const noted = []
    for (let index = 1; index <= 20; index++) if (marks.note(index, index * 7)) noted.push(index)
    expect(noted).toEqual([4, 8, 12, 16, 20])
    expect(marks.find(8)).toBeUndefined()
    expect(marks.find(12)).toEqual({ index: 12, chain: 84 })
    expect(marks.find(13)).toBeUndefined()
    expect(marks.newest).toEqual({ index: 20, chain: 140 })
  })

  test("an index noted again is a bug", () => {
    const marks = new ChainMarks({ every: 1, capacity: 3 })
    marks.note(5, 1)
    expect(() => marks.note(5, 1)).toThrow("applied once")
  })
})

describe("replicas compared at one index", () => {
  const of = (...values: ReadonlyArray<number>) =>
    new Map(values.map((value, i) => [i + 1, value] as const))

  test("that all agree are equal, however few have answered", () => {
    expect(compareReplicas(of(7, 7, 7), 3)).toEqual({ _tag: "Equal" })
    expect(compareReplicas(of(7), 3)).toEqual({ _tag: "Equal" })
  })

  test("the odd one of three, and two of five, are named", () => {
    expect(compareReplicas(of(7, 8, 7), 3)).toEqual({ _tag: "Differ", replicas: [2] })
    expect(compareReplicas(of(9, 7, 7, 7, 6), 5)).toEqual({ _tag: "Differ", replicas: [1, 5] })
  })

  test("without a majority of all replicas nobody is blamed", () => {
    expect(compareReplicas(of(7, 8), 2)).toEqual({ _tag: "Undecided", replicas: [1, 2] })
    expect(compareReplicas(of(7, 8), 3)).toEqual({ _tag: "Undecided", replicas: [1, 2] })
    expect(compareReplicas(of(1, 2, 3), 3)).toEqual({ _tag: "Undecided", replicas: [1, 2, 3] })
    expect(compareReplicas(of(7, 7, 8), 5)).toEqual({ _tag: "Undecided", replicas: [1, 2, 3] })
  })
})
