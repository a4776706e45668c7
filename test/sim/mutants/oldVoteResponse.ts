import type { VoteResponse } from "../../../src/raft/message.ts"
import { RaftNode } from "../../../src/raft/raftNode.ts"
import type { Mutant } from "./mutant.ts"

class Broken extends RaftNode {
  protected override countsVote(response: VoteResponse): boolean {
    return response.preVote ? super.countsVote(response) : this.role === "candidate"
  }
}

export const oldVoteResponse: Mutant = {
  name: "G",
  title: "a vote given in an earlier term counts",
  parts: { RaftNode: Broken },
}
