import type { Entry } from "../../../src/raft/message.ts"
import { RaftNode } from "../../../src/raft/raftNode.ts"
import type { Mutant } from "./mutant.ts"

class Broken extends RaftNode {
  protected override appendFromLeader(entries: ReadonlyArray<Entry>): void {
    this.log.append(entries)
  }
}

export const truncateAlways: Mutant = {
  name: "C",
  title: "every append cuts the log behind it, also an old one",
  parts: { RaftNode: Broken },
}
