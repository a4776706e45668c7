import type { NodeId, Slot } from "../types.ts"
import { allocateTokens } from "./allocator.ts"
import {
  isPlaced,
  type MemberState,
  memberOf,
  membersMax,
  type RingMember,
  tokensMax,
  virtualNodesMax,
  virtualNodesMin,
  withMember,
} from "./member.ts"
import { Ring } from "./ring.ts"

/** A node that is to join: who it is and where it stands. */
export type Newcomer = Omit<RingMember, "tokens" | "state">

/** A change of members that the ring cannot take. */
export interface RingRefusal {
  readonly _tag: "RingRefusal"
  readonly why: string
}

/**
 * The next version with one member more. Its tokens say what it is to hold; it owns nothing yet. A node that was a member before
 * may join again once it has been dropped.
 */
export function withNewcomer(
  ring: Ring,
  newcomer: Newcomer,
  virtualNodes: number,
): Ring | RingRefusal {
  const { members, strategy } = ring
  const known = memberOf(members, newcomer.node)
  if (known !== undefined) return refused(`n${newcomer.node} is in the ring, as ${known.state}`)
  if (members.length >= membersMax) return refused(`the ring has ${membersMax} members, its limit`)
  if (virtualNodes < virtualNodesMin || virtualNodes > virtualNodesMax) {
    const limit = `${virtualNodesMin} to ${virtualNodesMax}`
    return refused(`${virtualNodes} virtual nodes: limit is ${limit}`)
  }
  const tokens = members.reduce((sum, member) => sum + member.tokens.length, 0)
  if (tokens + virtualNodes > tokensMax) {
    return refused(`the ring has ${tokens} virtual nodes: limit is ${tokensMax}`)
  }
  const given = allocateTokens({ members, strategy, newcomer, virtualNodes })
  return changed(ring, withMember(members, { ...newcomer, state: "member", tokens: given }))
}

/**
 * The next version in which a member leaves: it hands its slots over and goes on serving them until then, or, when it is `gone`, others fill their places. One
 * that leaves may be said to be gone later, not the other way round.
 */
export function withParting(
  ring: Ring,
  node: NodeId,
  state: Exclude<MemberState, "member">,
): Ring | RingRefusal {
  const member = memberOf(ring.members, node)
  const problem = partingProblem(ring, node, state)
  if (member === undefined || problem !== undefined) return refused(problem ?? "")
  if (ring.members.every((other) => !isPlaced(other) || other.node === node)) {
    return refused(`n${node} is the last member`)
  }
  return changed(ring, withMember(ring.members, { ...member, state, tokens: [] }))
}

/**
 * The next version in which a newcomer takes the place of a member: the same tokens, so that only the old member's slots move, if it
 * stands in the same failure domains.
 */
export function withReplacement(
  ring: Ring,
  options: {
    readonly node: NodeId
    readonly state: Exclude<MemberState, "member">
    readonly newcomer: Newcomer
  },
): Ring | RingRefusal {
  const { node, state, newcomer } = options
  const member = memberOf(ring.members, node)
  const problem = partingProblem(ring, node, state)
  if (member === undefined || problem !== undefined) return refused(problem ?? "")
  if (!isPlaced(member)) return refused(`n${node} is ${member.state} and has no place to give`)
  const known = memberOf(ring.members, newcomer.node)
  if (known !== undefined) return refused(`n${newcomer.node} is in the ring, as ${known.state}`)
  if (ring.members.length >= membersMax) {
    return refused(`the ring has ${membersMax} members, its limit`)
  }
  const tokens: ReadonlyArray<Slot> = member.tokens
  const without = withMember(ring.members, { ...member, state, tokens: [] })
  return changed(ring, withMember(without, { ...newcomer, state: "member", tokens }))
}

function partingProblem(ring: Ring, node: NodeId, state: MemberState): string | undefined {
  const member = memberOf(ring.members, node)
  if (member === undefined) return `n${node} is not in the ring`
  if (member.state === state || member.state === "gone") return `n${node} is ${member.state}`
  return undefined
}

function changed(ring: Ring, members: ReadonlyArray<RingMember>): Ring {
  const { floor, strategy, table } = ring
  return new Ring({ version: ring.version + 1, floor, strategy, members, table })
}

function refused(why: string): RingRefusal {
  return { _tag: "RingRefusal", why }
}

export function isRefusal(result: Ring | RingRefusal): result is RingRefusal {
  return "_tag" in result
}

/** The next version with a member in other failure domains: its tokens stay, and slots move where they now spread worse. `undefined` when it is in these already. */
export function withDomains(ring: Ring, newcomer: Newcomer): Ring | undefined {
  const member = memberOf(ring.members, newcomer.node)
  if (member === undefined) return undefined
  const { zone, rack, host } = newcomer
  if (member.zone === zone && member.rack === rack && member.host === host) return undefined
  return changed(ring, withMember(ring.members, { ...member, zone, rack, host }))
}
