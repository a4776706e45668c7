import type { Disk } from "../../src/disk/disk.ts"
import { compareBytes, fromHex, text, toHex, utf8 } from "../../src/lib/bytes.ts"
import { ByteWriter } from "../../src/lib/byteWriter.ts"
import { crc32 } from "../../src/lib/checksum.ts"
import type { Prng } from "../../src/lib/prng.ts"
import type { Engine, EngineOptions, EngineSnapshot } from "../../src/lsm/engine.ts"
import type { EngineJob } from "../../src/lsm/maintenance/jobs.ts"
import { removeFiles, runJob, runManifestWrite } from "../../src/lsm/maintenance/jobs.ts"

/** Sizes at which a few hundred puts make every level. */
export const tinyOptions: EngineOptions = { memtableBytes: 1024, blockBytes: 128 }

/**
 * Carries out a job as the driver does, start to end; returns the bytes of the tables that it
 * wrote.
 */
export function carryOut(engine: Engine, disk: Disk, job: EngineJob): number {
  const result = runJob(disk, job)
  const write = engine.complete(job, result)
  runManifestWrite(disk, write)
  engine.installed(write)
  removeFiles(disk, engine.obsoleteFiles())
  return result.tables.reduce((sum, table) => sum + table.sizeBytes, 0)
}

/** The time at which jobs are asked for, when nothing else is said. */
export const nowMs = Date.UTC(2026, 0, 1)

/** One job, if there is one. */
export function step(engine: Engine, disk: Disk): boolean {
  const job = engine.nextJob(nowMs)
  if (job === undefined) return false
  carryOut(engine, disk, job)
  return true
}

/** Jobs until there is none. */
export function settle(engine: Engine, disk: Disk): number {
  let jobs = 0
  while (step(engine, disk)) jobs++
  return jobs
}

/** Seals, with jobs first as far as there must be room for it. */
export function sealWhenPossible(engine: Engine, disk: Disk): number {
  while (!engine.canSeal) step(engine, disk)
  return engine.seal()
}

/** Everything in tables: what a barrier waits for. */
export function flushAll(engine: Engine, disk: Disk): void {
  const generation = sealWhenPossible(engine, disk)
  while (engine.flushedThrough < generation) step(engine, disk)
}

export type Pairs = ReadonlyArray<readonly [Uint8Array, Uint8Array]>

/** Writes a spill; returns its checksum. */
export function writeSpill(disk: Disk, path: string, pairs: Pairs): number {
  const writer = new ByteWriter()
  for (const [key, value] of pairs) {
    writer.u32(key.length)
    writer.u32(value.length)
    writer.raw(key)
    writer.raw(value)
  }
  if (disk.exists(path)) disk.remove(path)
  const file = disk.create(path)
  if (writer.length > 0) file.write(writer.bytes(), 0)
  file.close()
  return crc32(writer.bytes())
}

/**
 * What an engine should hold: a plain map, sorted when asked. Keys in hex, which sorts as the bytes
 * do.
 */
export class Model {
  readonly pairs: Map<string, Uint8Array>

  constructor(pairs: Iterable<readonly [string, Uint8Array]> = []) {
    this.pairs = new Map(pairs)
  }

  clone(): Model {
    return new Model(this.pairs)
  }

  put(key: Uint8Array, value: Uint8Array): void {
    this.pairs.set(toHex(key), value)
  }

  delete(key: Uint8Array): void {
    this.pairs.delete(toHex(key))
  }

  get(key: Uint8Array): Uint8Array | undefined {
    return this.pairs.get(toHex(key))
  }

  deleteRange(lower: Uint8Array, upper: Uint8Array): void {
    for (const [key] of this.between(lower, upper)) this.delete(key)
  }

  replace(lower: Uint8Array, upper: Uint8Array | undefined, pairs: Pairs): void {
    for (const [key] of this.between(lower, upper)) this.delete(key)
    for (const [key, value] of pairs) this.put(key, value)
  }

  between(lower: Uint8Array, upper: Uint8Array | undefined): Array<[Uint8Array, Uint8Array]> {
    const result: Array<[Uint8Array, Uint8Array]> = []
    for (const [hex, value] of this.pairs) {
      const key = fromHex(hex) as Uint8Array
      if (compareBytes(key, lower) < 0) continue
      if (upper !== undefined && compareBytes(key, upper) >= 0) continue
      result.push([key, value])
    }
    return result.sort((left, right) => compareBytes(left[0], right[0]))
  }

  /** One line that two models share exactly when they are equal. */
  digest(): string {
    return digest(this.between(new Uint8Array(0), undefined))
  }
}

export function digest(pairs: Pairs): string {
  return pairs.map(([key, value]) => `${toHex(key)}=${toHex(value)}`).join(" ")
}

export function contentOf(
  engine: Engine,
  options: {
    lower?: Uint8Array
    upper?: Uint8Array | undefined
    prefix?: Uint8Array | undefined
    reverse?: boolean
    snapshot?: EngineSnapshot
  } = {},
): Array<[Uint8Array, Uint8Array]> {
  const iterator = engine.iterator(options)
  const result: Array<[Uint8Array, Uint8Array]> = []
  while (iterator.next()) result.push([iterator.key, iterator.value])
  iterator.close()
  return result
}

/** Short keys that collide, share prefixes, hold 0x00 and 0xff, and extend one another. */
export function randomKey(prng: Prng): Uint8Array {
  const style = prng.int(0, 9)
  if (style < 5) return utf8(`key:${prng.int(0, 120)}`)
  if (style < 8) {
    const key = new Uint8Array(prng.int(1, 5))
    for (let i = 0; i < key.length; i++) key[i] = prng.pick([0, 1, 0x6b, 0x7f, 0x80, 0xfe, 0xff])
    return key
  }
  if (style < 9) return utf8(`key:${"long".repeat(prng.int(1, 12))}${prng.int(0, 5)}`)
  return new Uint8Array(prng.int(1, 20)).fill(0xff)
}

export function randomValue(prng: Prng): Uint8Array {
  const length = prng.chance(0.02) ? prng.int(200, 3000) : prng.int(0, 40)
  const value = new Uint8Array(length)
  for (let i = 0; i < length; i++) value[i] = prng.int(0, 255)
  return value
}

/** A seed that differs from run to run, printed so that it can be given again as KVORUM_SEED. */
export function freshSeed(name: string): number {
  const given = process.env.KVORUM_SEED
  const seed = given === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(given)
  console.log(`${name}: KVORUM_SEED=${seed}`)
  return seed
}

export { text, utf8 }
