import { segmentHeaderBytes } from "../../src/journal/format.ts"
import { concatBytes, toHex, utf8 } from "../../src/lib/bytes.ts"
import { Prng } from "../../src/lib/prng.ts"
import type { EngineOptions } from "../../src/lsm/engine.ts"
import { Engine } from "../../src/lsm/engine.ts"
import { tableFooterBytes, tableHeaderBytes } from "../../src/lsm/table/format.ts"
import { decodeFooter, decodeProperties } from "../../src/lsm/table/tableParts.ts"
import { contents, JournalDriver, smallOptions } from "../journal/driver.ts"
import { SimulatedDisk } from "../sim/simulatedDisk.ts"
import { bytesOf } from "./fuzzSamples.ts"
import { flushAll, randomKey, randomValue, settle, step } from "./harness.ts"
import { type Pair, SortedModel } from "./metamorphicModel.ts"
import { treeIds } from "./metamorphicTrace.ts"

/** A stretch of a file in which one bit is flipped. */
export interface Target {
  readonly kind: string
  readonly path: string
  readonly offset: number
  readonly sizeBytes: number
}

export interface EngineSample {
  readonly disk: SimulatedDisk
  readonly options: EngineOptions
  readonly pairs: ReadonlyArray<Pair>
  /** Deleted, one by one or as a range: they must never come back. */
  readonly absent: ReadonlyArray<string>
  readonly targets: ReadonlyArray<Target>
}

/** Tables on several levels with deletes, range tombstones, pages of index, filters and every compression; a manifest of many edits. */
export function makeEngineSample(seed: number): EngineSample {
  const prng = new Prng(seed)
  const disk = new SimulatedDisk()
  const kinds = ["none", "snappy", "lz4", "zstd"] as const
  const options: EngineOptions = {
    memtableBytes: 4000,
    tableBytes: 1500,
    blockBytes: 200,
    indexPageBytes: 120,
    baseBytes: 3000,
    levelRatioMax: 3,
    compactionBytes: 4000,
    level0Trigger: 3,
    manifestBytes: 1 << 20,
    compression: { level0: prng.pick(kinds), middle: prng.pick(kinds), bottom: prng.pick(kinds) },
    trees: treeIds.map((id) => ({ id, name: `tree ${id}` })),
  }
  const engine = Engine.open(disk, "engine", options)
  const model = new SortedModel()
  const known = new Set<string>()
  for (let round = 0; round < 6; round++) {
    for (let i = 0; i < 40; i++) {
      const key = concatBytes(new Uint8Array([prng.pick(treeIds)]), randomKey(prng))
      known.add(toHex(key))
      if (prng.chance(0.2)) {
        engine.delete(key)
        model.delete(toHex(key))
      } else {
        const value = randomValue(prng)
        engine.put(key, value)
        model.put(toHex(key), value)
      }
    }
    const lower = concatBytes(new Uint8Array([prng.pick(treeIds)]), utf8(`key:${prng.int(1, 8)}`))
    const upper = concatBytes(lower, new Uint8Array([0x40]))
    engine.deleteRange(lower, upper)
    model.deleteRange(toHex(lower), toHex(upper))
    flushAll(engine, disk)
    if (round < 4) settle(engine, disk)
    else step(engine, disk)
  }
  engine.close()
  disk.keepAll()
  const pairs = model.between("", undefined)
  const absent = [...known].filter((key) => model.get(key) === undefined)
  return { disk, options, pairs, absent, targets: targetsOf(disk) }
}

function targetsOf(disk: SimulatedDisk): ReadonlyArray<Target> {
  const targets: Array<Target> = []
  for (const name of disk.list("engine")) {
    const path = `engine/${name}`
    const { length } = bytesOf(disk, path)
    if (name.endsWith(".table")) targets.push(...partsOf(disk, path))
    else if (name === "CURRENT")
      targets.push({ kind: "CURRENT", path, offset: 0, sizeBytes: length })
    else targets.push({ kind: "manifest", path, offset: 0, sizeBytes: length })
  }
  return targets
}

function partsOf(disk: SimulatedDisk, path: string): ReadonlyArray<Target> {
  const bytes = bytesOf(disk, path)
  const footerAt = bytes.length - tableFooterBytes
  const { properties } = decodeFooter(bytes.subarray(footerAt))
  const end = properties.offset + properties.sizeBytes - 5
  const { tombstonePlace, filterPlace, indexPlace } = decodeProperties(
    bytes.subarray(properties.offset, end),
  )
  const target = (kind: string, offset: number, sizeBytes: number) => {
    return { kind: `table ${kind}`, path, offset, sizeBytes }
  }
  return [
    target("header", 0, tableHeaderBytes),
    // The pages of the index follow the data blocks.
    target("data and index pages", tableHeaderBytes, tombstonePlace.offset - tableHeaderBytes),
    target("tombstones", tombstonePlace.offset, tombstonePlace.sizeBytes),
    target("filter", filterPlace.offset, filterPlace.sizeBytes),
    target("index", indexPlace.offset, indexPlace.sizeBytes),
    target("properties", properties.offset, properties.sizeBytes),
    target("footer", footerAt, tableFooterBytes),
  ]
}

export interface JournalSample {
  readonly disk: SimulatedDisk
  readonly contents: string
  readonly targets: ReadonlyArray<Target>
}

/** Segments of a journal that was closed in order: the end of the last batch with entries is marked by a sealing batch. */
export function makeJournalSample(seed: number): JournalSample {
  const prng = new Prng(seed)
  const disk = new SimulatedDisk()
  const options = { ...smallOptions, segmentBytes: 2048, rewriteThresholdSegments: 99 }
  const driver = new JournalDriver(disk, options)
  const targets: Array<Target> = []
  for (let i = 1; i <= 20; i++) {
    const group = driver.journal.group({ range: 1 + (i % 2), replica: 3 })
    if (i % 5 === 0) group.setHardState({ term: i, vote: 3, commit: group.lastIndex })
    const data = randomValue(prng)
    group.append([{ index: group.lastIndex + 1, term: i, kind: 1, data: data.subarray(0, 300) }])
    const write = driver.commit()
    if (write === undefined) throw new Error("a batch was gathered")
    const { path, offset, bytes } = write
    targets.push({ kind: "journal batch", path, offset, sizeBytes: bytes.length })
    if (!targets.some((target) => target.kind === "journal header" && target.path === path)) {
      targets.push({ kind: "journal header", path, offset: 0, sizeBytes: segmentHeaderBytes })
    }
  }
  driver.seal()
  disk.keepAll()
  return { disk, contents: contents(driver.journal), targets }
}
