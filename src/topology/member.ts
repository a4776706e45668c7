import { utf8 } from "../lib/bytes.ts"
import { slotCount } from "../lib/slot.ts"
import type { NodeId, Slot } from "../types.ts"

/** What copies of a slot are spread over: hosts only, racks before hosts, or zones before racks before hosts. */
export type Strategy = "simple" | "rack" | "zone"

/**
 * `member`: takes its share. `leaving`: hands all its slots over and is dropped when it has none. `gone`: the same, but it will never answer again
 * (its incarnation is refused), so that nobody waits for it.
 */
export type MemberState = "member" | "leaving" | "gone"

/** A node's place in the ring. */
export interface RingMember {
  readonly node: NodeId
  /** Names of its failure domains. Racks are told apart within a zone, hosts everywhere. */
  readonly zone: string
  readonly rack: string
  readonly host: string
  readonly state: MemberState
  /** The last slots of the arcs of its virtual nodes, ascending; as many as it has weight. Empty unless it is a `member`. */
  readonly tokens: ReadonlyArray<Slot>
}

/** Copies of a key at most, and so the length of a preference list. */
export const replicasMax = 7
/** Virtual nodes of an ordinary node; one of twice the capacity has twice as many. */
export const virtualNodesDefault = 16
export const virtualNodesMin = 4
export const virtualNodesMax = 128
/** Every token is a slot of its own: 256 members of usual weight leave four slots an arc. */
export const membersMax = 256
export const tokensMax = slotCount / 4
/** Bytes of the name of a zone, rack or host, as UTF-8. */
export const domainNameBytesMax = 255

/** Members whose tokens place slots. */
export function isPlaced(member: RingMember): boolean {
  return member.state === "member"
}

/** Why these are no members of one ring, or `undefined`. They have to be in order of id. */
export function membersProblem(members: ReadonlyArray<RingMember>): string | undefined {
  if (members.length > membersMax) return `${members.length} members: limit is ${membersMax}`
  const taken = new Uint8Array(slotCount)
  let tokens = 0
  for (let i = 0; i < members.length; i++) {
    const member = members[i]
    const { node, zone, rack, host } = member
    if (!Number.isSafeInteger(node) || node < 1 || node >= 2 ** 32) return `node id ${node}`
    if (i > 0 && members[i - 1].node >= node) return `n${node} is out of order`
    if ([zone, rack, host].some((name) => utf8(name).length > domainNameBytesMax)) {
      return `n${node} has a name of more than ${domainNameBytesMax} bytes`
    }
    if (!isPlaced(member)) {
      if (member.tokens.length > 0) return `n${node} is ${member.state} and has tokens`
      continue
    }
    const count = member.tokens.length
    if (count < virtualNodesMin || count > virtualNodesMax) {
      return `n${node} has ${count} virtual nodes: limit is ${virtualNodesMin} to ${virtualNodesMax}`
    }
    tokens += count
    for (let j = 0; j < count; j++) {
      const token = member.tokens[j]
      if (!Number.isInteger(token) || token < 0 || token >= slotCount) return `token ${token}`
      if (j > 0 && member.tokens[j - 1] >= token) return `tokens of n${node} are out of order`
      if (taken[token] === 1) return `two virtual nodes at slot ${token}`
      taken[token] = 1
    }
  }
  return tokens > tokensMax ? `${tokens} virtual nodes: limit is ${tokensMax}` : undefined
}

/** Where `node` is in members ordered by id, or -1. */
export function memberIndex(members: ReadonlyArray<RingMember>, node: NodeId): number {
  let low = 0
  let high = members.length - 1
  while (low <= high) {
    const middle = (low + high) >> 1
    const found = members[middle].node
    if (found === node) return middle
    if (found < node) low = middle + 1
    else high = middle - 1
  }
  return -1
}

export function memberOf(members: ReadonlyArray<RingMember>, node: NodeId): RingMember | undefined {
  const at = memberIndex(members, node)
  return at < 0 ? undefined : members[at]
}

/** The members with `member` in the place of its former self, or added, in order of id. */
export function withMember(
  members: ReadonlyArray<RingMember>,
  member: RingMember,
): ReadonlyArray<RingMember> {
  const others = members.filter(({ node }) => node !== member.node)
  const at = others.findIndex(({ node }) => node > member.node)
  return at < 0 ? [...others, member] : others.toSpliced(at, 0, member)
}
