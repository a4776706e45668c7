import { equalBytes } from "../../src/lib/bytes.ts"
import { describeEntry, describeMembership, describeRole } from "../../src/raft/describe.ts"
import { type Membership, type MembershipAt, membershipInEntry } from "../../src/raft/membership.ts"
import { type Entry, entryKinds } from "../../src/raft/message.ts"
import type { RaftNode } from "../../src/raft/raftNode.ts"
import type { TestCluster } from "./cluster.ts"
import { isQuorum, logOf, membershipsOf, stepProblem } from "./membershipChecks.ts"
import type { TestReplica } from "./testReplica.ts"

/** A promise of the Raft paper (Figure 3), or of thesis 6.4, that did not hold. */
export class Violation extends Error {
  override readonly name = "Violation"
}

export function must(condition: boolean, property: string, detail: () => string): void {
  if (!condition) throw new Violation(`${property}: ${detail()}`)
}

export interface RunStatistics {
  committed: number
  elections: number
  crashes: number
  reads: number
  snapshots: number
  changes: number
  transfers: number
  followerReads: number
  leaseReads: number
}

export function noStatistics(): RunStatistics {
  return {
    committed: 0,
    elections: 0,
    crashes: 0,
    reads: 0,
    snapshots: 0,
    changes: 0,
    transfers: 0,
    followerReads: 0,
    leaseReads: 0,
  }
}

/**
 * What must hold of a cluster whatever happens to it: the five properties of the Raft paper, linearizable reads, memberships whose quorums
 * overlap, and leases of which there is one at a time.
 */
export class ClusterChecks {
  readonly statistics = noStatistics()
  private readonly cluster: TestCluster
  private readonly leaderOfTerm = new Map<number, number>()
  /** Terms of each leader's own log as last seen, by term: it may only grow. */
  private readonly leaderLogs = new Map<number, Array<number>>()
  /** Every entry that any replica ever applied, by index. */
  private readonly committed: Array<Entry> = []
  private committedMembership: Membership
  private readonly commitSeen = new Map<
    number,
    { readonly leaderTerm: number; readonly index: number }
  >()
  private readonly readFloor: Array<number> = []

  constructor(cluster: TestCluster) {
    this.cluster = cluster
    this.committedMembership = cluster.initial
  }

  // The five properties (Raft paper, Figure 3)

  checkLeader(replica: TestReplica): void {
    const { node } = replica
    if (node.role !== "leader") return
    const known = this.leaderOfTerm.get(node.term)
    must(
      known === undefined || known === node.id,
      "election safety",
      () => `n${known} and n${node.id} both lead term ${node.term}`,
    )
    if (known === undefined) {
      this.leaderOfTerm.set(node.term, node.id)
      this.statistics.elections++
      this.checkCompleteness(node)
    }
    this.checkAppendOnly(node)
  }

  private checkCompleteness(node: RaftNode): void {
    const log = logOf(node)
    for (const entry of this.committed) {
      if (entry === undefined || entry.index < log.firstIndex || entry.term >= node.term) continue
      must(
        log.term(entry.index) === entry.term,
        "leader completeness",
        () => `${describeRole(node)} lacks committed ${describeEntry(entry)}`,
      )
    }
  }

  private checkAppendOnly(node: RaftNode): void {
    const log = logOf(node)
    const seen = this.leaderLogs.get(node.term) ?? []
    must(
      log.lastIndex >= seen.length - 1,
      "leader append-only",
      () => `${describeRole(node)} shrank to ${log.lastIndex}`,
    )
    const start = Math.max(log.firstIndex, seen.length - 3, 0)
    for (let index = start; index <= log.lastIndex; index++) {
      const term = log.term(index) as number
      must(
        seen[index] === undefined || seen[index] === term,
        "leader append-only",
        () => `${describeRole(node)} changed ${index}@${seen[index]} to ${term}`,
      )
      seen[index] = term
    }
    this.leaderLogs.set(node.term, seen)
  }

  checkApply(replica: TestReplica, entry: Entry): void {
    const known = this.committed[entry.index]
    if (known === undefined) {
      this.committed[entry.index] = entry
      this.statistics.committed++
      if (entry.kind === entryKinds.members) this.checkStep(membershipInEntry(entry.data))
      return
    }
    must(
      known.term === entry.term && equalBytes(known.data, entry.data),
      "state machine safety",
      () =>
        `n${replica.id} applied ${describeEntry(entry)}, others applied ${describeEntry(known)}`,
    )
  }

  /** Committed memberships follow each other by steps that are allowed. */
  private checkStep(membership: Membership): void {
    const problem = stepProblem(this.committedMembership, membership)
    must(
      problem === undefined,
      "consecutive memberships overlap",
      () =>
        `${describeMembership(this.committedMembership)}, ${describeMembership(membership)} ${problem}`,
    )
    this.committedMembership = membership
    this.statistics.changes++
  }

  /** What a leader has committed is on the disks of a majority of each deciding set. */
  checkQuorum({ node }: TestReplica): void {
    const index = node.commitIndex
    const before = this.commitSeen.get(node.id)
    this.commitSeen.set(node.id, { leaderTerm: node.term, index })
    // What a follower, or an earlier leader, committed was decided by what was in force then.
    if (before?.leaderTerm !== node.term || before.index === index) return
    const term = logOf(node).term(index)
    const holds = (id: number) => {
      const { durableLog } = this.cluster.replica(id)
      return index < durableLog.firstIndex || durableLog.term(index) === term
    }
    must(
      isQuorum(node.membership, holds),
      "committed means durable on a quorum",
      () => `${describeRole(node)} committed ${index} in ${describeMembership(node.membership)}`,
    )
  }

  /** A leader has one change under way, made after it committed an entry of its term. */
  checkMemberships({ node }: TestReplica): void {
    const steps = membershipsOf(node)
    for (let i = 1; i < steps.length; i++) {
      const [before, after] = [steps[i - 1], steps[i]] as [MembershipAt, MembershipAt]
      // A replica that came later has the log from the start, and knows of the first membership only what the second says.
      const isKnown = before.membership.voters.length > 0
      const problem = isKnown ? stepProblem(before.membership, after.membership) : undefined
      must(
        problem === undefined && before.index <= node.commitIndex,
        "one membership after the other",
        () => `${describeRole(node)} went from ${before.index} to ${after.index}: ${problem}`,
      )
    }
    const { index } = steps.at(-1) as MembershipAt
    const log = logOf(node)
    must(
      log.term(index) !== node.term || index === 0 || log.term(node.commitIndex) === node.term,
      "a change comes after an entry of the term is committed",
      () => `${describeRole(node)} made ${index} with ${node.commitIndex} committed`,
    )
  }

  /** No two leases at a time, and who has one knows all that is committed. */
  checkLeases(): void {
    const holders = this.cluster.replicas.filter(({ holdsLease }) => holdsLease)
    must(holders.length <= 1, "one lease", () =>
      holders.map(({ node }) => describeRole(node)).join(" and "),
    )
    for (const { node } of holders) {
      must(
        node.commitIndex >= this.committed.length - 1,
        "a lease covers all that is committed",
        () => `${describeRole(node)} knows ${node.commitIndex} of ${this.committed.length - 1}`,
      )
    }
  }

  /** Equal (index, term) means equal logs before. */
  checkLogMatching(): void {
    const logs = this.cluster.replicas.map(({ durableLog }) => durableLog)
    for (const left of logs) {
      for (const right of logs) {
        if (left === right) continue
        let agreed = false
        const first = Math.max(left.firstIndex, right.firstIndex)
        for (let i = Math.min(left.lastIndex, right.lastIndex); i >= first; i--) {
          const equal = left.term(i) === right.term(i)
          must(equal || !agreed, "log matching", () => `logs differ at ${i}, but not above`)
          agreed ||= equal
          if (!equal) continue
          const [a, b] = [left.entries(i, i + 1, 0)[0], right.entries(i, i + 1, 0)[0]]
          must(equalBytes(a!.data, b!.data), "log matching", () => `data differ at ${i}`)
        }
      }
    }
  }

  /** A read is asked for, under the context returned. */
  readAsked(): number {
    return this.readFloor.push(Math.max(0, this.committed.length - 1)) - 1
  }

  /**
   * A read sees everything that any replica had applied when it was asked for. (Raft thesis 6.4)
   */
  checkReads(replica: TestReplica): void {
    for (const { context, index, byLease } of replica.reads) {
      // The server looks again before the answer leaves, and asks anew when the lease is gone.
      if (byLease && !replica.holdsLease) continue
      if (byLease) this.statistics.leaseReads++
      if (replica.node.role !== "leader") this.statistics.followerReads++
      const floor = this.readFloor[context] as number
      must(
        index >= floor,
        "linearizable reads",
        () => `n${replica.id} reads at ${index} what was at ${floor}`,
      )
      this.statistics.reads++
    }
    replica.reads = []
  }
}
