import type { MonotonicMs, NodeId, RangeId } from "../types.ts"
import type { PeerMessage } from "./peerMessage.ts"

interface Held {
  readonly sinceMs: MonotonicMs
  readonly messages: Array<{ readonly from: NodeId; readonly message: PeerMessage }>
}

/** How long a split may be in coming. After it, the range must come another way. */
export const holdMs = 2000
const messagesMax = 1024
const rangesMax = 64

/**
 * Messages for ranges that are not here yet, while a split that is to be applied here may still make them: a vote asked of a child is given by the child,
 * not lost. Bounded in messages, ranges and time; what finds no room is dropped, as a network would.
 */
export class HeldMessages {
  private readonly held = new Map<RangeId, Held>()
  private count = 0

  /** Keeps a message. "expired": the range has been waited for in vain. */
  hold(from: NodeId, message: PeerMessage, nowMs: MonotonicMs): "held" | "dropped" | "expired" {
    const known = this.held.get(message.range)
    if (known !== undefined && nowMs - known.sinceMs >= holdMs) return "expired"
    if (this.count >= messagesMax) return "dropped"
    if (known === undefined) {
      if (this.held.size >= rangesMax) return "dropped"
      this.held.set(message.range, { sinceMs: nowMs, messages: [{ from, message }] })
    } else {
      known.messages.push({ from, message })
    }
    this.count++
    return "held"
  }

  /** The range is here. */
  take(range: RangeId): Held["messages"] {
    const held = this.held.get(range)
    if (held === undefined) return []
    this.held.delete(range)
    this.count -= held.messages.length
    return held.messages
  }

  /** Drops what is too old to be of use; a range's name is kept a while longer, so that it expires. */
  tick(nowMs: MonotonicMs): void {
    for (const [range, held] of this.held) {
      const ageMs = nowMs - held.sinceMs
      if (ageMs < holdMs) continue
      this.count -= held.messages.length
      held.messages.length = 0
      if (ageMs >= 3 * holdMs) this.held.delete(range)
    }
  }
}
