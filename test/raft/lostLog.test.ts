import { expect, test } from "bun:test"
import { Prng } from "../../src/lib/prng.ts"
import type { LogStorage } from "../../src/raft/log.ts"
import type { Message } from "../../src/raft/message.ts"
import { RaftNode } from "../../src/raft/raftNode.ts"
import { defaultSettings } from "./cluster.ts"

/** Entries 1 to 3 of term 1, though it may have acknowledged more. */
class ShortLog implements LogStorage {
  readonly firstIndex = 1
  readonly lastIndex = 3
  voteFloor: { readonly index: number; readonly term: number } | undefined = { index: 5, term: 2 }

  term(index: number): number | undefined {
    if (index === 0) return 0
    return index <= 3 ? 1 : undefined
  }

  entries(from: number, to: number) {
    const indexes = [1, 2, 3].filter((index) => index >= from && index < to)
    return indexes.map((index) => ({ index, term: 1, kind: 0 as const, data: new Uint8Array() }))
  }
}

function replicaOver(storage: LogStorage): RaftNode {
  return new RaftNode({
    ...defaultSettings,
    id: 1,
    membership: { voters: [1, 2, 3], outgoing: [], learners: [] },
    storage,
    hardState: { term: 2, vote: 0, commit: 0 },
    appliedIndex: 0,
    prng: new Prng(1),
    nowMs: 0,
    voteSilenceMs: 0,
    leaseMs: 0,
    preVote: false,
  })
}

function persistAll(node: RaftNode): ReadonlyArray<Message> {
  const sent: Array<Message> = []
  while (node.hasReady()) {
    const { messages, messagesAfterPersist } = node.ready()
    sent.push(...messages, ...messagesAfterPersist)
  }
  return sent
}

test("pitfall 36: who lost what it may have acknowledged does not campaign before its log is there again", () => {
  const log = new ShortLog()
  const node = replicaOver(log)
  for (let i = 1; i <= 200; i++) node.tick(i * 30)
  expect(node.role).toBe("follower")
  node.campaign()
  expect(node.role).toBe("follower")
  log.voteFloor = undefined
  node.campaign()
  expect(node.role).toBe("candidate")
})

test("pitfall 36: it votes for logs only that reach what it may have acknowledged", () => {
  const ends = [
    [3, 1, false],
    [9, 1, false],
    [4, 2, false],
    [5, 2, true],
    [1, 3, true],
  ] as const
  for (const [lastIndex, lastTerm, granted] of ends) {
    const node = replicaOver(new ShortLog())
    const ask = { _tag: "VoteRequest", from: 2, to: 1, term: 3, lastIndex, lastTerm } as const
    node.step({ ...ask, preVote: false, transfer: false }, 0)
    const vote = persistAll(node).find((message) => message._tag === "VoteResponse")
    expect(vote, `${lastIndex}@${lastTerm}`).toMatchObject({ granted })
  }
})

test("pitfall 36: a heartbeat that counts on what was lost commits nothing", () => {
  const node = replicaOver(new ShortLog())
  node.step({ _tag: "Heartbeat", from: 2, to: 1, term: 2, commit: 5, round: 1 }, 0)
  expect(node.commitIndex).toBe(0)
  node.step({ _tag: "Heartbeat", from: 2, to: 1, term: 2, commit: 2, round: 2 }, 0)
  expect(node.commitIndex).toBe(0)
})
