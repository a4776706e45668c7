import type { Heartbeat } from "../../../src/raft/message.ts"
import { RaftNode } from "../../../src/raft/raftNode.ts"
import type { LogIndex } from "../../../src/types.ts"
import type { Mutant } from "./mutant.ts"

/**
 * Appends alone do not show it: in this implementation an append either cuts off what does not match behind it or has nothing to commit there. So heartbeats
 * carry the leader's commit index as it is, as they do where a heartbeat is an empty append.
 */
class Broken extends RaftNode {
  protected override commitFromAppend(leaderCommit: LogIndex): LogIndex {
    return Math.min(leaderCommit, this.log.lastIndex)
  }

  protected override beginRound(): void {
    super.beginRound()
    this.messages = this.messages.map((message) =>
      message._tag === "Heartbeat" ? { ...message, commit: this.commitIndex } : message,
    )
  }

  protected override stepHeartbeat(request: Heartbeat): void {
    super.stepHeartbeat({ ...request, commit: Math.min(request.commit, this.log.lastIndex) })
  }
}

export const commitBeyondMatch: Mutant = {
  name: "H",
  title: "a follower commits up to its last entry, not the last one known to match",
  parts: { RaftNode: Broken },
}
