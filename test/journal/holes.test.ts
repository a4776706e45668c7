import { describe, expect, test } from "bun:test"
import { batchHeaderBytes, recordTypes, segmentHeaderBytes } from "../../src/journal/format.ts"
import type { Journal } from "../../src/journal/journal.ts"
import { spans } from "../../src/journal/spans.ts"
import { utf8 } from "../../src/lib/bytes.ts"
import { Prng } from "../../src/lib/prng.ts"
import { SimulatedDisk } from "../sim/simulatedDisk.ts"
import { directory, JournalDriver, smallOptions } from "./driver.ts"
import { entryText, expectHonest, keyOf, logOf } from "./honesty.ts"

const options = { ...smallOptions, segmentBytes: 2048, rewriteThresholdSegments: 99 }

/** A record in a file, and the batch around it. */
interface Place {
  readonly path: string
  readonly batchStart: number
  readonly batchEnd: number
  readonly start: number
  readonly end: number
  readonly type: number
}

/**
 * Three groups, some dozen batches, several segments; appends, truncations, votes, releases, resets, a destroyed replica and one that took its place.
 * Sealed at the end if asked.
 */
function sample(seal = true): SimulatedDisk {
  const disk = new SimulatedDisk()
  const driver = new JournalDriver(disk, options)
  const { journal } = driver
  for (let i = 1; i <= 30; i++) {
    const group = journal.group({ range: 1 + (i % 3), replica: 3 })
    if (i % 5 === 0) group.setHardState({ term: i, vote: 3, commit: group.lastIndex })
    else group.setHardState({ ...group.hardState, term: Math.max(group.hardState.term, i) })
    const index = i % 7 === 0 ? group.lastIndex : group.lastIndex + 1
    const data = utf8("v".repeat(1 + ((i * 7) % 60)))
    if (i !== 13) group.append([{ index, term: i, kind: 1, data }])
    if (i % 9 === 0 && group.lastIndex > group.firstIndex) group.release(group.firstIndex)
    if (i === 16)
      journal.group({ range: 8, replica: 1 }).setHardState({ term: 1, vote: 0, commit: 0 })
    if (i === 17) journal.group({ range: 2, replica: 3 }).resetTo(40, 17)
    if (i === 21) journal.group({ range: 8, replica: 1 }).destroy()
    driver.commit()
  }
  if (seal) driver.seal()
  disk.keepAll()
  return disk
}

function recover(disk: SimulatedDisk): Journal {
  return new JournalDriver(disk, options).journal
}

function fileBytes(disk: SimulatedDisk, path: string): Uint8Array {
  const file = disk.open(path)
  const bytes = new Uint8Array(file.sizeBytes)
  file.read(bytes, 0)
  file.close()
  return bytes
}

function places(disk: SimulatedDisk): ReadonlyArray<Place> {
  const found: Array<Place> = []
  let baseLsn = 0
  for (const name of [...disk.list(directory)].sort()) {
    const path = `${directory}/${name}`
    const bytes = fileBytes(disk, path)
    const view = new DataView(bytes.buffer)
    for (const span of spans({ bytes, view, baseLsn })) {
      if (span._tag !== "Batch") continue
      let at = span.offset + batchHeaderBytes
      while (at < span.end) {
        const end = at + view.getUint32(at + 4, true)
        const batch = { batchStart: span.offset, batchEnd: span.end }
        found.push({ path, ...batch, start: at, end, type: bytes[at + 8] as number })
        at = end
      }
    }
    baseLsn += bytes.length
  }
  return found
}

describe("pitfall 36: a hole that only a torn batch proves", () => {
  const disk = new SimulatedDisk()
  const driver = new JournalDriver(disk, options)
  for (let term = 1; term <= 6; term++) {
    const group = driver.journal.group({ range: 1, replica: 3 })
    group.setHardState({ term, vote: 3, commit: 0 })
    group.append([{ index: term, term, kind: 1, data: utf8("value") }])
    driver.commit()
  }
  disk.keepAll()
  const all = places(disk)
  const torn = all.at(-1) as Place
  const hurt = all.findLast(({ batchEnd, type }) => {
    return batchEnd === torn.batchStart && type === recordTypes.append
  }) as Place
  const standings = (journal: Journal) => {
    return journal.list().map((group) => {
      const { key, hardState, lastIndex, gaps, isUnsure, voteFloor } = group
      return JSON.stringify({ key, hardState, lastIndex, gaps, isUnsure, voteFloor })
    })
  }

  for (const wholeBatch of [false, true]) {
    const what = wholeBatch ? "a whole batch" : "a record"
    test(`${what} before it: a second recovery, with nothing written since, knows as much as the first`, () => {
      expect(hurt.path).toBe(torn.path)
      const copy = disk.clone()
      const file = copy.open(hurt.path)
      const { batchStart, batchEnd } = hurt
      if (wholeBatch) file.write(new Uint8Array(batchEnd - batchStart).fill(7), batchStart)
      else copy.corrupt(hurt.path, hurt.start + 20, 1)
      // The power went while the last batch was written: its header is there, its records are not.
      const records = torn.batchStart + batchHeaderBytes
      file.write(new Uint8Array(torn.batchEnd - records), records)
      file.sync()
      const journal = recover(copy)
      expect(journal.takeDamages().length).toBe(1)
      const known = standings(journal)
      expect(known.some((text) => text.includes(wholeBatch ? '"isUnsure":true' : '"from":'))).toBe(
        true,
      )
      for (let i = 0; i < 3; i++) {
        const again = recover(copy)
        expect(again.takeDamages().length).toBe(1)
        expect(standings(again)).toEqual(known)
      }
    })
  }
})

describe("pitfall 36: one damaged record in what was durable", () => {
  const disk = sample()
  const truth = recover(disk.clone())

  test("the sample has every kind of record but copies", () => {
    const types = new Set(places(disk).map(({ type }) => type))
    const { rewrite, ...others } = recordTypes
    expect([...types].sort()).toEqual(Object.values(others).sort())
  })

  test("wherever the bit flips, its group says which entries it lost, and nobody is in doubt", () => {
    const missingByType = new Map<number, number>()
    for (const place of places(disk)) {
      for (let offset = place.start; offset < place.end; offset += 3) {
        const copy = disk.clone()
        copy.corrupt(place.path, offset, 1 << (offset % 8))
        const journal = recover(copy)
        const where = `${place.path} ${offset}`
        const damages = journal.takeDamages()
        expect(
          damages.map(({ path }) => path),
          where,
        ).toEqual([place.path])
        expect(damages[0]?.offset, where).toBe(place.start)
        const { missing, unsure } = expectHonest(journal, truth)
        expect(unsure, where).toBe(0)
        // Behind a damaged length nothing is read up to the standing records.
        if (missing > 1) expect([4, 5, 6, 7], where).toContain(offset - place.start)
        const known = missingByType.get(place.type) ?? 0
        missingByType.set(place.type, Math.max(known, missing))
      }
    }
    expect(missingByType.get(recordTypes.append)).toBeLessThanOrEqual(3)
    for (const type of [recordTypes.hardState, recordTypes.standing, recordTypes.destroy]) {
      expect(missingByType.get(type)).toBe(0)
    }
  }, 60_000)

  test("in the header of a batch it costs nothing", () => {
    for (const { path, batchStart } of places(disk)) {
      for (let offset = batchStart; offset < batchStart + batchHeaderBytes; offset += 5) {
        const copy = disk.clone()
        copy.corrupt(path, offset, 1 << (offset % 8))
        const journal = recover(copy)
        expect(journal.takeDamages().map(({ offset }) => offset)).toEqual([batchStart])
        expect(expectHonest(journal, truth)).toEqual({ missing: 0, unsure: 0 })
      }
    }
  }, 60_000)

  test("what it knows outlives restarts, further batches and the segment with the hole", () => {
    for (const place of places(disk)) {
      if (place.type !== recordTypes.append) continue
      const copy = disk.clone()
      copy.corrupt(place.path, place.start + 20, 4)
      const driver = new JournalDriver(copy, options)
      const before = driver.journal.list().map((group) => JSON.stringify(group.gaps))
      for (let i = 0; i < 12; i++) {
        driver.journal.group({ range: 99, replica: 1 }).resetTo(i + 1, 1)
        driver.commit()
      }
      driver.recover()
      const after = driver.journal.list().map((group) => JSON.stringify(group.gaps))
      expect(after.slice(0, before.length)).toEqual(before)
    }
  }, 60_000)
})

describe("whole batches lost", () => {
  test("a doubt ends with what shows where the group stands, else it stays, over restarts and segments", () => {
    const disk = sample()
    const truth = recover(disk.clone())
    let unsureAtAll = 0
    const batches = new Map(
      places(disk).map((place) => [`${place.path} ${place.batchStart}`, place]),
    )
    for (const { path, batchStart, batchEnd } of batches.values()) {
      if (path.endsWith("01.log") && batchStart === segmentHeaderBytes) continue
      const copy = disk.clone()
      const file = copy.open(path)
      file.write(new Uint8Array(batchEnd - batchStart).fill(0x5a), batchStart)
      file.sync()
      const driver = new JournalDriver(copy, options)
      expect(driver.journal.takeDamages()).toHaveLength(1)
      const { unsure } = expectHonest(driver.journal, truth)
      unsureAtAll += unsure
      const doubts = () =>
        driver.journal
          .list()
          .filter((g) => g.isUnsure)
          .map(keyOf)
      const before = doubts()
      for (let i = 0; i < 12; i++) {
        driver.journal.group({ range: 99, replica: 1 }).resetTo(i + 1, 1)
        driver.commit()
        driver.recover()
        expect(doubts()).toEqual(before)
      }
    }
    expect(unsureAtAll).toBeGreaterThan(0)
  }, 60_000)

  test("lost or misdirected sectors never make a group claim what is not so", () => {
    const disk = sample()
    const truth = recover(disk.clone())
    const names = [...disk.list(directory)].sort().slice(0, -1)
    const lastPath = places(disk).at(-1)?.path
    const prng = new Prng(7)
    let noticed = 0
    for (let round = 0; round < 2000; round++) {
      const copy = disk.clone()
      const path = `${directory}/${prng.pick(names)}`
      const length = prng.int(1, 700)
      const offset = prng.int(segmentHeaderBytes, options.segmentBytes - length)
      const other = fileBytes(copy, `${directory}/${prng.pick(names)}`)
      const from = prng.int(0, options.segmentBytes - length)
      const bytes = prng.chance(0.3)
        ? new Uint8Array(length)
        : prng.chance(0.5)
          ? other.slice(from, from + length)
          : Uint8Array.from({ length }, () => prng.int(0, 255))
      const file = copy.open(path)
      file.write(bytes, offset)
      file.sync()
      let journal: Journal
      try {
        journal = recover(copy)
      } catch {
        noticed++
        continue
      }
      if (journal.takeDamages().length > 0) noticed++
      // Damage to everything from some batch to the end, the seal too, passes for a torn tail.
      else if (path === lastPath) continue
      try {
        expectHonest(journal, truth)
      } catch (error) {
        if (path !== lastPath) throw new Error(`round ${round}: ${error}`, { cause: error })
      }
    }
    expect(noticed).toBeGreaterThan(500)
  }, 60_000)
})

describe("filling", () => {
  /** Entry 3 of 5 is damaged. */
  function damaged(): { driver: JournalDriver; disk: SimulatedDisk } {
    const disk = new SimulatedDisk()
    const driver = new JournalDriver(disk, options)
    const group = driver.journal.group({ range: 1, replica: 1 })
    group.setHardState({ term: 4, vote: 2, commit: 0 })
    for (let index = 1; index <= 5; index++) {
      group.append([{ index, term: index < 3 ? 1 : 4, kind: 1, data: utf8(`entry ${index}`) }])
      driver.commit()
    }
    driver.seal()
    disk.keepAll()
    const place = places(disk).filter(({ type }) => type === recordTypes.append)[2] as Place
    disk.corrupt(place.path, place.start + 54, 1)
    driver.recover()
    return { driver, disk }
  }
  const third = { index: 3, term: 4, kind: 1, data: utf8("entry 3") }
  const key = { range: 1, replica: 1 }

  test("takes what fits between its neighbours, and nothing else", () => {
    const { driver, disk } = damaged()
    const group = driver.journal.group(key)
    expect(group.gaps).toEqual([
      { from: 3, to: 3, before: { index: 2, term: 1 }, anchor: { index: 3, term: 4 } },
    ])
    expect(group.voteFloor).toEqual({ index: 5, term: 4 })
    expect(group.lastReadable).toBe(2)
    expect(group.entries(1, 6, 1e6).map(({ index }) => index)).toEqual([1, 2])
    expect(group.fill([{ ...third, term: 3 }])).toBe(0)
    expect(group.fill([{ ...third, term: 5 }])).toBe(0)
    expect(group.fill([{ ...third, index: 4 }])).toBe(0)
    expect(group.fill([third, { ...third, index: 4 }])).toBe(1)
    // Only what is durable counts.
    expect(group.missingCount).toBe(1)
    driver.commit()
    expect(group.gaps).toEqual([])
    expect(group.voteFloor).toEqual({ index: 5, term: 4 })
    group.mended()
    expect(group.voteFloor).toBeUndefined()
    expect(logOf(group)[2]).toBe(entryText(third))
    disk.loseAllUnsynced()
    driver.recover()
    const again = driver.journal.group(key)
    expect(again.missingCount).toBe(0)
    expect(logOf(again)[2]).toBe(entryText(third))
    expect(again.hardState).toEqual({ term: 4, vote: 2, commit: 0 })
  })

  test("a crash in it leaves the gap, or fills it", () => {
    for (let point = 1; point < 8; point++) {
      const { driver, disk } = damaged()
      disk.crashAfter(disk.operations + point)
      try {
        driver.journal.group(key).fill([third])
        driver.commit()
      } catch {
        // The crash.
      }
      disk.crashAfter(undefined)
      disk.crash(new Prng(point))
      driver.recover()
      const group = driver.journal.group(key)
      if (group.missingCount > 0) {
        expect(group.gaps).toHaveLength(1)
        group.fill([third])
        driver.commit()
      }
      driver.recover()
      expect(logOf(driver.journal.group(key))).toHaveLength(5)
      expect(driver.journal.group(key).missingCount).toBe(0)
    }
  })

  test("a core that does not know yet that a gap is filled makes nothing forgotten", () => {
    const { driver } = damaged()
    const group = driver.journal.group(key)
    group.fill([third])
    driver.commit()
    group.append([third])
    expect(group.voteFloor).toEqual({ index: 5, term: 4 })
    group.mended()
    expect(group.voteFloor).toEqual({ index: 5, term: 4 })
    driver.commit()
    driver.recover()
    expect(driver.journal.group(key).voteFloor).toEqual({ index: 5, term: 4 })
  })

  test("a leader's entries in place of the gap: what was promised stays the floor until it is reached", () => {
    const { driver } = damaged()
    driver.journal.group(key).append([third])
    expect(driver.journal.group(key).voteFloor).toEqual({ index: 5, term: 4 })
    driver.commit()
    driver.recover()
    const group = driver.journal.group(key)
    expect(group.lastIndex).toBe(3)
    expect(group.missingCount).toBe(0)
    expect(group.voteFloor).toEqual({ index: 5, term: 4 })
    group.append([{ ...third, index: 4, term: 6 }])
    expect(group.voteFloor).toBeUndefined()
    driver.commit()
    driver.recover()
    expect(driver.journal.group(key).voteFloor).toBeUndefined()
  })

  test("an unsure group settles on the largest term and the furthest log of the others", () => {
    const disk = new SimulatedDisk()
    const driver = new JournalDriver(disk, options)
    const group = driver.journal.group(key)
    group.setHardState({ term: 4, vote: 2, commit: 0 })
    group.append([{ ...third, index: 1 }])
    driver.commit()
    group.append([{ ...third, index: 2 }])
    const write = driver.commit()
    driver.seal()
    disk.keepAll()
    const file = disk.open(write?.path as string)
    file.write(new Uint8Array(write?.bytes.length as number).fill(1), write?.offset as number)
    file.sync()
    driver.recover()
    const unsure = driver.journal.group(key)
    expect([unsure.isUnsure, unsure.lastIndex]).toEqual([true, 1])
    driver.commit()
    driver.recover()
    const still = driver.journal.group(key)
    expect(still.isUnsure).toBe(true)
    still.settle(6, { index: 3, term: 4 })
    // Its core does not know yet what it must not do.
    expect(still.mayVote).toBe(false)
    driver.commit()
    driver.recover()
    const settled = driver.journal.group(key)
    expect(settled.isUnsure).toBe(false)
    expect(settled.hardState).toEqual({ term: 6, vote: 1, commit: 0 })
    expect(settled.voteFloor).toEqual({ index: 3, term: 4 })
    expect(settled.gaps).toEqual([
      { from: 2, to: 3, before: { index: 1, term: 4 }, anchor: { index: 3, term: 4 } },
    ])
  })
})
