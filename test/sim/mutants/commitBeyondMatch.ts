import { RaftNode } from "../../../src/raft/raftNode.ts"
import type { LogIndex } from "../../../src/types.ts"
import type { Mutant } from "./mutant.ts"

class Broken extends RaftNode {
  protected override commitFromAppend(leaderCommit: LogIndex): LogIndex {
    return Math.min(leaderCommit, this.log.lastIndex)
  }
}

export const commitBeyondMatch: Mutant = {
  name: "H",
  title: "a follower commits up to its last entry, not the last that the append has shown to match",
  parts: { RaftNode: Broken },
}
