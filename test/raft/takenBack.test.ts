import { expect, test } from "bun:test"
import { RaftNode } from "../../src/raft/raftNode.ts"
import { append, plainCluster } from "./messages.ts"

test("pitfall 9: entries that the next leader truncates before they are written are acknowledged to nobody", () => {
  const cluster = plainCluster(RaftNode)
  const { node } = cluster.replica(2)
  node.step(append("1>2@1", "0@0", 0, "1@1", "2@1", "3@1"), 0)
  node.step(append("3>2@2", "0@0", 0, "1@2"), 0)
  const ready = node.ready()
  expect(ready.entries.map(({ index, term }) => [index, term])).toEqual([[1, 2]])
  const answers = ready.messagesAfterPersist.filter(({ _tag }) => _tag === "AppendResponse")
  expect(answers).toMatchObject([{ to: 3, term: 2, accepted: true, index: 1 }])
})
