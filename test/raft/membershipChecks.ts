import {
  isJoint,
  leftJoint,
  type Membership,
  type MembershipAt,
  sameReplicas,
} from "../../src/raft/membership.ts"
import type { RaftLog } from "../../src/raft/raftLog.ts"
import type { RaftNode } from "../../src/raft/raftNode.ts"

/** What the core keeps to itself, for checks. */
export function logOf(node: RaftNode): RaftLog {
  return (node as unknown as { log: RaftLog }).log
}

export function membershipsOf(node: RaftNode): ReadonlyArray<MembershipAt> {
  const { memberships } = node as unknown as {
    memberships: { steps: ReadonlyArray<MembershipAt> }
  }
  return memberships.steps
}

/** The sets of which each must agree by majority, told anew: the core's own account may be what is broken. */
export function decidingSets({
  voters,
  outgoing,
}: Membership): ReadonlyArray<ReadonlyArray<number>> {
  return outgoing.length === 0 ? [voters] : [voters, outgoing]
}

/** True when a majority of each deciding set is among those for whom `holds` is true. */
export function isQuorum(membership: Membership, holds: (id: number) => boolean): boolean {
  return decidingSets(membership).every((set) => set.filter(holds).length * 2 > set.length)
}

/** True when no two quorums, one of each, are disjoint. */
export function quorumsOverlap(left: Membership, right: Membership): boolean {
  const ids = [...new Set([...decidingSets(left), ...decidingSets(right)].flat())]
  for (let chosen = 0; chosen < 2 ** ids.length; chosen++) {
    const inside = (id: number) => ((chosen >> ids.indexOf(id)) & 1) === 1
    if (isQuorum(left, inside) && isQuorum(right, (id) => !inside(id))) return false
  }
  return true
}

/** What is wrong with the second as the successor of the first, or `undefined`. */
export function stepProblem(before: Membership, after: Membership): string | undefined {
  if (!quorumsOverlap(before, after)) return "have disjoint quorums"
  if (isJoint(before)) {
    const isLeft = !isJoint(after) && sameReplicas(after.voters, leftJoint(before).voters)
    return isLeft ? undefined : "leave joint for something else"
  }
  if (isJoint(after)) {
    return sameReplicas(after.outgoing, before.voters) ? undefined : "enter joint from others"
  }
  return sameReplicas(after.voters, before.voters) ? undefined : "change voters at once"
}
