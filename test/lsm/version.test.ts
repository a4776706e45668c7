import { describe, expect, test } from "bun:test"
import { compareBytes, text, utf8 } from "../../src/lib/bytes.ts"
import { Prng } from "../../src/lib/prng.ts"
import {
  type Edit,
  type Fragment,
  moving,
  overlapping,
  replacing,
  Version,
} from "../../src/lsm/manifest/version.ts"

const keyOf = (number: number) => utf8(String(number).padStart(4, "0"))

function fragment(
  fileNumber: number,
  place: { level: number; run?: number; from: number; to: number },
): Fragment {
  const { level, run = 0, from, to } = place
  return {
    level,
    run,
    fileNumber,
    tableId: fileNumber,
    baseSequence: 0,
    sizeBytes: 10 * (to - from),
    liveBytes: 10 * (to - from),
    entries: to - from,
    checksum: 0,
    deletes: 0,
    tombstones: 0,
    createdSeconds: 0,
    compression: 0,
    lower: keyOf(from),
    upper: keyOf(to),
  }
}

const inWords = ({ fileNumber, level, run, lower, upper }: Fragment) =>
  `${fileNumber} on ${level}/${run} [${text(lower)}, ${text(upper)})`

/** Even keys only: an interval of one odd key holds nothing. */
function measure(_: Fragment, lower: Uint8Array, upper: Uint8Array): number {
  const [from, to] = [Number(text(lower)), Number(text(upper))]
  return 10 * (Math.ceil(to / 2) - Math.ceil(from / 2))
}

function applied(fragments: ReadonlyArray<Fragment>, edit: Edit): ReadonlyArray<Fragment> {
  const kept = fragments.filter(({ fileNumber }) => !edit.removedFiles.includes(fileNumber))
  return [...kept, ...edit.added]
}

describe("a version", () => {
  test("after an edit is the one that would be made from all fragments anew", () => {
    for (let seed = 1; seed <= 20; seed++) {
      const prng = new Prng(seed)
      let version = Version.of([])
      let files = 0
      for (let i = 0; i < 60; i++) {
        const from = prng.int(0, 180)
        const to = from + prng.int(1, 20)
        const interval = { lower: keyOf(from), upper: keyOf(to) }
        const level = prng.int(0, 6)
        const output = level === 0 ? prng.int(0, 1) * 6 : Math.min(6, level + prng.int(0, 1))
        const levels = level === output ? [level] : [level, output]
        let edit: Edit
        if (prng.chance(0.3)) {
          const run = ++files
          edit = { removedFiles: [], added: [fragment(run, { level: 0, run, from, to })] }
        } else {
          const place = { level: output, run: output === 0 ? ++files : 0, from, to }
          const added = prng.chance(0.8) ? [fragment(++files, place)] : []
          edit = replacing({ version, levels, intervals: [interval], added, measure })
        }
        const next = version.after(edit)
        const anew = Version.of(applied(version.fragments, edit))
        expect(next.fragments.map(inWords)).toEqual(anew.fragments.map(inWords))
        expect(next.level0.length).toBe(anew.level0.length)
        expect([...next.files()].sort()).toEqual([...anew.files()].sort())
        version = next
      }
    }
  })

  test("shares the levels that an edit does not touch", () => {
    const version = Version.of([
      fragment(1, { level: 5, from: 0, to: 10 }),
      fragment(2, { level: 6, from: 0, to: 10 }),
    ])
    const edit = { removedFiles: [1], added: [fragment(3, { level: 5, from: 2, to: 8 })] }
    expect(version.after(edit).levels[6]).toBe(version.levels[6] as never)
  })

  test("finds what reaches into an interval", () => {
    const { levels } = Version.of([
      fragment(1, { level: 6, from: 0, to: 10 }),
      fragment(2, { level: 6, from: 10, to: 20 }),
      fragment(3, { level: 6, from: 30, to: 40 }),
    ])
    const found = (from: number, to: number | undefined) =>
      overlapping(levels[6] ?? [], {
        lower: keyOf(from),
        upper: to === undefined ? undefined : keyOf(to),
      }).map(({ fileNumber }) => fileNumber)
    expect(found(5, 10)).toEqual([1])
    expect(found(9, 11)).toEqual([1, 2])
    expect(found(20, 30)).toEqual([])
    expect(found(20, undefined)).toEqual([3])
    expect(found(0, 100)).toEqual([1, 2, 3])
  })
})

describe("an edit", () => {
  test("cuts a file only on the levels asked for, though it lies on two", () => {
    const version = Version.of([
      fragment(1, { level: 5, from: 0, to: 10 }),
      fragment(1, { level: 6, from: 10, to: 20 }),
    ])
    const interval = { lower: keyOf(4), upper: keyOf(16) }
    const edit = replacing({ version, levels: [5], intervals: [interval], added: [], measure })
    const after = version.after(edit).fragments.map(inWords)
    expect(after).toEqual(["1 on 5/0 [0000, 0004)", "1 on 6/0 [0010, 0020)"])
  })

  test("lets a piece go in which nothing lies", () => {
    const version = Version.of([fragment(1, { level: 6, from: 1, to: 10 })])
    const interval = { lower: keyOf(2), upper: keyOf(6) }
    const edit = replacing({ version, levels: [6], intervals: [interval], added: [], measure })
    expect(edit.added.map(inWords)).toEqual(["1 on 6/0 [0006, 0010)"])
  })

  test("moves what lies in an interval one level down, and leaves the rest", () => {
    const version = Version.of([
      fragment(1, { level: 0, run: 1, from: 0, to: 10 }),
      fragment(2, { level: 0, run: 2, from: 10, to: 20 }),
      fragment(3, { level: 6, from: 30, to: 40 }),
    ])
    const interval = { lower: keyOf(4), upper: keyOf(16) }
    const levels = [0, 6]
    const edit = moving({ version, levels, interval, outputLevel: 6, measure })
    const { fragments } = version.after(edit)
    expect(fragments.map(inWords)).toEqual([
      "2 on 0/2 [0016, 0020)",
      "1 on 0/1 [0000, 0004)",
      "1 on 6/0 [0004, 0010)",
      "2 on 6/0 [0010, 0016)",
      "3 on 6/0 [0030, 0040)",
    ])
    expect(compareBytes(keyOf(4), keyOf(10))).toBeLessThan(0)
  })
})
