import { describe, expect, test } from "bun:test"
import { segmentHeaderBytes } from "../../src/journal/format.ts"
import type { JournalGroup, LoggedEntry } from "../../src/journal/group.ts"
import { Journal } from "../../src/journal/journal.ts"
import { prepareSegment } from "../../src/journal/segments.ts"
import { text, utf8 } from "../../src/lib/bytes.ts"
import { SimulatedDisk } from "../sim/simulatedDisk.ts"
import { contents, directory, JournalDriver, smallOptions } from "./driver.ts"

const key = { range: 1, replica: 1 }

function entry(index: number, term: number, text = `e${index}.${term}`): LoggedEntry {
  return { index, term, kind: 1, data: utf8(text) }
}

function entries(from: number, to: number, term: number, bytes = 8): Array<LoggedEntry> {
  const result: Array<LoggedEntry> = []
  for (let i = from; i <= to; i++) result.push(entry(i, term, `e${i}.${term}`.padEnd(bytes, ".")))
  return result
}

function terms(group: JournalGroup): Array<string> {
  if (group.lastIndex < group.firstIndex) return []
  return group
    .entries(group.firstIndex, group.lastIndex + 1, Number.POSITIVE_INFINITY)
    .map(({ index, term }) => `${index}@${term}`)
}

/** A driver over a restarted journal, with what must be equal before and after. */
function restart(driver: JournalDriver): Journal {
  const before = contents(driver.journal)
  driver.recover()
  expect(contents(driver.journal)).toBe(before)
  return driver.journal
}

describe("a group's log", () => {
  test("a new journal is empty, says that it was created, and comes back as not created", () => {
    const disk = new SimulatedDisk()
    expect(Journal.recover(disk, directory, smallOptions).created).toBe(true)
    disk.loseAllUnsynced()
    const again = Journal.recover(disk, directory, smallOptions)
    expect(again.created).toBe(false)
    expect(again.groups).toEqual([])
  })

  test("appended entries are read at once, from memory, and after a restart from the file", () => {
    const driver = new JournalDriver(new SimulatedDisk())
    const group = driver.journal.group(key)
    group.append(entries(1, 3, 1))
    expect(terms(group)).toEqual(["1@1", "2@1", "3@1"])
    driver.commit()
    const [second] = restart(driver).group(key).entries(2, 3, 0)
    expect(second).toEqual(entry(2, 1, "e2.1....") as never)
  })

  test("entries read from the file in one call, however large, have bytes of their own", () => {
    const options = { ...smallOptions, segmentBytes: 8 * 1024 * 1024, tailCacheBytes: 0 }
    const driver = new JournalDriver(new SimulatedDisk(), options)
    const bytes = 1.5 * 1024 * 1024
    driver.journal.group(key).append(entries(1, 3, 1, bytes))
    driver.commit()
    driver.recover()
    const read = driver.journal.group(key).entries(1, 4, Number.POSITIVE_INFINITY)
    const starts = read.map(({ data }) => text(data.subarray(0, 4)))
    expect(starts).toEqual(["e1.1", "e2.1", "e3.1"])
  })

  test("an append truncates what stood at its first index and above", () => {
    const driver = new JournalDriver(new SimulatedDisk())
    const group = driver.journal.group(key)
    group.append(entries(1, 5, 1))
    driver.commit()
    group.append(entries(3, 3, 2))
    group.append(entries(4, 6, 2))
    group.append(entries(5, 5, 3))
    expect(terms(group)).toEqual(["1@1", "2@1", "3@2", "4@2", "5@3"])
    driver.commit()
    restart(driver)
  })

  test("entries returns at least one, then as many as fit the bytes asked for", () => {
    const driver = new JournalDriver(new SimulatedDisk())
    const group = driver.journal.group(key)
    group.append(entries(1, 10, 1, 100))
    const count = (maxBytes: number) => group.entries(1, 11, maxBytes).length
    expect([count(0), count(100), count(199), count(200), count(5000)]).toEqual([1, 1, 1, 2, 10])
  })

  test("an append beyond the end, or into what was released, is a bug and says so", () => {
    const driver = new JournalDriver(new SimulatedDisk())
    const group = driver.journal.group(key)
    group.append(entries(1, 4, 1))
    group.release(2)
    expect(() => group.append(entries(6, 6, 1))).toThrow("entry 6 follows on 3 to 4")
    expect(() => group.append(entries(2, 2, 1))).toThrow("entry 2 follows on 3 to 4")
    expect(() => group.append([entry(5, 2), entry(6, 1)])).toThrow("term 1 after 2")
  })

  test("release keeps the term before the first entry, also across a restart", () => {
    const driver = new JournalDriver(new SimulatedDisk())
    const group = driver.journal.group(key)
    group.append([...entries(1, 4, 1), ...entries(5, 8, 3)])
    group.release(4)
    expect([group.firstIndex, group.term(4), group.term(3), group.term(5)]).toEqual([
      5,
      1,
      undefined,
      3,
    ] as never)
    group.release(8)
    expect([group.firstIndex, group.lastIndex, group.term(8)]).toEqual([9, 8, 3])
    driver.commit()
    restart(driver)
  })

  test("after a reset to a higher index old entries never come back beside new ones", () => {
    const driver = new JournalDriver(new SimulatedDisk())
    const group = driver.journal.group(key)
    group.append(entries(1, 8, 1))
    driver.commit()
    group.resetTo(5, 2)
    group.append(entries(6, 6, 2))
    driver.commit()
    expect(terms(restart(driver).group(key))).toEqual(["6@2"])
  })

  test("records of a destroyed replica never count for another replica of its range", () => {
    const driver = new JournalDriver(new SimulatedDisk())
    const dead = driver.journal.group(key)
    dead.setHardState({ term: 7, vote: 1, commit: 2 })
    dead.append(entries(1, 4, 7))
    driver.commit()
    dead.destroy()
    const next = driver.journal.group({ range: 1, replica: 9 })
    next.resetTo(2, 7)
    next.append(entries(3, 3, 8))
    driver.commit()
    const journal = restart(driver)
    expect(journal.list().map((group) => group.key.replica)).toEqual([9])
    expect(() => dead.append(entries(1, 1, 7))).toThrow("exists")
  })

  test("a destroyed replica's key begins empty if it is used again in the same batch", () => {
    const driver = new JournalDriver(new SimulatedDisk())
    driver.journal.group(key).append(entries(1, 4, 7))
    driver.commit()
    driver.journal.group(key).destroy()
    driver.journal.group(key).append(entries(1, 1, 1))
    fill(driver, 60)
    expect(terms(restart(driver).group(key))).toEqual(["1@1"])
  })
})

describe("hard state", () => {
  test("the last term and vote written come back", () => {
    const driver = new JournalDriver(new SimulatedDisk())
    const group = driver.journal.group(key)
    group.setHardState({ term: 1, vote: 2, commit: 0 })
    driver.commit()
    group.setHardState({ term: 2, vote: 0, commit: 0 })
    group.setHardState({ term: 2, vote: 3, commit: 0 })
    driver.commit()
    expect(restart(driver).group(key).hardState).toEqual({ term: 2, vote: 3, commit: 0 })
  })

  test("a commit index alone is worth no write, and travels with the next one", () => {
    const driver = new JournalDriver(new SimulatedDisk())
    const group = driver.journal.group(key)
    group.append(entries(1, 2, 1))
    driver.commit()
    group.setHardState({ term: 0, vote: 0, commit: 2 })
    expect(driver.journal.wantsWrite).toBe(false)
    expect(driver.journal.cut()).toBeUndefined()
    driver.journal.group({ range: 2, replica: 1 }).append(entries(1, 1, 1))
    driver.commit()
    expect(restart(driver).group(key).hardState.commit).toBe(2)
  })

  test("it outlives the segment that held it, in the checkpoints", () => {
    const driver = new JournalDriver(new SimulatedDisk())
    driver.journal.group(key).setHardState({ term: 5, vote: 3, commit: 0 })
    fill(driver, 200)
    expect(driver.disk.exists(`${directory}/00000001.log`)).toBe(false)
    expect(restart(driver).group(key).hardState).toEqual({ term: 5, vote: 3, commit: 0 })
  })
})

/** Another group writes `count` batches and releases all it wrote. */
function fill(driver: JournalDriver, count: number): void {
  const group = driver.journal.group({ range: 99, replica: 1 })
  for (let i = 0; i < count; i++) {
    group.append(entries(group.lastIndex + 1, group.lastIndex + 1, 1, 200))
    driver.commit()
    group.release(group.lastIndex)
  }
  // Something to write, so that the last release is written with it.
  group.setHardState({ ...group.hardState, term: group.hardState.term + 1 })
  driver.commit()
}

describe("batches and segments", () => {
  test("one write is under way at a time, and the next batch gathers meanwhile", () => {
    const driver = new JournalDriver(new SimulatedDisk())
    const group = driver.journal.group(key)
    group.append(entries(1, 1, 1))
    const write = driver.journal.cut()
    if (write === undefined) throw new Error("a batch was gathered")
    const bytes = write.bytes.slice()
    group.append(entries(2, 2, 1))
    expect(driver.journal.cut()).toBeUndefined()
    expect(write.bytes).toEqual(bytes)
    expect(driver.journal.durableLsn).toBe(segmentHeaderBytes)
    driver.write(write)
    expect(driver.journal.durableLsn).toBe(write.endLsn)
    driver.commit()
    restart(driver)
  })

  test("a batch waits while the next segment is not ready", () => {
    const driver = new JournalDriver(new SimulatedDisk())
    const group = driver.journal.group(key)
    while (driver.writes < 100) {
      group.append(entries(group.lastIndex + 1, group.lastIndex + 1, 1, 500))
      const write = driver.journal.cut()
      if (write === undefined) break
      driver.write(write)
    }
    expect(driver.writes).toBeLessThan(9)
    expect(driver.journal.wantsWrite).toBe(true)
    const [job] = driver.journal.segmentsToPrepare()
    if (job === undefined) throw new Error("a segment is asked for")
    expect(driver.journal.segmentsToPrepare()).toEqual([])
    expect(driver.journal.cut()).toBeUndefined()
    prepareSegment(driver.disk, structuredClone(job))
    driver.journal.segmentReady(structuredClone(job))
    driver.commit()
    restart(driver)
  })

  test("a batch larger than a segment gets one made to measure, even if one is ready", () => {
    const driver = new JournalDriver(new SimulatedDisk())
    driver.prepare()
    const group = driver.journal.group(key)
    group.append(entries(1, 1, 1, 20_000))
    driver.commit()
    group.append(entries(2, 30, 1, 900))
    driver.commit()
    expect(driver.journal.wantsWrite).toBe(false)
    restart(driver)
  })

  test("segments go oldest first and never while one of their entries is live", () => {
    const driver = new JournalDriver(new SimulatedDisk(), {
      ...smallOptions,
      rewriteThresholdSegments: 1000,
    })
    driver.journal.group(key).append(entries(1, 1, 1))
    fill(driver, 200)
    const held = driver.disk.list(directory)
    expect(held[0]).toBe("00000001.log")
    expect(held.length).toBeGreaterThan(5)
    driver.journal.group(key).release(1)
    driver.commit()
    driver.commit()
    expect(driver.disk.list(directory).length).toBeLessThan(4)
    restart(driver)
  })

  test("a release that frees the oldest segment is worth a write of its own", () => {
    const driver = new JournalDriver(new SimulatedDisk())
    const group = driver.journal.group(key)
    group.append(entries(1, 20, 1, 100))
    driver.commit()
    group.append(entries(21, 60, 1, 100))
    driver.commit()
    group.release(20)
    expect(driver.journal.wantsWrite).toBe(false)
    expect(driver.journal.segmentsToDelete()).toEqual([])
    expect(driver.journal.wantsWrite).toBe(true)
    driver.commit()
    expect(driver.disk.exists(`${directory}/00000001.log`)).toBe(false)
    restart(driver)
  })

  test("live entries are copied out of the oldest segments, and truncate nothing", () => {
    const driver = new JournalDriver(new SimulatedDisk())
    const group = driver.journal.group(key)
    group.append(entries(1, 4, 1))
    for (let i = 0; i < 100; i++) {
      fill(driver, 2)
      driver.journal.maintain()
      driver.commit()
    }
    expect(driver.journal.heldSegments.count).toBeLessThan(6)
    expect(driver.disk.exists(`${directory}/00000001.log`)).toBe(false)
    expect(terms(restart(driver).group(key))).toEqual(["1@1", "2@1", "3@1", "4@1"])
  })

  test("an entry truncated while its copy is being written stays away", () => {
    const driver = new JournalDriver(new SimulatedDisk())
    const group = driver.journal.group(key)
    group.append(entries(1, 4, 1))
    fill(driver, 80)
    driver.journal.maintain()
    group.append(entries(2, 2, 5))
    driver.commit()
    for (let i = 0; i < 50; i++) {
      fill(driver, 3)
      driver.journal.maintain()
      driver.commit()
    }
    expect(terms(restart(driver).group(key))).toEqual(["1@1", "2@5"])
  })

  test("when nearly all that is held is live, nothing is copied", () => {
    const driver = new JournalDriver(new SimulatedDisk())
    const group = driver.journal.group(key)
    for (let i = 0; i < 30; i++) {
      group.append(entries(i * 3 + 1, i * 3 + 3, 1, 300))
      driver.commit()
    }
    driver.journal.maintain()
    expect(driver.journal.wantsWrite).toBe(false)
  })

  test("a sealing batch is written once after the last durable one, without a sync", () => {
    const driver = new JournalDriver(new SimulatedDisk())
    expect(driver.journal.sealIfIdle()).toBeUndefined()
    driver.journal.group(key).append(entries(1, 1, 1))
    expect(driver.journal.sealIfIdle()).toBeUndefined()
    driver.commit()
    expect(driver.seal()?.sync).toBe(false)
    expect(driver.journal.durableLsn).toBe(driver.journal.appendedLsn)
    expect(driver.journal.sealIfIdle()).toBeUndefined()
    restart(driver)
  })

  test("entries leave the cache when it is full and are read back from the file", () => {
    const driver = new JournalDriver(new SimulatedDisk(), { ...smallOptions, tailCacheBytes: 0 })
    const group = driver.journal.group(key)
    group.append(entries(1, 5, 1))
    const before = contents(driver.journal)
    driver.commit()
    expect(contents(driver.journal)).toBe(before)
    driver.disk.open(`${directory}/00000001.log`).write(utf8("X"), segmentHeaderBytes + 100)
    const damaged = driver.journal.group({ range: 1, replica: 1 })
    const known = driver.journal.takeDamages().length
    expect(damaged.entries(1, 6, 1e6).length).toBeLessThan(5)
    expect(damaged.missingCount).toBe(1)
    expect(driver.journal.takeDamages().length).toBe(known + 1)
  })
})
