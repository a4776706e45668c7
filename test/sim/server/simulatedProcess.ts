import { drainMicrotasks } from "bun:jsc"
import type { Prng } from "../../../src/lib/prng.ts"
import { startWallMs } from "../simulatedNode.ts"

/** What processes need of the world that they live in. Times are whole microseconds. */
export interface ProcessWorld {
  readonly now: number
  /** Whose code runs now; `undefined` between events. */
  current: SimulatedProcess | undefined
  schedule(time: number, run: () => void): void
  /** Something threw that nothing in the process caught. */
  failed(process: SimulatedProcess, error: unknown): void
}

export interface ProcessClock {
  /** How much faster than the world's its clocks run. */
  readonly rate: number
  readonly monotonicOffsetMs: number
  /** May be changed: wall clocks are set. */
  wallSkewMs: number
}

/**
 * One operating system process: whatever runs, runs in one. Its timers, sockets, file operations and threads call back through `run`, which is
 * one round of its event loop: the callback, then all microtasks. A dead process runs nothing ever again, as a stopped one does until it goes on.
 */
export class SimulatedProcess {
  /** The host's name, which is its address. */
  readonly host: string
  readonly clock: ProcessClock
  readonly prng: Prng
  isDead = false
  private readonly world: ProcessWorld
  private pausedBy = 0
  private readonly deferred: Array<() => void> = []
  /** A round of its event loop takes at most so long. */
  private readonly roundMaxUs: number
  /** Due in the next round: what `setImmediate` was given. */
  private immediates: Array<() => void> = []

  constructor(options: {
    readonly host: string
    readonly clock: ProcessClock
    readonly prng: Prng
    readonly world: ProcessWorld
    readonly roundMaxUs: number
  }) {
    this.roundMaxUs = options.roundMaxUs
    this.host = options.host
    this.clock = options.clock
    this.prng = options.prng
    this.world = options.world
  }

  get monotonicMs(): number {
    return this.clock.monotonicOffsetMs + (this.world.now / 1000) * this.clock.rate
  }

  get wallMs(): number {
    return startWallMs + (this.world.now / 1000) * this.clock.rate + this.clock.wallSkewMs
  }

  /** Never called from within another one's `run`: processes meet through events only. */
  run(callback: () => void): void {
    if (this.isDead) return
    if (this.pausedBy > 0) {
      this.deferred.push(callback)
      return
    }
    const { world } = this
    world.current = this
    try {
      callback()
      drainMicrotasks()
    } catch (error) {
      world.failed(this, error)
    } finally {
      world.current = undefined
    }
  }

  /** Runs it that many of its own milliseconds from now, or a little later. */
  after(delayMs: number, callback: () => void): void {
    const { world, prng, clock } = this
    const lateUs = prng.chance(0.05) ? prng.logUniform(100, 10_000) : prng.int(0, 200)
    const delayUs = (Math.max(1, delayMs) * 1000) / clock.rate + lateUs
    world.schedule(Math.round(world.now + delayUs), () => this.run(callback))
  }

  immediate(callback: () => void): void {
    if (this.immediates.push(callback) > 1) return
    const { world, prng } = this
    world.schedule(world.now + prng.int(1, this.roundMaxUs), () => {
      const due = this.immediates
      this.immediates = []
      for (const each of due) this.run(each)
    })
  }

  get isPaused(): boolean {
    return this.pausedBy > 0
  }

  pause(): void {
    this.pausedBy++
  }

  resume(): void {
    this.pausedBy--
    while (this.pausedBy === 0) {
      const callback = this.deferred.shift()
      if (callback === undefined) return
      this.run(callback)
    }
  }

  die(): void {
    this.isDead = true
    this.deferred.length = 0
    this.immediates.length = 0
  }
}
