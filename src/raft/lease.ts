import { assert } from "../lib/assert.ts"
import type { MonotonicMs, WallMs } from "../types.ts"

/** Marks kept while no quorum echoes: with those a sixteenth of a lease apart, two leases long. */
const maxMarks = 32

interface Mark {
  readonly round: number
  readonly monotonicMs: MonotonicMs
  readonly wallMs: WallMs
}

/**
 * How long a leader may answer reads without asking (Raft thesis 6.4.1): voters that echoed a round vote for nobody else for a while after they
 * heard of it, hence after it was sent.
 *
 * The lease runs by the monotonic clock from the *sending* of a round that a quorum has echoed. A monotonic clock may stand still while a
 * machine sleeps, and a wall clock may jump, but seldom do both at once by as much: a round counts only while the two have moved apart by less
 * than the slip since it was sent. Voters stay silent for longer than lease and slip together; what is left over is for clocks of different
 * speed.
 */
export class Lease {
  private readonly leaseMs: number
  private readonly clockSlipMs: number
  /** Rounds under way, oldest first; not every round is marked, so that a few marks reach far back. */
  private readonly marks: Array<Mark> = []
  private granted: Mark | undefined

  constructor(options: { readonly leaseMs: number; readonly clockSlipMs: number }) {
    this.leaseMs = options.leaseMs
    this.clockSlipMs = options.clockSlipMs
  }

  /** A term of leading begins, or ends. */
  reset(): void {
    this.marks.length = 0
    this.granted = undefined
  }

  /** `round` is about to be sent, and the clocks showed no more than this. */
  begin(round: number, monotonicMs: MonotonicMs, wallMs: WallMs): void {
    const last = this.marks.at(-1)
    assert(last === undefined || round > last.round, "rounds begin in order")
    // No room: a quorum has been silent for so long that the lease is gone; its next echo makes room.
    if (this.leaseMs === 0 || this.marks.length === maxMarks) return
    if (last !== undefined && monotonicMs - last.monotonicMs < this.leaseMs / 16) return
    this.marks.push({ round, monotonicMs, wallMs })
  }

  /** A quorum has echoed `round` or later ones. */
  confirm(round: number): void {
    while (this.marks.length > 0 && (this.marks[0] as Mark).round <= round) {
      this.granted = this.marks.shift()
    }
  }

  /** A quorum has been asked since these readings, and has said in another way than by an echo that it follows (sleeping groups: server/beats.ts). */
  grant(monotonicMs: MonotonicMs, wallMs: WallMs): void {
    if (this.leaseMs === 0 || monotonicMs <= (this.granted?.monotonicMs ?? -1)) return
    this.granted = { round: this.granted?.round ?? 0, monotonicMs, wallMs }
  }

  holds(monotonicMs: MonotonicMs, wallMs: WallMs): boolean {
    if (this.granted === undefined) return false
    const passedMs = monotonicMs - this.granted.monotonicMs
    const slipMs = Math.abs(wallMs - this.granted.wallMs - passedMs)
    return passedMs >= 0 && passedMs < this.leaseMs && slipMs < this.clockSlipMs
  }
}
