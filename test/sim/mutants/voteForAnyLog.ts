import { RaftNode } from "../../../src/raft/raftNode.ts"
import type { Mutant } from "./mutant.ts"

class Broken extends RaftNode {
  protected override isUpToDate(): boolean {
    return true
  }
}

export const voteForAnyLog: Mutant = {
  name: "D",
  title: "a vote does not ask whether the candidate's log is up to date",
  parts: { RaftNode: Broken },
}
