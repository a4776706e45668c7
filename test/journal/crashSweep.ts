import { Prng } from "../../src/lib/prng.ts"
import { SimulatedCrash, SimulatedDisk } from "../sim/simulatedDisk.ts"
import { smallOptions } from "./driver.ts"
import { Workload } from "./workload.ts"

export interface JournalCrashSweepOptions {
  readonly seed: number
  /** Steps of the workload in which every operation on the disk is a crash point. */
  readonly steps: number
  /** Random power losses tried at each point, beside losing all, keeping all and a mere kill. */
  readonly randomLosses: number
}

export interface JournalCrashSweepResult {
  /** Crash points: operations on the disk. */
  readonly points: number
  /** Crashes tried, each recovered and checked, gone on from, and crashed again. */
  readonly crashes: number
}

/**
 * Crashes a workload at every operation on the disk, in every way that a crash can end, and checks
 * each recovery: all that was durable is there, nothing is there that was never written, and the
 * journal goes on from it through a second crash. Throws on the first failure, naming seed and
 * point.
 */
export function runJournalCrashSweep(options: JournalCrashSweepOptions): JournalCrashSweepResult {
  const { seed, steps, randomLosses } = options
  const points = operationsOf(seed, steps)
  let crashes = 0
  for (let point = 1; point <= points; point++) {
    for (let way = 0; way < 3 + randomLosses; way++) {
      try {
        crashAt({ seed, steps, point, way })
      } catch (error) {
        const where = `journal sweep, seed ${seed}, ${steps} steps, point ${point}, way ${way}`
        throw new Error(`${where}: ${error}`, { cause: error })
      }
      crashes++
    }
  }
  return { points, crashes }
}

function operationsOf(seed: number, steps: number): number {
  const disk = new SimulatedDisk()
  const workload = new Workload(disk, smallOptions, new Prng(seed))
  run(workload, steps)
  return disk.operations
}

function run(workload: Workload, steps: number): void {
  workload.recover()
  for (let i = 0; i < steps; i++) workload.step()
  workload.flush()
  workload.check()
}

/** Runs `body` until the crash strikes, if it does. */
export function untilCrash(body: () => void): void {
  try {
    body()
  } catch (error) {
    if (!(error instanceof SimulatedCrash)) throw error
  }
}

/** How a crash ends: 0 all unsynced is lost, 1 nothing is, 2 only the process died, else drawn. */
export function endCrash(disk: SimulatedDisk, way: number, prng: Prng): void {
  if (way === 0) disk.loseAllUnsynced()
  else if (way === 1) disk.keepAll()
  else if (way === 2) disk.kill()
  else disk.crash(prng)
}

function crashAt(at: { seed: number; steps: number; point: number; way: number }): void {
  const disk = new SimulatedDisk()
  const workload = new Workload(disk, smallOptions, new Prng(at.seed))
  const prng = new Prng(at.seed * 1000 + at.point * 10 + at.way)
  disk.crashAfter(at.point)
  untilCrash(() => run(workload, at.steps))
  endCrash(disk, at.way, prng)
  // The second crash may strike in the recovery from the first.
  disk.crashAfter(disk.operations + prng.int(1, 40))
  untilCrash(() => run(workload, 30))
  endCrash(disk, prng.int(0, 4), prng)
  run(workload, 20)
}

/**
 * One long life of a journal with sizes, crash rate and crashes drawn from the seed, some of them
 * in the middle of a recovery. Throws when a recovery or a read is not what the model says.
 */
export function runJournalLife(seed: number, steps: number): Workload {
  const prng = new Prng(seed)
  const disk = new SimulatedDisk()
  const options = {
    segmentBytes: Math.floor(prng.logUniform(512, 65536)),
    tailCacheBytes: Math.floor(prng.logUniform(1, 65536)),
    rewriteThresholdSegments: prng.int(1, 4),
    rewriteSliceBytes: Math.floor(prng.logUniform(1, 4096)),
  }
  const workload = new Workload(disk, options, prng.fork())
  workload.recover()
  const crashRate = prng.logUniform(0.0005, 0.02)
  for (let i = 0; i < steps; i++) {
    if (prng.chance(crashRate)) disk.crashAfter(disk.operations + prng.int(1, 30))
    let crashed = true
    untilCrash(() => {
      workload.step()
      if (i % 50 === 0) workload.check()
      crashed = false
    })
    while (crashed) {
      endCrash(disk, prng.int(0, 6), prng)
      if (prng.chance(0.2)) disk.crashAfter(disk.operations + prng.int(1, 10))
      untilCrash(() => {
        workload.recover()
        crashed = false
      })
    }
  }
  disk.crashAfter(undefined)
  workload.flush()
  workload.check()
  return workload
}
