import { ByteWriter } from "../../src/lib/byteWriter.ts"
import {
  type Membership,
  membershipInEntry,
  membersOf,
  writeMembership,
} from "../../src/raft/membership.ts"
import { type Entry, entryKinds } from "../../src/raft/message.ts"

/** The one in force after these, if they say. */
export function lastMembership(entries: ReadonlyArray<Entry>): Membership | undefined {
  const last = entries.findLast(({ kind }) => kind === entryKinds.members)
  return last === undefined ? undefined : membershipInEntry(last.data)
}

export function isMember(membership: Membership, id: number): boolean {
  return membersOf(membership).includes(id)
}

/** What a server would write: a stamp, and nothing besides the membership. */
export function membersData(membership: Membership): Uint8Array {
  const writer = new ByteWriter()
  writer.u64(0)
  writeMembership(writer, membership)
  return writer.take()
}
