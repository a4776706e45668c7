import { emptyBytes, utf8 } from "../../src/lib/bytes.ts"
import { describeMessage } from "../../src/raft/describe.ts"
import {
  type AppendRequest,
  type AppendResponse,
  type Entry,
  entryKinds,
  type Heartbeat,
  type HeartbeatResponse,
  type Message,
  type VoteRequest,
  type VoteResponse,
} from "../../src/raft/message.ts"
import type { RaftNode, RaftOptions } from "../../src/raft/raftNode.ts"
import { type RaftSettings, TestCluster } from "./cluster.ts"

/** Short forms to write single messages by hand: "from>to@term", and positions as "index@term". */

function envelope(route: string): { from: number; to: number; term: number } {
  const [, from, to, term] = /^(\d+)>(\d+)@(\d+)$/.exec(route) as unknown as [
    0,
    string,
    string,
    string,
  ]
  return { from: Number(from), to: Number(to), term: Number(term) }
}

function position(text: string): { index: number; term: number } {
  const [index, term] = text.split("@").map(Number) as [number, number]
  return { index, term }
}

/** An entry from "3@2" (empty) or "3@2=text". */
export function entry(text: string): Entry {
  const [at = "", data] = text.split("=")
  return data === undefined
    ? { ...position(at), kind: entryKinds.empty, data: emptyBytes }
    : { ...position(at), kind: entryKinds.commands, data: utf8(data) }
}

export function askVote(route: string, last: string, preVote = false): VoteRequest {
  const { index, term } = position(last)
  return {
    _tag: "VoteRequest",
    ...envelope(route),
    preVote,
    transfer: false,
    lastIndex: index,
    lastTerm: term,
  }
}

export function vote(route: string, granted: boolean, preVote = false): VoteResponse {
  return { _tag: "VoteResponse", ...envelope(route), granted, preVote }
}

export function append(
  route: string,
  after: string,
  commit: number,
  ...entries: ReadonlyArray<string>
): AppendRequest {
  const { index, term } = position(after)
  return {
    _tag: "AppendRequest",
    ...envelope(route),
    previousIndex: index,
    previousTerm: term,
    commit,
    entries: entries.map(entry),
  }
}

export function accepted(route: string, index: number): AppendResponse {
  return {
    _tag: "AppendResponse",
    ...envelope(route),
    accepted: true,
    index,
    hintIndex: 0,
    hintTerm: 0,
  }
}

export function refused(route: string, index: number, hint = "0@0"): AppendResponse {
  const { index: hintIndex, term: hintTerm } = position(hint)
  return {
    _tag: "AppendResponse",
    ...envelope(route),
    accepted: false,
    index,
    hintIndex,
    hintTerm,
  }
}

export function heartbeat(route: string, commit: number, round = 1): Heartbeat {
  return { _tag: "Heartbeat", ...envelope(route), commit, round }
}

export function echo(route: string, round: number, full = false): HeartbeatResponse {
  return { _tag: "HeartbeatResponse", ...envelope(route), round, full }
}

export function texts(messages: ReadonlyArray<Message>): ReadonlyArray<string> {
  return messages.map(describeMessage)
}

/** A class to make replicas from: the core's own, or one with a planted bug. */
export type NodeClass = new (options: RaftOptions) => RaftNode

/** Replicas by the Raft paper alone: no pre-vote, no check of the quorum, no vote silence. */
export function plainCluster(
  Node: NodeClass,
  nodes = 3,
  settings: Partial<RaftSettings> = {},
): TestCluster {
  return new TestCluster({
    nodes,
    Node,
    settings: { preVote: false, checkQuorum: false, voteSilenceMs: 0, ...settings },
  })
}

/** Gives messages to their replica, one after the other, and returns what it sends then. */
export function give(
  cluster: TestCluster,
  ...messages: ReadonlyArray<Message>
): ReadonlyArray<Message> {
  cluster.network = []
  for (const message of messages) {
    cluster.replica(message.to).stepTraced(message)
    cluster.replica(message.to).settle()
  }
  return cluster.network.splice(0)
}

/** Replica 1 of a new cluster becomes leader of the term given, by votes made up here. */
export function leadBy(cluster: TestCluster, term: number): void {
  while (cluster.node(1).term < term) cluster.campaign(1)
  const needed = cluster.ids.length >> 1
  for (let voter = 2; voter <= needed + 1; voter++) give(cluster, vote(`${voter}>1@${term}`, true))
  cluster.network = []
}

/** A log as text, for comparison: "1@1 2@1=a". */
export function logText(cluster: TestCluster, id: number): string {
  return cluster
    .replica(id)
    .durableLog.all.map(({ index, term, kind, data }) =>
      kind === entryKinds.empty
        ? `${index}@${term}`
        : `${index}@${term}=${new TextDecoder().decode(data)}`,
    )
    .join(" ")
}
