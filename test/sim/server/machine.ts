import type { DataDirectory, OpenJournal } from "../../../src/disk/DataDirectory.ts"
import type { DirectoryInUse } from "../../../src/disk/DirectoryLock.ts"
import type { Prng } from "../../../src/lib/prng.ts"
import { attemptStoreJob } from "../../../src/server/storeJobs.ts"
import type { DiskParameters } from "../parameters.ts"
import { SimulatedCrash, SimulatedDisk } from "../simulatedDisk.ts"
import type { Ending } from "../simulatedNode.ts"
import type { Trace } from "../trace.ts"
import { type ProcessWorld, SimulatedProcess } from "./simulatedProcess.ts"
import type { SimulatedWorker } from "./simulatedWorker.ts"

export interface MachineWorld extends ProcessWorld {
  readonly trace: Trace
  readonly parameters: { readonly turnDelayMaxUs: number }
}

/** How fast the clocks of a machine go, and how far off its wall clock is. */
export interface MachineClock {
  readonly rate: number
  wallSkewMs: number
}

/** A process whose rounds took longer would not keep up with its work. */
const roundLimitUs = 4000
/** No write or job takes longer. */
const diskDelayMaxUs = 2_000_000

/**
 * A computer: a name, a disk, clocks, and at most one process. The disk outlives the process; what the process has written and not synced outlives it only
 * while the machine has power.
 */
export class Machine {
  readonly name: string
  /** For traces. */
  readonly number: number
  disk = new SimulatedDisk()
  readonly clock: MachineClock
  process: SimulatedProcess | undefined
  isOn = true
  /** Multiplies the time that the disk takes. */
  diskSlowness = 1
  private readonly world: MachineWorld
  private readonly prng: Prng
  private readonly parameters: DiskParameters
  private isLocked = false
  private hanging: Array<() => void> | undefined
  /** Threads of the process. */
  private workers: Array<SimulatedWorker> = []

  constructor(options: {
    readonly name: string
    readonly number: number
    readonly world: MachineWorld
    readonly prng: Prng
    readonly parameters: DiskParameters
    readonly clock: MachineClock
  }) {
    this.name = options.name
    this.number = options.number
    this.world = options.world
    this.prng = options.prng
    this.parameters = options.parameters
    this.clock = options.clock
  }

  /** A new process, with nothing in it yet. */
  boot(): SimulatedProcess {
    const { name, world, prng, clock } = this
    this.isOn = true
    const monotonicOffsetMs = prng.int(1, 1_000_000)
    const { rate, wallSkewMs } = clock
    this.process = new SimulatedProcess({
      host: name,
      clock: { rate, wallSkewMs, monotonicOffsetMs },
      prng: prng.fork(),
      world,
      roundMaxUs: Math.min(roundLimitUs, world.parameters.turnDelayMaxUs),
    })
    return this.process
  }

  /** The process ends now. `power` also loses what was not synced, and the machine stays off until `boot`. */
  end(ending: Ending): void {
    const { prng, disk } = this
    this.process?.die()
    this.process = undefined
    this.isLocked = false
    this.hanging = undefined
    disk.kill()
    for (const worker of this.workers) this.finishPartly(worker)
    this.workers = []
    disk.kill()
    if (ending === "kill") return
    this.isOn = false
    if (prng.chance(0.25)) disk.loseAllUnsynced()
    else if (prng.chance(0.1)) disk.keepAll()
    else disk.crash(prng)
  }

  /** What a thread was at when it ended is on the disk in part. */
  private finishPartly(worker: SimulatedWorker): void {
    const { prng, disk } = this
    const { underWay } = worker
    if (underWay === undefined || prng.chance(0.3)) return
    disk.crashAfter(disk.operations + prng.int(1, 10))
    try {
      attemptStoreJob(disk, underWay)
    } catch (error) {
      if (!(error instanceof SimulatedCrash)) throw error
    }
    disk.kill()
  }

  /** A new disk in place of the old one. No process runs. */
  replaceDisk(): void {
    this.disk = new SimulatedDisk()
  }

  setWallSkew(ms: number): void {
    this.clock.wallSkewMs = ms
    if (this.process !== undefined) this.process.clock.wallSkewMs = ms
  }

  // The disk

  /** From now on the disk completes nothing until it `goesOn`. */
  hang(): void {
    if (this.process !== undefined) this.hanging ??= []
  }

  goesOn(): void {
    const { hanging } = this
    this.hanging = undefined
    for (const run of hanging ?? []) run()
  }

  /** Runs when the disk has done something that takes it from `minUs` to `maxUs`; not in another life. */
  private whenDone(minUs: number, maxUs: number, run: () => void): void {
    const { world, prng, process } = this
    const drawn = prng.logUniform(minUs, maxUs) * this.diskSlowness
    const delay = Math.max(1, Math.min(diskDelayMaxUs, Math.round(drawn)))
    const finish = () => {
      if (this.process !== process) return
      if (this.hanging === undefined) run()
      else this.hanging.push(finish)
    }
    world.schedule(world.now + delay, finish)
  }

  /** A thread has begun a job: `run` when the disk has done its share. */
  whenJobDone(run: () => void): void {
    this.whenDone(this.parameters.jobMinUs, this.parameters.jobMaxUs, run)
  }

  joined(worker: SimulatedWorker): void {
    this.workers.push(worker)
  }

  left(worker: SimulatedWorker): void {
    this.workers = this.workers.filter((each) => each !== worker)
  }

  /** The data directory in the hands of the present process. */
  acquire(inUse: () => DirectoryInUse): DataDirectory {
    if (this.isLocked) throw inUse()
    this.isLocked = true
    return {
      disk: this.disk,
      openJournal: (path) => this.openJournal(path),
      release: () => {
        this.isLocked = false
      },
    }
  }

  private openJournal(path: string): OpenJournal {
    const { disk, world, prng, process, parameters } = this
    const file = disk.open(path)
    return {
      write: (bytes, from, count, offset) => {
        const taken = prng.chance(0.01) ? prng.int(1, count) : count
        world.trace.record("journal", world.now, offset, taken)
        file.write(bytes.subarray(from, from + taken), offset)
        return taken
      },
      sync: (done) =>
        this.whenDone(parameters.syncMinUs, parameters.syncMaxUs, () => {
          file.sync()
          process?.run(() => done(null))
        }),
      // The sync of a closed descriptor goes on in the kernel.
      close: () => {},
    }
  }
}
