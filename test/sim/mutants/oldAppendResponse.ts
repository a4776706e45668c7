import { RaftNode } from "../../../src/raft/raftNode.ts"
import type { Mutant } from "./mutant.ts"

class Broken extends RaftNode {
  protected override acceptsAppendResponse(): boolean {
    return true
  }
}

export const oldAppendResponse: Mutant = {
  name: "F",
  title: "an append response of an earlier term counts",
  parts: { RaftNode: Broken },
}
