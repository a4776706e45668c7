/** Whether puts are taken. */
export type SpaceState = "ok" | "full"

export const reservePath = "reserve"

export interface SpaceSettings {
  /** Size of the file `reserve`, which is given back to the file system when it is full; 0 = none. */
  readonly reserveBytes: number
  /** With fewer free bytes than this the disk counts as full before any write has failed. */
  readonly lowFreeBytes: number
}

/** What to do about the reserve file now. */
export type SpaceStep = "none" | "releaseReserve" | "makeReserve"

/** Room is looked for so often while the disk is full, and the free bytes are read so often while it is not. */
const lookEveryMs = 500

/**
 * Whether the disk is full: pure, told of failed jobs and of free bytes.
 *
 *     ok ── a job found no space, or few bytes are free ──> full: the reserve is given back, so that compaction and deletes have room
 *     full ── the reserve could be made again, and a little more is free ──> ok
 *
 * Making the reserve is the proof that there is space: what the file system says of its free bytes is only asked first, because it costs nothing. So a
 * store that has been given space takes puts again within a second or so, without a restart.
 */
export class DiskSpace {
  private readonly settings: SpaceSettings
  private current: SpaceState = "ok"
  private hasReserve: boolean
  /** A job for the reserve is under way. */
  private working = false
  private lookAtMs = 0

  constructor(settings: SpaceSettings, hasReserve: boolean) {
    this.settings = settings
    this.hasReserve = hasReserve || settings.reserveBytes === 0
  }

  get state(): SpaceState {
    return this.current
  }

  /** A job found no space. */
  failed(): void {
    this.current = "full"
  }

  /** Whether `step` is due, so that free bytes are read only then. */
  isDue(nowMs: number): boolean {
    return !this.working && (nowMs >= this.lookAtMs || (this.current === "full" && this.hasReserve))
  }

  /** What is to be done now. `freeBytes` is `undefined` where the file system does not tell. */
  step(nowMs: number, freeBytes: number | undefined): SpaceStep {
    this.lookAtMs = nowMs + lookEveryMs
    const { reserveBytes, lowFreeBytes } = this.settings
    if (this.hasReserve) {
      if (freeBytes !== undefined && freeBytes < lowFreeBytes) this.current = "full"
      if (this.current === "ok") return "none"
      if (reserveBytes > 0) {
        this.hasReserve = false
        this.working = true
        return "releaseReserve"
      }
      if (freeBytes === undefined || freeBytes >= 2 * lowFreeBytes) this.current = "ok"
      return "none"
    }
    if (freeBytes !== undefined && freeBytes < reserveBytes + 2 * lowFreeBytes) {
      this.current = "full"
      return "none"
    }
    this.working = true
    return "makeReserve"
  }

  reserveReleased(): void {
    this.working = false
  }

  reserveMade(isMade: boolean): void {
    this.working = false
    this.hasReserve = isMade
    this.current = isMade ? "ok" : "full"
  }
}
