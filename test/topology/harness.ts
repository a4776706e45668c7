import { allocateTokens } from "../../src/topology/allocator.ts"
import { type RingMember, type Strategy, withMember } from "../../src/topology/member.ts"
import { Ring } from "../../src/topology/ring.ts"
import { type ChangeReports, nextRing } from "../../src/topology/ringChange.ts"
import { isRefusal, type Newcomer, type RingRefusal } from "../../src/topology/ringMembers.ts"
import type { NodeId } from "../../src/types.ts"

export interface ClusterOptions {
  readonly strategy?: Strategy
  readonly zones?: number
  readonly racks?: number
  readonly nodesPerHost?: number
  /** Virtual nodes by node; 16 unless said. */
  readonly virtualNodes?: (node: NodeId) => number
}

/** Node n of a cluster: zones and racks in turn, hosts one after the other. */
export function newcomerOf(node: NodeId, options: ClusterOptions = {}): Newcomer {
  const { zones = 1, racks = 1, nodesPerHost = 1 } = options
  const zone = `zone${node % zones}`
  const rack = `rack${Math.floor(node / zones) % racks}`
  return { node, zone, rack, host: `host${Math.floor((node - 1) / nodesPerHost)}` }
}

/** Members 1 to `count`, as they come to be when they join one after the other. */
export function membersOf(count: number, options: ClusterOptions = {}): ReadonlyArray<RingMember> {
  const { strategy = "simple", virtualNodes = () => 16 } = options
  let members: ReadonlyArray<RingMember> = []
  for (let node = 1; node <= count; node++) {
    const newcomer = newcomerOf(node, options)
    const count = virtualNodes(node)
    const tokens = allocateTokens({ members, strategy, newcomer, virtualNodes: count })
    members = withMember(members, { ...newcomer, state: "member", tokens })
  }
  return members
}

export function ringOf(count: number, options: ClusterOptions = {}): Ring {
  return Ring.founded(membersOf(count, options), options.strategy ?? "simple")
}

export function ringFrom(result: Ring | RingRefusal): Ring {
  if (isRefusal(result)) throw new Error(result.why)
  return result
}

/** Everybody knows everything at once. */
export const promptReports: ChangeReports = {
  confirmedBy: () => Number.MAX_SAFE_INTEGER,
  isFilled: () => true,
}

/** All versions up to the one at rest. */
export function versionsToRest(
  ring: Ring,
  slotsAtOnceMax: number,
  reports = promptReports,
): ReadonlyArray<Ring> {
  const versions = [ring]
  const goal = ring.goal()
  for (;;) {
    const next = nextRing(versions[versions.length - 1], { goal, reports, slotsAtOnceMax })
    if (next === undefined) return versions
    versions.push(next)
  }
}
