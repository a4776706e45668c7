import type { Disk, DiskFile } from "../../src/disk/disk.ts"
import { utf8 } from "../../src/lib/bytes.ts"
import { Engine, type EngineOptions } from "../../src/lsm/engine.ts"
import {
  type EngineJob,
  removeFiles,
  runJob,
  runManifestWrite,
} from "../../src/lsm/maintenance/jobs.ts"
import { readCurrent, readManifest } from "../../src/lsm/manifest/manifest.ts"
import type { Fragment } from "../../src/lsm/manifest/version.ts"
import { SimulatedDisk } from "../sim/simulatedDisk.ts"
import { Model } from "./harness.ts"

// An engine over a simulated disk, and its background jobs carried out one by one.

/** Four runs of level 0 come after a few dozen puts, several levels after some hundred. */
export const small: EngineOptions = { memtableBytes: 1024, blockBytes: 128, maxLevel0Runs: 8 }
export const nowMs = Date.UTC(2026, 0, 1)

export function open(options: EngineOptions = small, disk = new SimulatedDisk()) {
  return { disk, engine: Engine.open(disk, "engine", options) }
}

export function carryOut(engine: Engine, disk: Disk, job: EngineJob): void {
  const write = engine.complete(job, runJob(disk, structuredClone(job)))
  runManifestWrite(disk, structuredClone(write))
  engine.installed(write)
  removeFiles(disk, engine.obsoleteFiles())
}

export function step(engine: Engine, disk: Disk, atMs = nowMs): EngineJob | undefined {
  const job = engine.nextJob(atMs)
  if (job !== undefined) carryOut(engine, disk, job)
  return job
}

export function settle(engine: Engine, disk: Disk, atMs = nowMs): ReadonlyArray<EngineJob> {
  const jobs: Array<EngineJob> = []
  for (let job = step(engine, disk, atMs); job !== undefined; job = step(engine, disk, atMs)) {
    jobs.push(job)
  }
  return jobs
}

export function flushAll(engine: Engine, disk: Disk): void {
  while (!engine.canSeal) step(engine, disk)
  const generation = engine.seal()
  while (engine.flushedThrough < generation) step(engine, disk)
}

export function put(engine: Engine, disk: Disk, key: Uint8Array, value: Uint8Array): void {
  const bytes = key.length + value.length
  while (!engine.canWrite(bytes)) step(engine, disk)
  if (engine.needsSeal(bytes)) engine.seal()
  engine.put(key, value)
}

/** Keys `prefix` 0000 and on, flushed every `perRun` of them, all merged down at the end. */
export function fill(
  engine: Engine,
  disk: Disk,
  count: number,
  prefix = "k",
  valueBytes = 40,
): Model {
  const model = new Model()
  for (let i = 0; i < count; i++) {
    const key = utf8(prefix + String(i).padStart(4, "0"))
    const value = new Uint8Array(valueBytes).fill(i)
    put(engine, disk, key, value)
    model.put(key, value)
  }
  flushAll(engine, disk)
  settle(engine, disk)
  return model
}

/** All data to the deepest level: four runs of nothing much make level 0 come down. */
export function toBottom(engine: Engine, disk: Disk): void {
  for (let i = 0; i < 4; i++) {
    engine.put(utf8("k0000"), Uint8Array.of(i))
    flushAll(engine, disk)
  }
  settle(engine, disk)
}

export function fragmentsOf(disk: Disk, directory = "engine"): ReadonlyArray<Fragment> {
  return readManifest(disk, directory, readCurrent(disk, directory)).state.fragments
}

export function tablesOnDisk(disk: Disk, directory = "engine"): ReadonlyArray<string> {
  const names = disk.list(directory).filter((name) => name.endsWith(".table"))
  return names.map((name) => `${directory}/${name}`)
}

export const interval = (lower: string, upper: string | undefined) => ({
  lower: utf8(lower),
  upper: upper === undefined ? undefined : utf8(upper),
})

/** Knows which of its files are open. */
export class CountingDisk extends SimulatedDisk {
  readonly opened = new Set<DiskFile>()

  override open(path: string): DiskFile {
    return this.watched(super.open(path))
  }

  override create(path: string): DiskFile {
    return this.watched(super.create(path))
  }

  private watched(file: DiskFile): DiskFile {
    const close = file.close.bind(file)
    this.opened.add(file)
    file.close = () => {
      this.opened.delete(file)
      close()
    }
    return file
  }
}
