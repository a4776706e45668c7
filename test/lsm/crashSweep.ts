import { assert } from "../../src/lib/assert.ts"
import { Prng } from "../../src/lib/prng.ts"
import type { EngineOptions } from "../../src/lsm/engine.ts"
import { Engine } from "../../src/lsm/engine.ts"
import type { EngineJob } from "../../src/lsm/jobs.ts"
import { removeFiles, runJob, runManifestWrite } from "../../src/lsm/jobs.ts"
import { SimulatedCrash, SimulatedDisk } from "../sim/simulatedDisk.ts"
import {
  contentOf,
  digest,
  Model,
  type Pairs,
  randomKey,
  randomValue,
  writeSpill,
} from "./harness.ts"

/**
 * A crash at every mutating operation of a workload with seals, flushes, compactions, ingests and
 * reopens; at each, every kind of loss; after each, also a crash during recovery. Whatever was
 * lost, the engine opens and holds exactly what it held after some manifest edit, the last one
 * installed or the one being written: a prefix without holes. And the folder holds what is live and
 * nothing else.
 */
export interface CrashSweepOptions {
  readonly seed: number
  /** Steps of the workload; a step makes about one disk operation. */
  readonly steps: number
  /** Random power losses tried at each point, besides the five fixed ones. */
  readonly randomLosses: number
}

export interface CrashSweepResult {
  /** Crash points: mutating disk operations of the workload. */
  readonly points: number
  /** Engines opened after a crash and checked. */
  readonly opens: number
  /** Opens that found a torn manifest or another repair to make, and were crashed in it. */
  readonly crashedOpens: number
}

interface DurableState {
  readonly generation: number
  readonly model: Model
}

type Write = { readonly key: Uint8Array; readonly value: Uint8Array | undefined }

const sizes: EngineOptions = {
  memtableBytes: 500,
  blockBytes: 100,
  tableBytes: 300,
  compactionBytes: 1500,
  level1Bytes: 1500,
  manifestBytes: 6000,
}

/** Drives an engine as a store does, and knows what must be durable. */
class Workload {
  readonly states: Array<DurableState> = []
  /** Index into `states` of the last edit known to be durable; the last state may be under way. */
  installed = 0
  private readonly disk: SimulatedDisk
  private readonly prng: Prng
  private engine: Engine
  /** Writes of each memtable, by generation. */
  private generations = new Map<number, Array<Write>>()
  private active: Array<Write> = []

  constructor(disk: SimulatedDisk, prng: Prng, from: DurableState | undefined) {
    this.disk = disk
    this.prng = prng
    this.states.push(from ?? { generation: 0, model: new Model() })
    this.engine = Engine.open(disk, "engine", sizes)
  }

  private get durable(): DurableState {
    return this.states[this.states.length - 1] as DurableState
  }

  run(steps: number): void {
    for (let i = 0; i < steps; i++) this.step()
  }

  private step(): void {
    const draw = this.prng.int(0, 999)
    if (draw < 800) this.write()
    else if (draw < 940) this.job()
    else if (draw < 975) this.seal()
    else if (draw < 988) this.replace()
    else this.reopen()
  }

  private write(): void {
    const key = randomKey(this.prng)
    const value = this.prng.chance(0.3) ? undefined : randomValue(this.prng)
    const bytes = key.length + (value?.length ?? 0)
    while (!this.engine.canWrite(bytes)) this.job()
    if (this.engine.needsSeal(bytes)) this.seal()
    if (value === undefined) this.engine.delete(key)
    else this.engine.put(key, value)
    this.active.push({ key, value })
  }

  private seal(): void {
    while (!this.engine.canSeal) this.job()
    if (this.active.length === 0) return
    this.generations.set(this.engine.seal(), this.active)
    this.active = []
  }

  private job(): void {
    const job = this.engine.nextJob()
    if (job === undefined) return
    this.carryOut(job, () => {
      if (job._tag !== "Flush") return this.durable
      const model = this.durable.model.clone()
      for (const { key, value } of this.generations.get(job.generation) as Array<Write>) {
        if (value === undefined) model.delete(key)
        else model.put(key, value)
      }
      return { generation: job.generation, model }
    })
  }

  private carryOut(job: EngineJob, nextState: () => DurableState): void {
    const write = this.engine.complete(job, runJob(this.disk, job))
    this.states.push(nextState())
    runManifestWrite(this.disk, write)
    this.installed = this.states.length - 1
    this.engine.installed(write)
    removeFiles(this.disk, this.engine.obsoleteFiles())
  }

  /** Behind the barrier, as a snapshot is installed. Other keys are written meanwhile. */
  private replace(): void {
    this.seal()
    while (!this.engine.memtablesEmpty) this.job()
    const lower = new Uint8Array([0x6b])
    const upper = this.prng.chance(0.5) ? new Uint8Array([0x6c]) : randomKey(this.prng)
    if (digest([[lower, lower]]) >= digest([[upper, upper]])) return
    const fresh = new Model()
    for (let i = this.prng.int(0, 30); i > 0; i--) {
      fresh.put(randomKey(this.prng), randomValue(this.prng))
    }
    const pairs: Pairs = fresh.between(lower, upper)
    const spillChecksum = writeSpill(this.disk, "spill", pairs)
    const request = { intervals: [{ lower, upper }], spillPath: "spill", spillChecksum }
    const job = this.engine.replaceInterval(request)
    const outside: Write = { key: new Uint8Array([1]), value: randomValue(this.prng) }
    this.engine.put(outside.key, outside.value as Uint8Array)
    this.active.push(outside)
    this.carryOut(job, () => {
      const model = this.durable.model.clone()
      model.replace(lower, upper, pairs)
      return { ...this.durable, model }
    })
  }

  /**
   * The process ends and starts again: memtables are gone, nothing else. (`kill` would disarm the
   * crash.)
   */
  private reopen(): void {
    this.engine.close()
    this.engine = Engine.open(this.disk, "engine", sizes)
    this.generations = new Map()
    this.active = []
    assert(
      digest(contentOf(this.engine)) === this.durable.model.digest(),
      "a reopened engine is as it was",
    )
  }
}

/** Runs `body`; true when the simulated process died in it. */
function dies(body: () => void): boolean {
  try {
    body()
    return false
  } catch (error) {
    if (error instanceof SimulatedCrash) return true
    throw error
  }
}

/** Opens the engine after a crash and checks all that is promised; returns what it holds. */
function recover(disk: SimulatedDisk, workload: Workload, where: string): DurableState {
  const engine = Engine.open(disk, "engine", sizes)
  engine.verify()
  const actual = digest(contentOf(engine))
  const allowed = workload.states.slice(workload.installed)
  const state = allowed.find(
    (candidate) =>
      candidate.generation === engine.flushedThrough && candidate.model.digest() === actual,
  )
  assert(state !== undefined, () => `${where}: generation ${engine.flushedThrough} has a hole`)
  const expected = [...engine.liveFiles().map((path) => path.slice(7)), "CURRENT"]
  const names = disk.list("engine").filter((name) => !name.endsWith(".manifest"))
  assert(names.join() === expected.sort().join(), () => `${where}: files ${names} for ${expected}`)
  const manifests = disk.list("engine").length - names.length
  assert(manifests === 1, () => `${where}: ${manifests} manifests`)
  return state
}

export function runEngineCrashSweep(options: CrashSweepOptions): CrashSweepResult {
  const { seed, steps, randomLosses } = options
  const dry = new SimulatedDisk()
  new Workload(dry, new Prng(seed), undefined).run(steps)
  const points = dry.operations
  const losses = new Prng(seed).fork()
  let opens = 0
  let crashedOpens = 0
  for (let point = 1; point <= points; point++) {
    const disk = new SimulatedDisk()
    disk.crashAfter(point)
    // The workload is kept outside, because it knows what had been made durable when it died.
    let workload: Workload | undefined
    const died = dies(() => {
      workload = new Workload(disk, new Prng(seed), undefined)
      workload.run(steps)
    })
    assert(died, `operation ${point} is reached again`)
    const known = workload ?? fresh()
    for (let loss = 0; loss < 5 + randomLosses; loss++) {
      const where = `seed ${seed} operation ${point} loss ${loss}`
      const copy = disk.clone()
      lose(copy, losses, loss)
      if (losses.chance(0.5)) {
        copy.crashAfter(copy.operations + losses.int(1, 8))
        if (dies(() => Engine.open(copy, "engine", sizes))) crashedOpens++
        lose(copy, losses, losses.int(0, 4 + randomLosses))
      }
      let state = recover(copy, known, where)
      opens++
      if (losses.chance(0.2)) {
        // What recovery made must carry further work, and another loss.
        copy.kill()
        const later = new Workload(copy, losses.fork(), state)
        later.run(60)
        copy.loseAllUnsynced()
        state = recover(copy, later, `${where}, then 60 steps`)
        opens++
      }
    }
  }
  return { points, opens, crashedOpens }
}

/** For a crash before the engine was there. */
function fresh(): Workload {
  return new Workload(new SimulatedDisk(), new Prng(0), undefined)
}

function lose(disk: SimulatedDisk, prng: Prng, loss: number): void {
  if (loss === 0) disk.loseAllUnsynced()
  else if (loss === 1) disk.keepAll()
  else if (loss === 2) disk.kill()
  else if (loss === 3) disk.crash(prng, { tear: false })
  else disk.crash(prng, { tear: true })
}
