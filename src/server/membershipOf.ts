import type { Membership } from "../raft/membership.ts"
import type { ReplicaId, ReplicaPlace, ReplicaRole } from "../types.ts"

/** The membership that a descriptor's replicas stand for: joint exactly while one is incoming or outgoing. */
export function membershipOf(replicas: ReadonlyArray<ReplicaPlace>): Membership {
  const withRole = (...roles: ReadonlyArray<ReplicaRole>): ReadonlyArray<ReplicaId> =>
    replicas
      .filter(({ role }) => roles.includes(role))
      .map(({ replica }) => replica)
      .sort((left, right) => left - right)
  const joint = withRole("incoming", "outgoing").length > 0
  return {
    voters: withRole("voter", "incoming"),
    outgoing: joint ? withRole("voter", "outgoing") : [],
    learners: withRole("learner"),
  }
}
