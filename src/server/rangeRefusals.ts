import type { NodeId, RangeDescriptor, RangeId } from "../types.ts"
import { isJoint } from "./descriptors.ts"
import { problemOf } from "./memberSteps.ts"
import type { Replica } from "./replica.ts"
import type { ChangeMembersRequest, Refusal, TransferRequest } from "./requests.ts"

/** What is said to those whose request to change a range is not taken, or comes to nothing. */

export function refusalOfMembers(
  replica: Replica,
  request: ChangeMembersRequest,
): Refusal | undefined {
  const { descriptor, lastReplica } = replica.machine
  if (isJoint(descriptor.replicas)) return pending("its replicas are being changed")
  const problem = problemOf(descriptor, lastReplica, request.replicas)
  return problem === undefined ? undefined : invalid(problem)
}

export function refusalOfTransfer(
  { to }: TransferRequest,
  { replicas }: RangeDescriptor,
): Refusal | undefined {
  const place = replicas.find(({ node }) => node === to)
  const mayLead = place?.role === "voter" || place?.role === "incoming"
  return mayLead ? undefined : invalid(`node ${to} has no voter of the range`)
}

export function invalid(message: string): Refusal {
  return { _tag: "InvalidRequest", message }
}

export function moved(descriptor: RangeDescriptor): Refusal {
  return { _tag: "RangeMoved", descriptors: [descriptor] }
}

export function pending(what: string): Refusal {
  return { _tag: "Overloaded", what }
}

export function merging(range: RangeId): Refusal {
  return pending(`range ${range} is being merged`)
}

export function unsafe(range: RangeId): Refusal {
  return invalid(
    `range ${range} would be in danger of standing still: a voter to be has not caught up, or too few of the voters to be were heard of lately`,
  )
}

export function notLeader({ range, leaderNode }: Replica): Refusal {
  return { _tag: "NotLeader", range, leader: leaderNode }
}

/** What the core's refusal of a proposal means. */
export function notTaken(
  replica: Replica,
  answer: "overloaded" | "transferring" | "pending" | "unsafe" | undefined,
): Refusal {
  if (answer === undefined || answer === "transferring") return notLeader(replica)
  return pending(
    answer === "pending"
      ? `range ${replica.range} is being changed`
      : `range ${replica.range} has too much data that is not applied yet`,
  )
}

/** What a replica that nobody uses takes: measured, `npm run bench -- idle-groups`. */
const replicaBytes = 64 * 1024

/** A node has memory for so many replicas, and takes no more by splits. */
export function refusalOfMemory(
  node: NodeId,
  replicas: number,
  budgetBytes: number,
): Refusal | undefined {
  const most = Math.floor(budgetBytes / replicaBytes)
  if (replicas < most) return undefined
  return invalid(
    `n${node} has ${replicas} ranges, and its memory is for ${most}: merge some (kvorum range merge), or let a node join and move ranges there (kvorum rebalance)`,
  )
}
