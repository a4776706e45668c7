import { RaftNode } from "../../../src/raft/raftNode.ts"
import type { Ready } from "../../../src/raft/ready.ts"
import type { Mutant } from "./mutant.ts"

class Broken extends RaftNode {
  override ready(): Ready {
    const ready = super.ready()
    const early = ready.messagesAfterPersist.filter(({ _tag }) => _tag === "AppendResponse")
    const rest = ready.messagesAfterPersist.filter(({ _tag }) => _tag !== "AppendResponse")
    return { ...ready, messages: [...ready.messages, ...early], messagesAfterPersist: rest }
  }
}

export const acknowledgeBeforeSync: Mutant = {
  name: "N",
  title: "a frame of entries is acknowledged before the fsync",
  parts: { RaftNode: Broken },
}
