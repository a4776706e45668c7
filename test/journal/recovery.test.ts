import { describe, expect, test } from "bun:test"
import { StorageCorruption } from "../../src/disk/disk.ts"
import { batchHeaderBytes, segmentHeaderBytes } from "../../src/journal/format.ts"
import type { JournalWrite } from "../../src/journal/journal.ts"
import { prepareSegment, segmentJob, segmentPath } from "../../src/journal/segments.ts"
import { utf8 } from "../../src/lib/bytes.ts"
import { crc32 } from "../../src/lib/checksum.ts"
import { SimulatedDisk } from "../sim/simulatedDisk.ts"
import { contents, directory, JournalDriver, smallOptions } from "./driver.ts"

/** A batch as the test wrote it, and what the journal held after it. */
interface Written {
  readonly path: string
  readonly start: number
  readonly end: number
  readonly startLsn: number
  readonly endLsn: number
  readonly durableLsn: number
  readonly contents: string
}

interface Sample {
  readonly disk: SimulatedDisk
  readonly batches: ReadonlyArray<Written>
  /** Segments with content, in order. */
  readonly paths: ReadonlyArray<string>
  readonly segmentBytes: number
}

const segmentBytes = 2048

/** Two groups, two dozen batches, several segments; sealed at the end if asked. */
function sample(options: { readonly sealed: boolean }): Sample {
  const disk = new SimulatedDisk()
  const driver = new JournalDriver(disk, {
    ...smallOptions,
    segmentBytes,
    rewriteThresholdSegments: 99,
  })
  const batches: Array<Written> = []
  const note = (write: JournalWrite | undefined, durableLsn: number) => {
    if (write === undefined) throw new Error("a batch was gathered")
    const { path, offset, endLsn, bytes } = write
    const shape = { path, start: offset, end: offset + bytes.length, endLsn, durableLsn }
    batches.push({
      ...shape,
      startLsn: endLsn - bytes.length,
      contents: contents(driver.journal),
    })
  }
  for (let i = 1; i <= 24; i++) {
    const group = driver.journal.group({ range: 1 + (i % 2), replica: 3 })
    if (i % 5 === 0) group.setHardState({ term: i, vote: 3, commit: group.lastIndex })
    const data = utf8("v".repeat(i * 5))
    const index = i % 7 === 0 ? group.lastIndex : group.lastIndex + 1
    group.append([{ index, term: i, kind: 1, data }])
    const { durableLsn } = driver.journal
    note(driver.commit(), durableLsn)
  }
  if (options.sealed) {
    const { durableLsn } = driver.journal
    note(driver.seal(), durableLsn)
  }
  driver.prepare()
  const paths = [...new Set(batches.map((batch) => batch.path))]
  disk.keepAll()
  return { disk, batches, paths, segmentBytes }
}

function recovered(disk: SimulatedDisk): string {
  return contents(new JournalDriver(disk, { ...smallOptions, segmentBytes }).journal)
}

/** What recovery gives: a journal's contents, or the hole. */
function outcome(disk: SimulatedDisk): { contents: string } | { hole: StorageCorruption } {
  try {
    return { contents: recovered(disk) }
  } catch (error) {
    if (error instanceof StorageCorruption) return { hole: error }
    throw error
  }
}

/** Recovers, writes on, and recovers once more: what was kept and what was added must be there. */
function expectUsable(disk: SimulatedDisk, kept: string): void {
  const driver = new JournalDriver(disk, { ...smallOptions, segmentBytes })
  expect(contents(driver.journal)).toBe(kept)
  for (let i = 0; i < 3; i++) {
    const group = driver.journal.group({ range: 9, replica: 9 })
    group.append([{ index: group.lastIndex + 1, term: 1, kind: 0, data: utf8("more") }])
    driver.commit()
  }
  const after = contents(driver.journal)
  disk.loseAllUnsynced()
  expect(recovered(disk)).toBe(after)
}

function overwrite(disk: SimulatedDisk, path: string, offset: number, bytes: Uint8Array): void {
  const file = disk.open(path)
  file.write(bytes, offset)
  file.sync()
  file.close()
}

function fileBytes(disk: SimulatedDisk, path: string): Uint8Array {
  const file = disk.open(path)
  const bytes = new Uint8Array(file.sizeBytes)
  file.read(bytes, 0)
  file.close()
  return bytes
}

const unsealed = sample({ sealed: false })

test("the samples span several segments", () => {
  expect(unsealed.paths.length).toBeGreaterThanOrEqual(3)
  expect(unsealed.disk.list(directory).length).toBe(unsealed.paths.length + 1)
})

describe("torn tail", () => {
  test("a tail cut at any byte of the last three batches leaves the batches before it", () => {
    const last = unsealed.batches.slice(-3)
    let cuts = 0
    for (const batch of last) {
      for (let cut = batch.start; cut <= batch.end; cut++) {
        const disk = unsealed.disk.clone()
        for (const later of last.slice(last.indexOf(batch))) {
          const from = later === batch ? cut : later.start
          overwrite(disk, later.path, from, new Uint8Array(later.end - from))
        }
        // A batch ends in zeros, the upper bytes of a small number: cutting those takes nothing away.
        const bytes = fileBytes(unsealed.disk, batch.path).subarray(cut, batch.end)
        const index = unsealed.batches.indexOf(batch) - (bytes.some((byte) => byte !== 0) ? 1 : 0)
        expectUsable(disk, (unsealed.batches[index] as Written).contents)
        cuts++
      }
    }
    expect(cuts).toBeGreaterThan(500)
    expect(new Set(last.map((batch) => batch.path)).size).toBe(2)
  }, 60_000)

  test("a whole batch behind a torn one is not part of the journal, and never comes back", () => {
    const disk = new SimulatedDisk()
    const driver = new JournalDriver(disk)
    const append = (index: number) => {
      const group = driver.journal.group({ range: 1, replica: 1 })
      group.append([{ index, term: 1, kind: 0, data: utf8("entry") }])
      return driver.commit() as JournalWrite
    }
    append(1)
    const before = contents(driver.journal)
    const seal = driver.seal() as JournalWrite
    append(2)
    // Power was lost before the second batch was durable: it survived, the sealing batch before it
    // did not.
    overwrite(disk, seal.path, seal.offset, new Uint8Array(batchHeaderBytes))
    driver.recover()
    expect(contents(driver.journal)).toBe(before)
    const tail = fileBytes(disk, seal.path).subarray(seal.offset)
    expect(tail.some((byte) => byte !== 0)).toBe(false)
    // A new sealing batch takes the place of the old one: the chain would lead on to the dropped
    // batch.
    expect(driver.seal()?.offset).toBe(seal.offset)
    driver.recover()
    expect(contents(driver.journal)).toBe(before)
    append(2)
    driver.recover()
    expect(driver.journal.group({ range: 1, replica: 1 }).lastIndex).toBe(2)
  })

  test("garbage after the end is overwritten with zeros before anything is appended", () => {
    const { disk, batches } = unsealed
    const last = batches[batches.length - 1] as Written
    const copy = disk.clone()
    overwrite(copy, last.path, last.end + 7, utf8("garbage"))
    copy.keepAll()
    expect(recovered(copy)).toBe(last.contents)
    copy.loseAllUnsynced()
    expect(
      fileBytes(copy, last.path)
        .subarray(last.end)
        .some((byte) => byte !== 0),
    ).toBe(false)
  })

  test("what nobody states to be durable is written again before it is trusted", () => {
    const { disk, batches } = unsealed
    const last = batches[batches.length - 1] as Written
    const copy = disk.clone()
    // As after a failed fsync: the bytes can be read, but only a new write makes them durable.
    let rewritten = false
    const open = copy.open.bind(copy)
    copy.open = (path) => {
      const file = open(path)
      const write = file.write.bind(file)
      file.write = (bytes, offset) => {
        rewritten ||=
          path === last.path && offset <= last.start && offset + bytes.length >= last.end
        write(bytes, offset)
      }
      return file
    }
    expect(recovered(copy)).toBe(last.contents)
    expect(rewritten).toBe(true)
  })
})

describe("segments that are not as they were left", () => {
  function refusal(change: (disk: SimulatedDisk, from: Sample) => void): StorageCorruption {
    const disk = unsealed.disk.clone()
    change(disk, unsealed)
    const result = outcome(disk)
    if (!("hole" in result)) throw new Error("recovery accepted it")
    return result.hole
  }

  test("a missing segment between two others is refused and named", () => {
    const error = refusal((disk, { paths }) => disk.remove(paths[1] as string))
    expect(error.path).toBe(unsealed.paths[1] as string)
    expect(error.message).toContain("no such file")
  })

  test("live entries of a missing oldest segment are gaps", () => {
    const disk = unsealed.disk.clone()
    disk.remove(unsealed.paths[0] as string)
    const { journal } = new JournalDriver(disk, { ...smallOptions, segmentBytes })
    for (const group of journal.list()) {
      expect(group.gaps.map(({ from }) => from)).toEqual([1])
      expect(group.isUnsure).toBe(false)
      expect(group.voteFloor?.index).toBe(group.lastIndex)
    }
  })

  test("a missing newest segment shortens the journal if nothing states what it held", () => {
    const disk = unsealed.disk.clone()
    for (const name of disk.list(directory).slice(-2)) disk.remove(`${directory}/${name}`)
    const kept = unsealed.batches.filter((batch) => batch.path !== unsealed.paths.at(-1))
    expect(recovered(disk)).toBe((kept[kept.length - 1] as Written).contents)
  })

  test("a segment cut short, or grown, is refused", () => {
    for (const length of [0, 10, segmentHeaderBytes, 100, segmentBytes - 1]) {
      const error = refusal((disk, { paths }) => {
        const path = paths[1] as string
        const bytes = fileBytes(disk, path)
        disk.remove(path)
        disk.create(path).write(bytes.subarray(0, length), 0)
      })
      expect(error.path).toBe(unsealed.paths[1] as string)
      expect(error.offset).toBe(length)
    }
    const grown = refusal((disk, { paths }) => {
      overwrite(disk, paths[1] as string, segmentBytes, new Uint8Array(1))
    })
    expect(grown.message).toContain(`${segmentBytes} bytes in all`)
  })

  test("a segment under another one's name is refused", () => {
    const error = refusal((disk, { paths }) => {
      const bytes = fileBytes(disk, paths[0] as string)
      overwrite(disk, paths[1] as string, 0, bytes)
    })
    expect(error.message).toContain("expected segment 2, found segment 1")
  })

  test("a newer format is refused by its name, damage to the version is not taken for one", () => {
    const change = (disk: SimulatedDisk, path: string, fixChecksum: boolean) => {
      const header = fileBytes(disk, path).slice(0, segmentHeaderBytes)
      const view = new DataView(header.buffer)
      view.setUint32(8, 3, true)
      view.setUint32(12, 0, true)
      view.setUint32(12, fixChecksum ? crc32(header) : 1, true)
      overwrite(disk, path, 0, header)
    }
    const path = unsealed.paths[0] as string
    const newer = refusal((disk) => change(disk, path, true))
    expect(newer.message).toBe(
      `${path} at byte 8: expected journal format version 2, found version 3, a newer format`,
    )
    const disk = unsealed.disk.clone()
    change(disk, path, false)
    expect(toldBy(disk)).toEqual([`${path} 12`])
    expect(recovered(disk)).toBe(recovered(unsealed.disk.clone()))
  })

  /** Path and offset of each damage that recovery tells. */
  function toldBy(disk: SimulatedDisk): ReadonlyArray<string> {
    const { journal } = new JournalDriver(disk, { ...smallOptions, segmentBytes })
    return journal.takeDamages().map((each) => `${each.path} ${each.offset}`)
  }

  test("pitfall 36: a damaged header is made anew from what else is known, and told once", () => {
    const { paths, disk: whole } = unsealed
    const contents = recovered(whole.clone())
    for (const path of paths) {
      for (let offset = 0; offset < segmentHeaderBytes; offset++) {
        const disk = whole.clone()
        const before = fileBytes(disk, path).slice(0, segmentHeaderBytes)
        disk.corrupt(path, offset, 1 << (offset % 8))
        expect(toldBy(disk)).toHaveLength(1)
        expect(fileBytes(disk, path).slice(0, segmentHeaderBytes)).toEqual(before)
        expect(toldBy(disk)).toEqual([])
        expect(recovered(disk)).toBe(contents)
      }
    }
  })

  test("a damaged header that nothing else tells for sure is refused", () => {
    const noise = new Uint8Array(segmentHeaderBytes).fill(7)
    const [first, second] = unsealed.paths as [string, string]
    const newest = unsealed.paths.at(-1) as string
    const refused = (change: (disk: SimulatedDisk) => void) => refusal(change).path
    // Where the first of two ends, only the other one says.
    expect(refused((disk) => [first, second].map((path) => overwrite(disk, path, 0, noise)))).toBe(
      first,
    )
    // The oldest that is left, with none behind it.
    const alone = (disk: SimulatedDisk) => {
      const paths = disk.list(directory).map((name) => `${directory}/${name}`)
      for (const path of paths) if (path !== newest) disk.remove(path)
      overwrite(disk, newest, 0, noise)
    }
    expect(refused(alone)).toBe(newest)
    // Nothing in the newest one says that it ever held anything.
    expect(refused((disk) => overwrite(disk, newest, 0, new Uint8Array(segmentBytes)))).toBe(newest)
    // Not where its neighbour has it to end.
    const shorter = (disk: SimulatedDisk) => {
      const bytes = fileBytes(disk, second)
      disk.remove(second)
      disk.create(second).write(bytes.subarray(0, segmentBytes - 64), 0)
      overwrite(disk, second, 0, noise)
    }
    expect(refused(shorter)).toBe(second)
  })

  test("files left by an unfinished preparation, and files of others, are no segments", () => {
    const disk = unsealed.disk.clone()
    disk.create(`${segmentPath(directory, 9)}.new`).write(utf8("half"), 0)
    disk.create(`${directory}/notes.txt`).write(utf8("mine"), 0)
    expect(recovered(disk)).toBe((unsealed.batches.at(-1) as Written).contents)
    expect(disk.list(directory)).toContain("notes.txt")
    expect(disk.list(directory).some((name) => name.endsWith(".new"))).toBe(false)
  })

  test("preparing a segment again replaces the one that was ready", () => {
    const disk = new SimulatedDisk()
    disk.makeDirectory(directory)
    disk.syncDirectory("")
    for (const sizeBytes of [1000, 3000]) {
      prepareSegment(disk, segmentJob(directory, { number: 1, baseLsn: 0, sizeBytes }))
    }
    disk.loseAllUnsynced()
    expect(disk.open(segmentPath(directory, 1)).sizeBytes).toBe(3000)
    expect(disk.list(directory).length).toBe(1)
  })
})

test("a sealing batch lost at the end of a segment is not missed by the next one", () => {
  for (const lost of [false, true]) {
    const disk = new SimulatedDisk()
    const driver = new JournalDriver(disk, { ...smallOptions, segmentBytes })
    const group = driver.journal.group({ range: 1, replica: 1 })
    const append = (bytes: number) => {
      const index = group.lastIndex + 1
      group.append([{ index, term: 1, kind: 0, data: new Uint8Array(bytes).fill(1) }])
      driver.commit()
    }
    append(1000)
    disk.keepAll()
    driver.recover()
    driver.journal.group({ range: 1, replica: 1 })
    const seal = driver.seal()
    if (seal === undefined) throw new Error("a seal was due")
    if (lost) overwrite(disk, seal.path, seal.offset, new Uint8Array(seal.bytes.length))
    const again = driver.journal.group({ range: 1, replica: 1 })
    again.append([{ index: 2, term: 1, kind: 0, data: new Uint8Array(1500) }])
    driver.commit()
    again.append([{ index: 3, term: 1, kind: 0, data: new Uint8Array(15) }])
    driver.commit()
    const before = contents(driver.journal)
    disk.loseAllUnsynced()
    expect(recovered(disk)).toBe(before)
    expect(disk.list(directory).length).toBe(2)
  }
})
