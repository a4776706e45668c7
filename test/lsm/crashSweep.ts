import { assert } from "../../src/lib/assert.ts"
import { Prng } from "../../src/lib/prng.ts"
import { Engine } from "../../src/lsm/engine.ts"
import { SimulatedDisk } from "../sim/simulatedDisk.ts"
import { dies, fixedLosses, lose, RecordedDisk } from "./crashSweepDisk.ts"
import { type DurableState, digestOf, EngineWorkload, sweptOptions } from "./crashSweepWorkload.ts"

/**
 * A crash at every mutating operation of a workload with batches, range deletes, seals, flushes, compactions, ingests of spills and of finished
 * tables, checkpoints and reopens; at each, every kind of loss; after each, also a crash during recovery. Whatever was lost, the engine opens
 * and holds exactly what it held after some manifest edit, the last one installed or the one being written: a prefix without holes. The folder
 * holds what is live and nothing else, and a finished checkpoint opens as what it was taken of.
 */
export interface CrashSweepOptions {
  readonly seed: number
  /** Steps of the workload; a step makes about one disk operation. */
  readonly steps: number
  /** Random power losses tried at each point, besides the fixed ones. */
  readonly randomLosses: number
}

export interface CrashSweepResult {
  /** Crash points: mutating disk operations of the workload. */
  readonly points: number
  /** Engines opened after a crash and checked. */
  readonly opens: number
  /** Recoveries that were crashed themselves before they were tried again. */
  readonly crashedOpens: number
  /** Checkpoints opened. */
  readonly backups: number
}

export function runEngineCrashSweep(options: CrashSweepOptions): CrashSweepResult {
  const sweep = new EngineSweep(options)
  sweep.run()
  return sweep
}

class EngineSweep {
  points = 0
  opens = 0
  crashedOpens = 0
  backups = 0
  private readonly options: CrashSweepOptions
  private readonly disk = new RecordedDisk()
  private readonly losses: Prng
  /** `undefined` while the first engine is being made. */
  private workload: EngineWorkload | undefined

  constructor(options: CrashSweepOptions) {
    this.options = options
    this.losses = new Prng(options.seed).fork()
  }

  run(): void {
    const { disk, options } = this
    disk.atPoint = () => this.point()
    this.workload = new EngineWorkload(disk, new Prng(options.seed), undefined)
    for (let i = 0; i < options.steps; i++) this.workload.step()
    disk.point()
  }

  private point(): void {
    this.points++
    const { losses, options } = this
    for (let loss = 0; loss < fixedLosses + options.randomLosses; loss++) {
      const where = `seed ${options.seed} operation ${this.disk.operations} loss ${loss}`
      try {
        this.crash(this.disk.clone(), loss)
      } catch (error) {
        throw new Error(`${where}: ${error}`, { cause: error })
      }
    }
    // A draw for the point, so that points differ.
    losses.uint32()
  }

  private crash(copy: SimulatedDisk, loss: number): void {
    const { losses } = this
    lose(copy, losses, loss)
    if (losses.chance(0.3)) {
      copy.crashAfter(copy.operations + losses.int(1, 8))
      if (dies(() => Engine.open(copy, "engine", sweptOptions))) this.crashedOpens++
      lose(copy, losses, losses.int(0, fixedLosses))
    }
    const workload = this.workload ?? freshWorkload()
    const state = this.recover(copy, workload)
    if (!losses.chance(0.05)) return
    // What recovery made must carry further work, and another loss.
    copy.kill()
    const later = new EngineWorkload(copy, losses.fork(), state)
    for (let i = 0; i < 60; i++) later.step()
    copy.loseAllUnsynced()
    this.recover(copy, later)
  }

  /** Opens the engine after a crash and checks all that is promised; returns what it holds. */
  private recover(disk: SimulatedDisk, workload: EngineWorkload): DurableState {
    this.opens++
    const engine = Engine.open(disk, "engine", sweptOptions)
    engine.verify()
    const digest = digestOf(engine)
    const state = workload.states
      .slice(workload.installed)
      .find((each) => each.generation === engine.flushedThrough && each.digest === digest)
    assert(state !== undefined, () => `generation ${engine.flushedThrough} has a hole`)
    const live = engine.liveFiles().map((path) => path.slice("engine/".length))
    const expected = [...live, "CURRENT"].sort()
    const names = disk.list("engine").filter((name) => !name.endsWith(".manifest"))
    assert(names.join() === expected.join(), () => `files ${names} for ${expected}`)
    const manifests = disk.list("engine").length - names.length
    assert(manifests === 1, () => `${manifests} manifests`)
    engine.close()
    this.openBackups(disk, workload)
    return state
  }

  private openBackups(disk: SimulatedDisk, workload: EngineWorkload): void {
    const last = workload.backups[workload.backups.length - 1]
    if (last === undefined) return
    // One that was not finished may be missing or half there, but then it is not taken for one.
    if (!last.isDone && !disk.exists(`${last.target}/CURRENT`)) return
    this.backups++
    const engine = Engine.open(disk, last.target, sweptOptions)
    engine.verify()
    assert(digestOf(engine) === last.digest, () => `${last.target} is not what it was taken of`)
    engine.close()
  }
}

/** For a crash before the engine was there. */
function freshWorkload(): EngineWorkload {
  return new EngineWorkload(new SimulatedDisk(), new Prng(0), undefined)
}
