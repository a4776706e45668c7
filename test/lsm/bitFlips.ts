import { StorageCorruption } from "../../src/disk/disk.ts"
import { toHex } from "../../src/lib/bytes.ts"
import { Prng } from "../../src/lib/prng.ts"
import { Engine } from "../../src/lsm/engine.ts"
import { removeFiles, runJob, runManifestWrite } from "../../src/lsm/maintenance/jobs.ts"
import { NewerFormat, OlderFormat } from "../../src/lsm/table/format.ts"
import { JournalDriver, smallOptions } from "../journal/driver.ts"
import { expectHonest } from "../journal/honesty.ts"
import type { SimulatedDisk } from "../sim/simulatedDisk.ts"
import {
  type EngineSample,
  type JournalSample,
  makeEngineSample,
  makeJournalSample,
  type Target,
} from "./bitFlipsSample.ts"
import { bytesOfKey, showPair, showValue } from "./metamorphicModel.ts"

/** What noticed the flips in one kind of file or part of one. */
export interface FlipCounts {
  flips: number
  open: number
  read: number
  verify: number
  compaction: number
  scrub: number
}

export interface BitFlipReport {
  readonly flips: number
  readonly kinds: Record<string, FlipCounts>
}

/** An answer was wrong, or nothing noticed a flip. */
export class Unnoticed extends Error {
  override readonly name = "Unnoticed"
}

const flipsPerSample = 100

/**
 * Flips one bit in one place, again and again, all kinds of files and all parts of a table alike. Each must be noticed when the file is opened, read,
 * compacted or verified; every answer must be right or a typed error; and a compaction must not write what is damaged under a new checksum. Throws
 * `Unnoticed` at the first flip that is not.
 */
export function runBitFlips(flips: number, seed: number): BitFlipReport {
  const prng = new Prng(seed)
  const kinds: Record<string, FlipCounts> = {}
  for (let done = 0; done < flips; done += flipsPerSample) {
    const engine = makeEngineSample(prng.uint32())
    const journal = makeJournalSample(prng.uint32())
    const targets = new Map<string, Array<Target>>()
    for (const target of [...engine.targets, ...journal.targets]) {
      const known = targets.get(target.kind)
      if (known === undefined) targets.set(target.kind, [target])
      else known.push(target)
    }
    const names = [...targets.keys()]
    for (let i = done; i < Math.min(flips, done + flipsPerSample); i++) {
      const target = prng.pick(targets.get(prng.pick(names)) as Array<Target>)
      const counts = countsOf(kinds, target.kind)
      const offset = target.offset + prng.int(0, target.sizeBytes - 1)
      const bit = 1 << prng.int(0, 7)
      try {
        if (target.kind.startsWith("journal")) flipInJournal(journal, target, offset, bit, counts)
        else flipInEngine(engine, target, offset, bit, counts)
      } catch (error) {
        const where = `seed ${seed}, flip ${i}: ${target.kind}, ${target.path}, byte ${offset}, bit ${bit}`
        throw new Unnoticed(`${where}: ${error}`, { cause: error })
      }
    }
  }
  return { flips, kinds }
}

function countsOf(kinds: Record<string, FlipCounts>, kind: string): FlipCounts {
  const known = kinds[kind]
  if (known !== undefined) return known
  const counts = { flips: 0, open: 0, read: 0, verify: 0, compaction: 0, scrub: 0 }
  kinds[kind] = counts
  return counts
}

function isTyped(error: unknown): boolean {
  return (
    error instanceof StorageCorruption ||
    error instanceof NewerFormat ||
    error instanceof OlderFormat
  )
}

/** What `body` gives; `undefined` when it throws a typed error. */
function attempt<A>(body: () => A): { value: A } | undefined {
  try {
    return { value: body() }
  } catch (error) {
    if (isTyped(error)) return undefined
    throw error
  }
}

function flipInJournal(
  sample: JournalSample,
  target: Target,
  offset: number,
  bit: number,
  counts: FlipCounts,
): void {
  const disk = sample.disk.clone()
  disk.corrupt(target.path, offset, bit)
  counts.flips++
  const found = attempt(() => new JournalDriver(disk, smallOptions).journal)
  counts.open++
  if (found === undefined) return
  // A hole: the node starts, says so, and knows what it lost.
  if (found.value.takeDamages().length === 0) throw new Unnoticed("recovered all the same")
  expectHonest(found.value, new JournalDriver(sample.disk.clone(), smallOptions).journal)
}

function flipInEngine(
  sample: EngineSample,
  target: Target,
  offset: number,
  bit: number,
  counts: FlipCounts,
): void {
  const disk = sample.disk.clone()
  disk.corrupt(target.path, offset, bit)
  counts.flips++
  const opened = attempt(() => Engine.open(disk, "engine", sample.options))
  if (opened === undefined) {
    counts.open++
    return
  }
  const engine = opened.value
  if (!readsRight(engine, sample)) counts.read++
  if (attempt(() => engine.verify()) !== undefined) throw new Unnoticed("verified all the same")
  counts.verify++
  engine.close()
  // These do much work; by turns.
  if (counts.flips % 2 === 0) counts.compaction += compacts(sample, target, offset, bit) ? 1 : 0
  else counts.scrub += scrubs(sample, target, offset, bit) ? 1 : 0
}

/** False when a read met the damage. Every answer is checked: point reads one by one, scans both ways as far as they come. */
function readsRight(engine: Engine, sample: EngineSample): boolean {
  let isWhole = true
  const check = (key: string, expected: Uint8Array | undefined) => {
    const found = attempt(() => engine.get(bytesOfKey(key)))
    if (found === undefined) isWhole = false
    else if (showValue(found.value) !== showValue(expected)) {
      throw new Unnoticed(`${key} answered as ${showValue(found.value)}`)
    }
  }
  for (const reverse of [false, true]) {
    const expected = reverse ? [...sample.pairs].reverse() : sample.pairs
    let count = 0
    const isEnd = attempt(() => {
      const iterator = engine.iterator({ reverse })
      try {
        while (iterator.next()) {
          const pair = expected[count++]
          const shown = showPair(toHex(iterator.key), iterator.value)
          if (pair === undefined || shown !== showPair(...pair)) {
            throw new Unnoticed(`a scan gave ${shown} as pair ${count}`)
          }
        }
      } finally {
        iterator.close()
      }
    })
    if (isEnd === undefined) isWhole = false
    else if (count !== expected.length) throw new Unnoticed(`a scan gave ${count} pairs`)
  }
  for (const [key, value] of sample.pairs) check(key, value)
  for (const key of sample.absent) check(key, undefined)
  return isWhole
}

/** Does all jobs of an engine in which one has met damage or will; true when one did. */
function doJobs(engine: Engine, disk: SimulatedDisk, limit: number): boolean {
  let isMet = false
  for (let i = 0; i < limit; i++) {
    const job = engine.nextJob(1_800_000_000_000 + i * 1000)
    if (job === undefined) break
    try {
      const write = engine.complete(job, runJob(disk, job))
      runManifestWrite(disk, write)
      engine.installed(write)
    } catch (error) {
      if (!(error instanceof StorageCorruption)) throw error
      engine.corrupted(job, error)
      isMet = true
    }
    removeFiles(disk, engine.obsoleteFiles())
  }
  return isMet
}

function damagedCopy(sample: EngineSample, target: Target, offset: number, bit: number) {
  const disk = sample.disk.clone()
  disk.corrupt(target.path, offset, bit)
  return disk
}

/** Everything is taken down; then the answers are right or errors, and what is damaged has not become good. */
function compacts(sample: EngineSample, target: Target, offset: number, bit: number): boolean {
  const disk = damagedCopy(sample, target, offset, bit)
  const options = { ...sample.options, level0Trigger: 1, baseBytes: 1, compactionBytes: 1000 }
  const engine = Engine.open(disk, "engine", options)
  const isMet = doJobs(engine, disk, 200)
  const isRight = readsRight(engine, sample)
  const isVerified = attempt(() => engine.verify()) !== undefined
  if (isVerified && !isRight) throw new Unnoticed("good bytes, and yet a read refused")
  if (isVerified && disk.exists(target.path)) throw new Unnoticed("the damaged file verifies")
  engine.close()
  return isMet
}

/** The engine's own search for damage finds it, and keeps it apart. */
function scrubs(sample: EngineSample, target: Target, offset: number, bit: number): boolean {
  const disk = damagedCopy(sample, target, offset, bit)
  let reports = 0
  const engine = Engine.open(disk, "engine", {
    ...sample.options,
    scrubBytesPerSecond: 1 << 20,
    // Nothing but the scrub, and what is due of itself.
    level0Trigger: 8,
    onCorruption: () => reports++,
  })
  doJobs(engine, disk, 200)
  const isFound = engine.quarantined().length > 0 && reports > 0
  const isRight = readsRight(engine, sample)
  engine.close()
  // A file may have gone meanwhile, whose damaged part belonged to nobody any more.
  if (!isFound && (disk.exists(target.path) || !isRight)) {
    throw new Unnoticed("scrubbed all the same")
  }
  return isFound
}
