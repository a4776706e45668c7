import { SessionTable } from "../../../src/server/sessions.ts"
import type { Mutant } from "./mutant.ts"

const sessionsMax = 3

/** Drops the oldest session to make room, as a cache would. */
class Broken extends SessionTable {
  override isFull(): boolean {
    return false
  }

  override record(...options: Parameters<SessionTable["record"]>): void {
    super.record(...options)
    for (const clientId of this.sessions.keys()) {
      if (this.sessions.size <= sessionsMax) return
      if (clientId !== options[0]) this.sessions.delete(clientId)
    }
  }
}

export const sessionEvictedByCount: Mutant = {
  name: "M",
  title: "a session is evicted by count, not when no retry can reach it",
  parts: { SessionTable: Broken },
}
