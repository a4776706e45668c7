import { RaftNode } from "../../../src/raft/raftNode.ts"
import type { ReplicaId, Term } from "../../../src/types.ts"
import type { Mutant } from "./mutant.ts"

class ForgetsVote extends RaftNode {
  protected override becomeFollower(term: Term, leader: ReplicaId | undefined): void {
    super.becomeFollower(term, leader)
    this.vote = 0
  }
}

export const voteForgotten: Mutant = {
  name: "BD",
  title: "who steps down within a term forgets its vote of that term (pitfall 5)",
  parts: { RaftNode: ForgetsVote },
}

class KeepsAcknowledgements extends RaftNode {
  protected override takeBackAcknowledgements(): void {}
}

export const oldAcknowledgement: Mutant = {
  name: "BE",
  title:
    "an acknowledgement that waits for the disk outlives its term, whose entries the next leader replaces (pitfall 9)",
  parts: { RaftNode: KeepsAcknowledgements },
}
