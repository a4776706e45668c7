import { RaftNode } from "../../../src/raft/raftNode.ts"
import type { Mutant } from "./mutant.ts"

class Broken extends RaftNode {
  protected override mayCommit(): boolean {
    return true
  }
}

export const commitOldTerm: Mutant = {
  name: "A",
  title: "an entry of an earlier term is committed by counting (Raft paper, Figure 8)",
  parts: { RaftNode: Broken },
}
