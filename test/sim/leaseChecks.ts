import type { Membership } from "../../src/raft/membership.ts"
import type { PeerBeats } from "../../src/server/peerBeats.ts"
import type { Replica } from "../../src/server/replica.ts"
import type { StoreSettings } from "../../src/server/settings.ts"
import type { ClockReading, StoreLoop } from "../../src/server/storeLoop.ts"
import type { MonotonicMs, NodeId, RangeId, ReplicaId, Term } from "../../src/types.ts"
import type { Echoes } from "./echoes.ts"
import { Violation } from "./violation.ts"

/** A node, as far as these checks look at it. */
interface LeaseNode {
  readonly id: NodeId
  readonly checks: { readonly leases: LeaseChecks }
  clock(): ClockReading
}

interface LeaseWorld {
  readonly observer: { readonly echoes: Echoes }
  readonly parameters: { readonly settings: Pick<StoreSettings, "leaseMs" | "voteSilenceMs"> }
  readonly nodes: ReadonlyMap<NodeId, LeaseNode>
}

/** What a core's lease was granted for. */
interface Granted {
  readonly lease: {
    readonly granted: { readonly round: number; readonly monotonicMs: MonotonicMs } | undefined
  }
}

/** Fields of a core that bind its votes. */
interface Bound {
  readonly silentUntilMs: MonotonicMs
  readonly vote: ReplicaId
}

/** The part of a loop that hears of sleeping groups. */
interface Beating {
  readonly beats: { readonly peers: ReadonlyMap<NodeId, PeerBeats> }
}

/**
 * What leases rest on (pitfall 19), judged by the clocks of all nodes at once.
 *
 * - No two nodes hold valid leases of one range at one instant.
 * - While one is valid, of every majority that could elect another leader somebody gives no vote. That the others do elect one just then, and that a client asks the
 *   old one, would be further accidents.
 * - Where a round has given it, each voter that has followed this round, or a later one, is silent: that it alone is not is a first accident of two.
 */
export class LeaseChecks {
  private readonly node: LeaseNode
  private readonly world: LeaseWorld
  private loop: StoreLoop | undefined
  /** By range led here: the last grant that was looked at, and whether an echo of its round gave it. */
  private readonly grants = new Map<
    RangeId,
    { grant: object; round: number; term: Term; byEcho: boolean }
  >()

  /** By joint membership: when it was first seen in force here. */
  private readonly jointSince = new WeakMap<Membership, MonotonicMs>()

  constructor(node: LeaseNode, world: LeaseWorld) {
    this.node = node
    this.world = world
  }

  recovered(loop: StoreLoop): void {
    this.loop = loop
  }

  stopped(): void {
    this.loop = undefined
    this.grants.clear()
  }

  /** The term of a lease of the range that is valid by this node's own clocks; 0 = there is none. */
  termOf(range: RangeId): Term {
    const raft = this.loop?.replicas.get(range)?.raft
    const { monotonicMs, wallMs } = this.node.clock()
    return raft?.leaseHolds(monotonicMs, wallMs) === true ? raft.term : 0
  }

  /** Call after a turn, with the ranges that are led here. */
  check(ranges: Iterable<RangeId>): void {
    const { world, node, loop } = this
    if (world.parameters.settings.leaseMs === 0 || loop === undefined) return
    for (const range of ranges) {
      const replica = loop.replicas.get(range)
      const round = replica === undefined ? 0 : this.echoedRound(replica)
      if (replica === undefined || this.termOf(range) === 0) continue
      this.checkSilence(replica, round)
      for (const other of world.nodes.values()) {
        if (other === node || other.checks.leases.termOf(range) === 0) continue
        this.fail(`has a lease of r${range} while n${other.id} has one`)
      }
    }
  }

  private checkSilence(replica: Replica, echoedRound: number): void {
    const { range, raft } = replica
    const { voters, outgoing } = raft.membership
    const isFree = (voter: ReplicaId) => {
      const node = this.world.nodes.get(replica.nodeOf(voter) ?? 0)
      return voter !== raft.id && node?.checks.leases.isFree(range, voter, raft.term) === true
    }
    // Without the outgoing voters nobody is elected while voters change. Those who come in count for what was granted since: of a round from before that they need not have heard.
    const sets =
      outgoing.length === 0 || this.isGrantedJoint(replica) ? [voters, outgoing] : [outgoing]
    for (const set of sets) {
      const free = set.filter(isFree)
      if (2 * free.length <= set.length) continue
      this.fail(`has a lease of r${range}, and replicas ${free} could elect another leader`)
    }
    if (echoedRound === 0) return
    const { echoes } = this.world.observer
    for (const voter of [...voters, ...outgoing]) {
      if (echoes.roundOf(range, raft.term, voter) < echoedRound || !isFree(voter)) continue
      const what = `has a lease of r${range} from round ${echoedRound}`
      this.fail(`${what}, and replica ${voter}, which has followed that, gives its vote`)
    }
  }

  /** Whether the lease counts from a reading after the group became joint, hence on echoes of both majorities. */
  private isGrantedJoint({ raft }: Replica): boolean {
    const sinceMs = this.jointSince.get(raft.membership) ?? this.node.clock().monotonicMs
    this.jointSince.set(raft.membership, sinceMs)
    return ((raft as unknown as Granted).lease.granted?.monotonicMs ?? 0) > sinceMs
  }

  /** The round whose echoes have given the lease; 0 = it came in another way (sleeping groups). */
  private echoedRound({ range, raft }: Replica): number {
    const grant = (raft as unknown as Granted).lease.granted
    if (grant === undefined) return 0
    const before = this.grants.get(range)
    if (before?.grant === grant) return before.byEcho ? before.round : 0
    const { round } = grant
    const byEcho = round > (before?.term === raft.term ? before.round : 0)
    this.grants.set(range, { grant, round, term: raft.term, byEcho })
    return byEcho ? round : 0
  }

  /** Whether a replica here may give its vote to somebody while one leads in `term`: it runs, and is not silent. */
  isFree(range: RangeId, id: ReplicaId, term: Term): boolean {
    const replica = this.loop?.replicas.get(range)
    if (replica === undefined || replica.raft.id !== id) return false
    const { raft } = replica
    const { silentUntilMs, vote } = raft as unknown as Bound
    // It may know of a later term, and be silent all the same, as long as nobody has its vote of that term.
    if (raft.term > term && (vote !== 0 || raft.leader !== undefined)) return true
    return this.node.clock().monotonicMs >= Math.max(silentUntilMs, this.silentAsleepMs(replica))
  }

  /** Until when beats that came while the replica slept keep it silent: it is told of them when it wakes. */
  private silentAsleepMs({ asleep }: Replica): MonotonicMs {
    if (asleep === undefined || asleep.leads) return 0
    const { beats } = this.loop as unknown as Beating
    const heard = asleep.pairs.map(({ node }) => beats.peers.get(node)?.equalAtMs ?? 0)
    const heardAtMs = Math.max(...heard)
    const { voteSilenceMs } = this.world.parameters.settings
    return heardAtMs >= asleep.sinceMs ? heardAtMs + voteSilenceMs : 0
  }

  private fail(message: string): never {
    throw new Violation("lease", `n${this.node.id} ${message}`)
  }
}
