import type { Membership } from "../../../src/raft/membership.ts"
import { RaftNode } from "../../../src/raft/raftNode.ts"
import { Steward } from "../../../src/raft/steward.ts"
import { leftPlaces } from "../../../src/server/memberSteps.ts"
import { RangeChanges } from "../../../src/server/rangeChanges.ts"
import type { Replica } from "../../../src/server/replica.ts"
import type { LogIndex, ReplicaId, ReplicaPlace, Term } from "../../../src/types.ts"
import { type Mutant, together, withMethod } from "./mutant.ts"

type Sets = ReadonlyArray<ReadonlyArray<ReplicaId>>

type Places = ReadonlyArray<ReplicaPlace>

export const withoutJoint: Mutant = {
  name: "W",
  title: "voters change in one step, as if joint had been left already (pitfall 25)",
  plant: together(
    withMethod<RangeChanges, [Replica, Places], unknown>(
      RangeChanges,
      "proposePlaces",
      (proposePlaces) =>
        function (replica, places) {
          return proposePlaces.call(this, replica, leftPlaces(places))
        },
    ),
    withMethod<Steward, [Membership], boolean>(Steward, "isOneStep", () => () => true),
  ),
}

class CountsLearners extends RaftNode {
  protected override quorums(): Sets {
    const { learners } = this.membership
    return super.quorums().map((set) => [...set, ...learners].sort((a, b) => a - b))
  }
}

export const learnerCounts: Mutant = {
  name: "X",
  title: "a learner counts in quorums (pitfall 27)",
  parts: { RaftNode: CountsLearners },
}

class KeepsTruncated extends RaftNode {
  protected override logTruncated(): void {}
}

export const membersNotRolledBack: Mutant = {
  name: "Y",
  title: "a membership stays in force when its entry is truncated (pitfall 23)",
  parts: { RaftNode: KeepsTruncated },
}

class OldMembersOfSnapshot extends RaftNode {
  override snapshotInstalled(index: LogIndex, term: Term, membership: Membership): void {
    const known = this.membership
    super.snapshotInstalled(index, term, known.voters.length > 0 ? known : membership)
  }
}

export const snapshotKeepsMembers: Mutant = {
  name: "Z",
  title: "a replica keeps the membership that it had before a snapshot (pitfall 24)",
  parts: { RaftNode: OldMembersOfSnapshot },
}

class NewMajorityOnly extends RaftNode {
  protected override quorums(): Sets {
    return [this.membership.voters]
  }
}

export const newMajorityOnly: Mutant = {
  name: "AA",
  title: "in joint the majority of the new voters decides alone (pitfall 25)",
  parts: { RaftNode: NewMajorityOnly },
}

class OldMajorityOnly extends RaftNode {
  protected override quorums(): Sets {
    const { voters, outgoing } = this.membership
    return [outgoing.length > 0 ? outgoing : voters]
  }
}

export const oldMajorityOnly: Mutant = {
  name: "AB",
  title: "in joint the majority of the old voters decides alone (pitfall 25)",
  parts: { RaftNode: OldMajorityOnly },
}

class CommittedMembers extends RaftNode {
  protected override quorums(): Sets {
    const { voters, outgoing } = this.committedMembership
    return outgoing.length > 0 ? [voters, outgoing] : [voters]
  }
}

export const membersAtCommit: Mutant = {
  name: "AC",
  title: "a membership is in force from its commit on, not from its append (pitfall 23)",
  parts: { RaftNode: CommittedMembers },
}
