import { membershipProblem } from "../raft/membership.ts"
import type { RangeDescriptor, ReplicaId, ReplicaPlace } from "../types.ts"
import { isJoint } from "./descriptors.ts"
import { membershipOf } from "./membershipOf.ts"

/**
 * The way from a range's replicas to those wanted, an entry at a time. Replicas come as learners and learners go in one entry, because they decide nothing;
 * voters change in two: into joint, out of it. No state: after each entry the next step follows from the descriptor alone.
 */

type Places = ReadonlyArray<ReplicaPlace>

const placesMax = 32

/** Why the replicas wanted can't be had, or `undefined`. */
export function problemOf(
  descriptor: RangeDescriptor,
  lastReplica: ReplicaId,
  wanted: Places,
): string | undefined {
  if (wanted.length > placesMax) return `a range has at most ${placesMax} replicas`
  if (!wanted.some(({ role }) => role === "voter")) return "a range has at least one voter"
  if (!wanted.every(({ node }) => Number.isSafeInteger(node) && node > 0)) return "a node is none"
  if (new Set(wanted.map(({ node }) => node)).size < wanted.length) return "a node is named twice"
  if (new Set(wanted.map(({ replica }) => replica)).size < wanted.length) {
    return "a replica is named twice"
  }
  for (const place of wanted) {
    const problem = problemOfPlace(descriptor, lastReplica, place)
    if (problem !== undefined) return problem
  }
  return membershipProblem(membershipOf(wanted))
}

function problemOfPlace(
  { replicas }: RangeDescriptor,
  lastReplica: ReplicaId,
  { node, replica, role }: ReplicaPlace,
): string | undefined {
  if (role !== "voter" && role !== "learner") return `replica ${replica} is wanted as ${role}`
  const present = replicas.find((each) => each.replica === replica)
  if (present === undefined) {
    if (replica <= lastReplica) {
      return `replica id ${replica} is not above ${lastReplica}, the last one that the range has had`
    }
    const there = replicas.find((each) => each.node === node)
    return there === undefined ? undefined : `node ${node} has replica ${there.replica} still`
  }
  if (present.node !== node) return `replica ${replica} lives on node ${present.node}`
  const votes = present.role !== "learner"
  return votes && role === "learner"
    ? `replica ${replica} votes: remove it, then add a learner`
    : undefined
}

/** The places that the next entry brings; `undefined` when nothing is left to do, or the group has to leave joint first. */
export function nextPlaces(current: Places, wanted: Places): Places | undefined {
  if (isJoint(current)) return undefined
  const isWanted = ({ replica }: ReplicaPlace) => wanted.some((each) => each.replica === replica)
  const isHere = ({ replica }: ReplicaPlace) => current.some((each) => each.replica === replica)
  const coming = wanted
    .filter((place) => !isHere(place))
    .map((place) => ({ ...place, role: "learner" as const }))
  const going = current.some((place) => place.role === "learner" && !isWanted(place))
  if (coming.length > 0 || going) {
    const kept = current.filter((place) => place.role === "voter" || isWanted(place))
    return inOrder([...kept, ...coming])
  }
  const changed = current.map((place): ReplicaPlace => {
    const goal = wanted.find((each) => each.replica === place.replica)
    if (goal === undefined) return { ...place, role: "outgoing" }
    return place.role === "learner" && goal.role === "voter"
      ? { ...place, role: "incoming" }
      : place
  })
  return isJoint(changed) ? changed : undefined
}

/** Out of joint. */
export function leftPlaces(joint: Places): Places {
  return joint
    .filter((place) => place.role !== "outgoing")
    .map((place) => (place.role === "incoming" ? { ...place, role: "voter" } : place))
}

function inOrder(places: Places): Places {
  return [...places].sort((left, right) => left.replica - right.replica)
}
