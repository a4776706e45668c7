import { describe, expect, test } from "bun:test"
import { dumpJournal } from "../../src/doctor/dumpJournal.ts"
import { JournalCheck, type JournalReport } from "../../src/doctor/journalCheck.ts"
import { type Damage, Findings } from "../../src/doctor/report.ts"
import { Journal } from "../../src/journal/journal.ts"
import { utf8 } from "../../src/lib/bytes.ts"
import { directory, JournalDriver, smallOptions } from "../journal/driver.ts"
import { SimulatedDisk } from "../sim/simulatedDisk.ts"

/** Four segments, every batch durable, the last one stated so by a sealing batch. */
function filledJournal(): { disk: SimulatedDisk; driver: JournalDriver } {
  const disk = new SimulatedDisk()
  const driver = new JournalDriver(disk, { ...smallOptions, rewriteThresholdSegments: 100 })
  const group = driver.journal.group({ range: 7, replica: 3 })
  group.setHardState({ term: 2, vote: 1, commit: 0 })
  for (let index = 1; index <= 60; index++) {
    group.append([{ index, term: 2, kind: 1, data: utf8(`entry ${index} ${"x".repeat(index)}`) }])
    driver.commit()
  }
  driver.seal()
  return { disk, driver }
}

function check(disk: SimulatedDisk): {
  report: JournalReport
  damages: ReadonlyArray<Damage>
  notes: ReadonlyArray<string>
} {
  const findings = new Findings()
  const steps = new JournalCheck({ disk, directory, findings }).run()
  for (;;) {
    const step = steps.next()
    if (step.done) {
      return { report: step.value, damages: findings.damages, notes: findings.notes }
    }
  }
}

/** Whether a start refuses the journal, or tells of damage in it. */
function said(disk: SimulatedDisk, options: JournalDriver["options"]): boolean {
  try {
    return Journal.recover(disk.clone(), directory, options).journal.takeDamages().length > 0
  } catch {
    return true
  }
}

function flip(disk: SimulatedDisk, path: string, offset: number): void {
  const file = disk.open(path)
  const byte = new Uint8Array(1)
  file.read(byte, offset)
  byte[0] ^= 0x10
  file.write(byte, offset)
  file.close()
}

describe("the doctor's look at a journal", () => {
  test("a sound one: segments, batches, groups", () => {
    const { disk } = filledJournal()
    const { report, damages, notes } = check(disk)
    expect(damages).toEqual([])
    expect(notes).toEqual([])
    expect(report.segments.map(({ path }) => path)).toEqual([
      "journal/00000001.log",
      "journal/00000002.log",
      "journal/00000003.log",
      "journal/00000004.log",
      // Made ready, not used yet.
      "journal/00000005.log",
    ])
    expect(report.groups).toEqual([
      expect.objectContaining({ range: 7, replica: 3, term: 2, firstIndex: 1, lastIndex: 60 }),
    ])
  })

  test("a flipped byte anywhere is a damage where a start would tell of it, and never changes anything", () => {
    const { disk, driver } = filledJournal()
    let told = 0
    let kept = 0
    for (const { path, contentBytes } of check(disk).report.segments) {
      for (let offset = 0; offset < contentBytes; offset += 3) {
        flip(disk, path, offset)
        const operations = disk.operations
        const { damages } = check(disk)
        expect(disk.operations).toBe(operations)
        // Recovery cleans up, so it runs on what is put back afterwards.
        if (damages.length > 0) {
          expect(said(disk, driver.options)).toBe(true)
          expect(damages.every((damage) => damage.path === path)).toBe(true)
          const nearest = damages.map((damage) => damage.offset)
          // The header of a segment is reported at its checksum, 12 bytes in.
          expect(Math.min(...nearest)).toBeLessThanOrEqual(Math.max(offset, 12))
          expect(offset - Math.max(...nearest)).toBeLessThan(400)
          told++
        } else kept++
        flip(disk, path, offset)
      }
    }
    expect(told).toBeGreaterThan(2500)
    // Only the sealing batch itself, 40 bytes, is nothing that anyone was promised.
    expect(kept).toBeLessThanOrEqual(14)
  })

  test("two damages are both found, with what they cover", () => {
    const { disk } = filledJournal()
    flip(disk, "journal/00000001.log", 950)
    flip(disk, "journal/00000002.log", 2000)
    const { damages, report } = check(disk)
    expect(damages.map(({ path }) => path)).toEqual([
      "journal/00000001.log",
      "journal/00000002.log",
    ])
    expect(damages[0]?.covers).toMatch(/^LSN \d+ to \d+, a batch of 2 records$/)
    const [group] = report.groups ?? []
    expect(group?.missing.length).toBeGreaterThanOrEqual(1)
    expect(group?.isUnsure).toBe(false)
  })

  test("a missing segment is named", () => {
    const { disk } = filledJournal()
    disk.remove("journal/00000002.log")
    const { damages } = check(disk)
    expect(damages[0]).toMatchObject({ path: "journal/00000002.log", found: "no such file" })
  })

  test("a torn tail is a note, not a damage", () => {
    const { disk, driver } = filledJournal()
    const group = driver.journal.group({ range: 7, replica: 3 })
    group.append([{ index: 61, term: 2, kind: 1, data: utf8("never acknowledged") }])
    const write = driver.journal.cut()
    if (write === undefined) throw new Error("nothing to write")
    const file = disk.open(write.path)
    file.write(write.bytes.subarray(0, write.bytes.length - 40), write.offset)
    file.close()
    const { damages, notes } = check(disk)
    expect(damages).toEqual([])
    expect(notes).toHaveLength(1)
    expect(notes[0]).toContain(`${write.path} from byte ${write.offset}`)
  })

  test("a dump names batches, records and what is broken", () => {
    const { disk } = filledJournal()
    const lines = [...dumpJournal(disk, "journal/00000001.log")]
    expect(lines[0]).toBe("journal segment 1: base LSN 0, 4096 bytes")
    expect(lines.some((line) => line.includes("append  group 7/3  entry 1@2 after term 0"))).toBe(
      true,
    )
    expect(lines.at(-1)).toMatch(/^\d+ {2}zeros to 4096$/)
    flip(disk, "journal/00000001.log", 300)
    const broken = [...dumpJournal(disk, "journal/00000001.log")]
    expect(broken.filter((line) => line.includes("BROKEN RECORD"))).toHaveLength(1)
  })
})
