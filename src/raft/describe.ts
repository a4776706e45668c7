import type { ReplicaId } from "../types.ts"
import { type Membership, membershipInEntry } from "./membership.ts"
import { type Entry, entryKinds, type Message } from "./message.ts"
import type { ProgressReport } from "./progress.ts"
import type { RaftNode } from "./raftNode.ts"
import type { Ready } from "./ready.ts"

/**
 * Raft as text, one line a fact, the same for the same state: for golden scripts, traces and logs.
 * A position of the log reads `index@term`, a replica of a term `n3@2`.
 */
export function describeReplica(id: ReplicaId): string {
  return `n${id}`
}

const roleNames = {
  follower: "follower",
  preCandidate: "pre-candidate",
  candidate: "candidate",
  leader: "leader",
} as const

/** `n3@2 follower(n1)`: id, term, role, and the leader where one is followed. */
export function describeRole(node: Pick<RaftNode, "id" | "term" | "role" | "leader">): string {
  const followed =
    node.role === "follower" && node.leader !== undefined ? `(${describeReplica(node.leader)})` : ""
  return `${describeReplica(node.id)}@${node.term} ${roleNames[node.role]}${followed}`
}

/** The role, and how far log, disk, commit and state machine have come. */
export function describeState(node: RaftNode): string {
  return (
    `${describeRole(node)} last=${node.lastIndex} durable=${node.durableIndex} ` +
    `commit=${node.commitIndex} applied=${node.appliedIndex}`
  )
}

/** `n2 replicate match=4 next=7`. */
export function describeProgress(progress: ProgressReport): string {
  const { replica, state, match, next, recentActive } = progress
  const silent = recentActive ? "" : " silent"
  return `${describeReplica(replica)} ${state} match=${match} next=${next}${silent}`
}

const shownDataBytes = 24

function describeData(data: Uint8Array): string {
  let text = ""
  const shown = Math.min(data.length, shownDataBytes)
  for (let i = 0; i < shown; i++) {
    const byte = data[i] as number
    const printable = byte >= 0x20 && byte < 0x7f && byte !== 0x22 && byte !== 0x5c
    text += printable ? String.fromCharCode(byte) : `\\x${byte.toString(16).padStart(2, "0")}`
  }
  const rest = data.length - shown
  return rest > 0 ? `"${text}"+${rest}B` : `"${text}"`
}

/** `n1 n2 n3`, while joint `n1 n2 n4 out of n1 n2 n3`, with learners `n1 learners n2`. */
export function describeMembership({ voters, outgoing, learners }: Membership): string {
  const names = (list: ReadonlyArray<ReplicaId>) => list.map(describeReplica).join(" ")
  const joint = outgoing.length === 0 ? "" : ` out of ${names(outgoing)}`
  return `${names(voters)}${joint}${learners.length === 0 ? "" : ` learners ${names(learners)}`}`
}

/** `4@2 "a=1"`, `3@2 empty`, `5@2 n1 n2 learners n3`. */
export function describeEntry(entry: Entry): string {
  let what: string
  if (entry.kind === entryKinds.empty) what = "empty"
  else if (entry.kind === entryKinds.members) {
    what = describeMembership(membershipInEntry(entry.data))
  } else what = describeData(entry.data)
  return `${entry.index}@${entry.term} ${what}`
}

export function describeEntries(entries: ReadonlyArray<Entry>): string {
  return `[${entries.map(describeEntry).join(", ")}]`
}

/** `n1@2 -> n3 Append after=3@1 commit=3 [4@2 "a=1"]`. */
export function describeMessage(message: Message): string {
  const from = `${describeReplica(message.from)}@${message.term}`
  return `${from} -> ${describeReplica(message.to)} ${describeBody(message)}`
}

function describeBody(message: Message): string {
  switch (message._tag) {
    case "VoteRequest":
      return `${voteName(message.preVote)} last=${message.lastIndex}@${message.lastTerm}${message.transfer ? " transfer" : ""}`
    case "VoteResponse":
      return `${voteName(message.preVote)}Response ${message.granted ? "granted" : "refused"}`
    case "AppendRequest": {
      const after = `after=${message.previousIndex}@${message.previousTerm}`
      return `Append ${after} commit=${message.commit} ${describeEntries(message.entries)}`
    }
    case "AppendResponse":
      return message.accepted
        ? `AppendResponse accepted=${message.index}`
        : `AppendResponse refused=${message.index} hint=${message.hintIndex}@${message.hintTerm}`
    case "Heartbeat":
      return `Heartbeat commit=${message.commit} round=${message.round}`
    case "HeartbeatResponse":
      return `HeartbeatResponse round=${message.round}${message.full ? " full" : ""}`
    case "SnapshotOffer":
      return `SnapshotOffer ${message.index}@${message.indexTerm}`
    case "TimeoutNow":
      return "TimeoutNow"
    case "ReadIndexRequest":
      return `ReadIndex ${message.context}`
    case "ReadIndexResponse":
      return `ReadIndexResponse ${message.context} at ${message.index}`
  }
}

function voteName(preVote: boolean): string {
  return preVote ? "PreVote" : "Vote"
}

/** One line per thing that replica `id` has to do, in the order of their ordering rules. */
export function describeReady(id: ReplicaId, ready: Ready): ReadonlyArray<string> {
  const name = describeReplica(id)
  const { hardState, snapshot } = ready
  const lines = ready.messages.map(describeMessage)
  if (hardState !== undefined) {
    const vote = hardState.vote === 0 ? "none" : describeReplica(hardState.vote)
    const written = `term=${hardState.term} vote=${vote} commit=${hardState.commit}`
    lines.push(`${name} writes ${written}${ready.mustSync ? "" : " unsynced"}`)
  }
  if (ready.entries.length > 0) lines.push(`${name} writes ${describeEntries(ready.entries)}`)
  if (snapshot !== undefined) lines.push(`${name} installs ${snapshot.index}@${snapshot.term}`)
  for (const message of ready.messagesAfterPersist) {
    lines.push(`${describeMessage(message)} (once durable)`)
  }
  if (ready.committed.length > 0) lines.push(`${name} applies ${describeEntries(ready.committed)}`)
  for (const read of ready.reads) {
    const how = read.byLease ? " by lease" : ""
    lines.push(`${name} read ${read.context} at ${read.index}${how}`)
  }
  for (const context of ready.readsLost) lines.push(`${name} read ${context} lost`)
  for (const replica of ready.snapshotsWanted) {
    lines.push(`${name} wants a snapshot for ${describeReplica(replica)}`)
  }
  if (ready.leaveJointDue) lines.push(`${name} may leave joint`)
  return lines
}
