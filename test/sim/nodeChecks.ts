import { loadU64 } from "../../src/lib/littleEndian.ts"
import { type Membership, membershipInEntry, sameMembership } from "../../src/raft/membership.ts"
import { entryKinds } from "../../src/raft/message.ts"
import { membershipOf } from "../../src/server/membershipOf.ts"
import type { MergingMachine } from "../../src/server/merge/mergingMachine.ts"
import type { PeerMessage } from "../../src/server/peerMessage.ts"
import type { Replica } from "../../src/server/replica.ts"
import type { Reply } from "../../src/server/requests.ts"
import type { StoreSettings } from "../../src/server/settings.ts"
import type { ClockReading, StoreLoop } from "../../src/server/storeLoop.ts"
import type { LogIndex, NodeId, RangeId, ReplicaId, Term } from "../../src/types.ts"
import { Durability } from "./durability.ts"
import { LeaderChecks } from "./leaderChecks.ts"
import { LeaseChecks } from "./leaseChecks.ts"
import type { Observer } from "./observer.ts"
import type { Trace } from "./trace.ts"
import { Violation } from "./violation.ts"

/** The membership that a log stands for: of its last entry that holds one, or of the state before it. */
function membershipInLog({ log, machine }: Replica): Membership | undefined {
  for (let index = log.lastIndex; index > machine.appliedIndex; index--) {
    const [entry] = log.entries(index, index + 1, 1)
    // Lost by damage.
    if (entry === undefined) return undefined
    if (entry.kind === entryKinds.members) return membershipInEntry(entry.data)
  }
  return membershipOf(machine.descriptor.replicas)
}

/** A node as its checks see it. */
export interface CheckedNode {
  readonly id: NodeId
  readonly isDamaged: boolean
  readonly counts: { snapshotsInstalled: number }
  readonly checks: NodeChecks
  clock(): ClockReading
}

/** The cluster as the checks of one node see it. */
export interface CheckedWorld {
  readonly now: number
  readonly trace: Trace
  readonly observer: Observer
  readonly parameters: { readonly settings: Pick<StoreSettings, "leaseMs" | "voteSilenceMs"> }
  readonly nodes: ReadonlyMap<NodeId, CheckedNode>
  /** The node has begun to lead a group. */
  elected(node: NodeId): void
}

/** What is checked of one node at every step, without a part in what it does. */
export class NodeChecks {
  readonly durability: Durability
  readonly leases: LeaseChecks
  private readonly leaders: LeaderChecks
  private readonly node: CheckedNode
  private readonly world: CheckedWorld
  private readonly leading = new Map<RangeId, Term>()
  /** Replicas of this life. */
  private readonly present = new Map<RangeId, Replica>()
  /** By range: the largest id of a replica of which nothing is left here. */
  private readonly removed = new Map<RangeId, ReplicaId>()
  /** Ranges whose log lost its end since the last look. */
  private readonly truncated = new Set<RangeId>()
  private isListening = false
  private isWiped = false
  /** Replicas have come, gone or changed their bounds since the last look. */
  private placesChanged = false

  constructor(node: CheckedNode, world: CheckedWorld) {
    this.node = node
    this.world = world
    this.leases = new LeaseChecks(node, world)
    this.leaders = new LeaderChecks(node.id, world)
    this.durability = new Durability({
      node: `n${node.id}`,
      isDamaged: () => node.isDamaged,
      listener: {
        appended: (range, group, entries) => world.observer.appended(range, group, entries),
        voted: (range, replica, term, vote) => this.voted(range, replica, term, vote),
      },
      destroyed: (range, replica) => {
        this.removed.set(range, Math.max(this.removed.get(range) ?? 0, replica))
      },
      truncated: (range) => this.truncated.add(range),
    })
  }

  /** The node leads some group, as far as its last turn has shown. */
  get leads(): boolean {
    return this.leading.size > 0
  }

  stopped(): void {
    this.leading.clear()
    this.leases.stopped()
    this.leaders.stopped()
    this.present.clear()
    this.truncated.clear()
    this.isListening = false
  }

  /** The node's disk was emptied while it was down. */
  wiped(): void {
    this.isWiped = true
    this.durability.wiped()
    this.removed.clear()
  }

  /** What a wiped node votes counts for nobody, unless somebody takes it for a vote (`heard`). */
  private voted(range: RangeId, replica: ReplicaId, term: Term, vote: ReplicaId): void {
    if (!this.isWiped) this.world.observer.voted(range, replica, term, vote)
  }

  /** The node takes a message from another. */
  heard(message: PeerMessage): void {
    if (message._tag !== "Raft") return
    const { range, message: raft } = message
    if (raft._tag !== "VoteResponse" || !raft.granted || raft.preVote) return
    this.world.observer.voted(range, raft.from, raft.term, raft.to)
  }

  /** The node has recovered: compares that with what was durable, and listens in from here on. */
  recovered(loop: StoreLoop): void {
    this.durability.restarted()
    for (const { range, machine, log } of loop.replicas.values()) {
      const { replica, appliedIndex, appliedTerm } = machine
      this.durability.checkRecovered({ range, replica, appliedIndex, appliedTerm, log })
    }
    this.durability.tap(loop.storage.journal)
    this.leases.recovered(loop)
    this.isListening = true
    for (const replica of loop.replicas.values()) this.opened(replica)
    this.notePlaces(loop)
  }

  /** A replica was made: at the start, by a split, or empty. */
  opened(replica: Replica): void {
    if (!this.isListening) return
    const { range, machine, log } = replica
    const grave = this.removed.get(range) ?? 0
    if (machine.replica <= grave) {
      this.fail("removed", `makes replica ${machine.replica} of r${range}; ${grave} was removed`)
    }
    this.placesChanged = true
    this.present.set(range, replica)
    // Handles given out before the tap are tapped too.
    this.durability.tapGroup(range, machine.replica, log)
    this.observeMachine(replica)
    this.leaders.listen(replica)
    const replaceMachine = replica.replaceMachine.bind(replica)
    replica.replaceMachine = (next) => {
      replaceMachine(next)
      this.placesChanged = true
      this.node.counts.snapshotsInstalled++
      this.observeMachine(replica)
    }
  }

  private observeMachine(replica: Replica): void {
    const { machine, range } = replica
    const { observer, trace } = this.world
    if (!replica.isEmpty) this.seen(replica)
    const apply = machine.apply.bind(machine)
    machine.apply = (entry, source) => {
      const { descriptor } = machine
      apply(entry, source)
      const place = this.node.id * 1000 + range
      trace.record("apply", this.world.now, place, entry.index, machine.chain)
      observer.appliedEntry(this.node.id, range, entry, {
        chain: machine.chain,
        replicaTerm: replica.raft.term,
      })
      observer.floors.applied(range, entry.index, this.world.now)
      observer.effects.applied(range, entry, machine.outcomes)
      if (machine.descriptor !== descriptor) {
        this.placesChanged = true
        if (machine.taken !== undefined) this.noteTaken(range, machine, machine.taken)
        observer.described(this.node.id, machine.descriptor, entry.index)
        if (machine.child !== undefined) {
          this.checkSessions(range, machine.sessions.results, machine.child.sessions.results)
          observer.splitOff(machine.child.descriptor.id)
          const { replicas } = machine.child.descriptor
          if (JSON.stringify(replicas) !== JSON.stringify(machine.descriptor.replicas)) {
            this.fail("members", `gives the right half of r${range} other members than the left`)
          }
          const { appliedIndex, chain } = machine.child
          observer.described(this.node.id, machine.child.descriptor, appliedIndex)
          observer.chainAt(this.node.id, machine.child.descriptor.id, appliedIndex, chain)
        }
      }
      if (!this.holds(range, machine.replica, entry.index, entry.term)) {
        this.fail("durability", `applies ${entry.index} of r${range} too early`)
      }
    }
  }

  private noteTaken(range: RangeId, machine: MergingMachine, taken: MergingMachine): void {
    const { observer } = this.world
    observer.takenIn(this.node.id, { source: taken.descriptor.id, target: range })
    for (const { clientId, record } of taken.sessions.all()) {
      const largestExpiry = loadU64(record, 8)
      if (machine.sessions.knows(clientId) || largestExpiry <= machine.rangeTime) continue
      this.fail(
        "linearizability",
        `takes r${taken.descriptor.id} in without a session of it: a retry would take effect again`,
      )
    }
  }

  /** Whoever sends a command again may find its key in the other half. */
  private checkSessions(range: RangeId, results: number, copied: number): void {
    if (copied === results) return
    this.fail(
      "linearizability",
      `splits r${range} and gives ${copied} of ${results} results to the right half: a retry would take effect again`,
    )
  }

  /** State that was not applied here: of a start, a snapshot or a split. */
  private seen({ machine, range }: Replica): void {
    const { observer } = this.world
    observer.chainAt(this.node.id, range, machine.appliedIndex, machine.chain)
    observer.described(this.node.id, machine.descriptor, machine.appliedIndex)
  }

  /** After a turn. */
  noteRoles(loop: StoreLoop): void {
    for (const replica of loop.replicas.values()) {
      const { raft, range } = replica
      if (replica.differs !== undefined && !this.node.isDamaged) {
        this.fail("chain", `is told that r${range} differs: ${replica.differs}`)
      }
      if (raft.role !== "leader") {
        if (this.leading.size > 0) this.leading.delete(range)
        continue
      }
      this.leaders.leads(replica)
      if (this.leading.get(range) === raft.term) continue
      this.leading.set(range, raft.term)
      this.world.elected(this.node.id)
      this.world.observer.leads({
        range,
        replica: raft.id,
        term: raft.term,
        appliedIndex: replica.machine.appliedIndex,
        log: replica.log,
      })
    }
    this.noteGone(loop)
    if (this.truncated.size > 0) this.noteTruncated(loop)
    if (this.placesChanged) this.notePlaces(loop)
    this.leases.check(this.leading.keys())
  }

  /** A membership that is no longer in the log is no longer in force. */
  private noteTruncated(loop: StoreLoop): void {
    for (const range of this.truncated) {
      const replica = loop.replicas.get(range)
      // The core may be ahead of the journal: then at a later turn.
      if (replica !== undefined && replica.raft.lastIndex !== replica.log.lastIndex) continue
      this.truncated.delete(range)
      if (replica === undefined || replica.installing || replica.isEmpty) continue
      const expected = membershipInLog(replica)
      if (expected === undefined || sameMembership(expected, replica.raft.membership)) continue
      this.fail("members", `goes by a membership of r${range} that its log does not hold`)
    }
  }

  private noteGone(loop: StoreLoop): void {
    // Where none has come, one that has gone is missing from the count.
    if (!this.placesChanged && this.present.size === loop.replicas.size) return
    for (const [range, { machine, isEmpty }] of this.present) {
      if (loop.replicas.has(range)) continue
      this.present.delete(range)
      this.leading.delete(range)
      const { observer } = this.world
      if (isEmpty || observer.isTaken(range) || observer.isRemoved(range, machine.replica)) continue
      this.fail("removed", `removes replica ${machine.replica} of r${range}, which is a member`)
    }
  }

  /** Replicas on a node are disjoint, and what is committed of all ranges tiles their space. */
  private notePlaces(loop: StoreLoop): void {
    this.placesChanged = false
    const held = [...loop.replicas.values()]
      .filter((replica) => !replica.isEmpty)
      .map(({ machine }) => machine.descriptor)
    const overlapping = this.world.observer.overlapIn(held)
    if (overlapping !== undefined) this.fail("tiling", `holds two replicas of ${overlapping}`)
    this.world.observer.checkTiling()
  }

  /** What a replica has applied; `undefined` = it does not run here now. */
  appliedIndexOf(range: RangeId, replica: ReplicaId): LogIndex | undefined {
    const machine = this.present.get(range)?.machine
    return machine?.replica === replica ? machine.appliedIndex : undefined
  }

  sent(loop: StoreLoop, message: PeerMessage): void {
    if (message._tag !== "Raft") return
    const { range, message: raft } = message
    const group = { range, replica: raft.from }
    if (raft._tag === "AppendResponse" && raft.accepted) {
      const inEngine = loop.replicas.get(range)?.machine.appliedIndex ?? 0
      const entryTerm = this.world.observer.ledTerm(range, raft.term, raft.index)
      this.durability.checkAppendAcknowledged(group, raft, { inEngine, entryTerm })
    } else if (raft._tag === "AppendRequest") {
      this.world.observer.led(range, raft)
    } else if (raft._tag === "ReadIndexRequest") {
      this.world.observer.floors.asked(raft.session, raft.context, this.world.now)
    } else if (raft._tag === "HeartbeatResponse") {
      this.world.observer.echoes.said(range, raft, this.world.now)
    } else if (raft._tag === "ReadIndexResponse") {
      const { session, context, index } = raft
      const since = this.world.observer.floors.askedAt(session, context)
      this.world.observer.floors.check({ node: this.node.id, range, index, since })
      this.leaders.gaveIndex(range, raft, since)
    } else if (raft._tag === "VoteResponse" && raft.granted && !raft.preVote) {
      if (raft.from <= (this.removed.get(range) ?? 0)) {
        this.fail("removed", `votes as replica ${raft.from} of r${range}, which was removed`)
      }
      this.durability.checkVoteGranted(group, raft.term, raft.to)
      this.voted(range, raft.from, raft.term, raft.to)
    }
  }

  /** A mutation that was answered is durable on a majority of a membership that can have decided on it. */
  answered(reply: Reply): void {
    if (reply._tag !== "Mutated") return
    this.world.observer.checkNotTaken(this.node.id, reply.receipt.range)
    this.checkDurable(reply)
  }

  private checkDurable(reply: Extract<Reply, { _tag: "Mutated" }>): void {
    const { range, index } = reply.receipt
    const { world } = this
    const term = world.observer.appliedTerm(range, index)
    const places = world.observer.placesSince(range, index)
    const holders = new Set<ReplicaId>()
    for (const { node, replica } of places.flat()) {
      const holder = world.nodes.get(node) as CheckedNode
      // What damage or a wipe took later was there when it was acknowledged.
      const mayHaveLost = holder.checks.durability.mayHaveLost
      if (mayHaveLost || (term !== undefined && holder.checks.holds(range, replica, index, term))) {
        holders.add(replica)
      }
    }
    const isMajority = (role: "incoming" | "outgoing", members: (typeof places)[number]) => {
      const voters = members.filter((place) => place.role === "voter" || place.role === role)
      return 2 * voters.filter(({ replica }) => holders.has(replica)).length > voters.length
    }
    const decides = (members: (typeof places)[number]) =>
      isMajority("incoming", members) && isMajority("outgoing", members)
    // The membership that decided may be so new that nobody has applied it yet: then these holders are all that is known.
    const effective = this.present.get(range)?.raft.membership
    const byLog = (voters: ReadonlyArray<ReplicaId>) =>
      2 * voters.filter((voter) => holders.has(voter) || this.isNewlyHeld(reply, voter)).length >
      voters.length
    if (places.some(decides)) return
    if (effective !== undefined && byLog(effective.voters)) {
      if (effective.outgoing.length === 0 || byLog(effective.outgoing)) return
    }
    this.fail(
      "durability",
      `answers for entry ${index} of r${range}, durable on replicas ${[...holders]} only`,
    )
  }

  /** Whether a replica that no applied descriptor lists yet holds the entry. */
  private isNewlyHeld(reply: Extract<Reply, { _tag: "Mutated" }>, replica: ReplicaId): boolean {
    const { range, index } = reply.receipt
    const term = this.world.observer.appliedTerm(range, index)
    if (term === undefined) return false
    return [...this.world.nodes.values()].some(({ checks }) =>
      checks.holds(range, replica, index, term),
    )
  }

  /** Whether the entry is durable here, in the log or in the engine. */
  holds(range: RangeId, replica: ReplicaId, index: LogIndex, term: Term): boolean {
    return this.durability.holds({ range, replica }, index, term)
  }

  private fail(invariant: Violation["invariant"], message: string): never {
    throw new Violation(invariant, `n${this.node.id} ${message}`)
  }
}
