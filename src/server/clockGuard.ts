import type { MonotonicMs, NodeId, WallMs } from "../types.ts"

/** A leader further ahead of its peers than this stamps by its log alone (DESIGN section 3, "Entries and versions"). */
export const clockAheadMaxMs = 10_000
/** What a peer said longer ago is not believed any more: it may have been set right, or be gone. */
const forgetMs = 10_000
/** Nodes tell each other their clocks so often. */
export const clockTellMs = 1000

interface Heard {
  /** The peer's wall clock less this node's, when it was heard. */
  readonly offsetMs: number
  readonly atMs: MonotonicMs
}

/**
 * Watches this node's wall clock against those of its peers. Versions of keys and the expiry of TTLs follow the stamping clock of leaders, and stamps never go
 * back: a leader whose clock runs an hour ahead would expire keys an hour early, and take versions an hour ahead with it for ever. So one that is far ahead of the
 * median of its peers stamps one more than its last, until it is back among them. Order never rests on clocks, so nothing else depends on this.
 *
 * A node that hears no peer believes its own clock.
 */
export class ClockGuard {
  private readonly heard = new Map<NodeId, Heard>()
  private toldAtMs: MonotonicMs = Number.NEGATIVE_INFINITY
  /** What was reckoned last, which holds until a peer speaks or the oldest word is forgotten. */
  private reckonedMs = 0
  private holdsUntilMs: MonotonicMs = Number.POSITIVE_INFINITY

  /** A peer has told its wall clock. */
  observe(
    node: NodeId,
    peerWallMs: WallMs,
    own: { readonly monotonicMs: MonotonicMs; readonly wallMs: WallMs },
  ): void {
    this.heard.set(node, { offsetMs: peerWallMs - own.wallMs, atMs: own.monotonicMs })
    this.holdsUntilMs = Number.NEGATIVE_INFINITY
  }

  /** True when this node should tell its peers its own clock now; it is taken to have done so. */
  tells(nowMs: MonotonicMs): boolean {
    if (nowMs - this.toldAtMs < clockTellMs) return false
    this.toldAtMs = nowMs
    return true
  }

  /** Milliseconds that this node is ahead of the median of its peers' clocks; of two medians of the later one. 0 without peers. */
  aheadMs(nowMs: MonotonicMs): number {
    if (nowMs > this.holdsUntilMs) this.reckonedMs = this.reckon(nowMs)
    return this.reckonedMs
  }

  private reckon(nowMs: MonotonicMs): number {
    const offsets: Array<number> = []
    this.holdsUntilMs = Number.POSITIVE_INFINITY
    for (const [node, { offsetMs, atMs }] of this.heard) {
      if (nowMs - atMs > forgetMs) this.heard.delete(node)
      else {
        offsets.push(offsetMs)
        this.holdsUntilMs = Math.min(this.holdsUntilMs, atMs + forgetMs)
      }
    }
    if (offsets.length === 0) return 0
    offsets.sort((left, right) => left - right)
    return -(offsets[Math.floor(offsets.length / 2)] as number)
  }

  /** Whether stamps may follow the clock. */
  isTrusted(nowMs: MonotonicMs): boolean {
    return this.aheadMs(nowMs) <= clockAheadMaxMs
  }
}
