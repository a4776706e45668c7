import { assert } from "../lib/assert.ts"
import type { Message } from "../raft/message.ts"
import type { MonotonicMs, NodeId, RangeDescriptor, RangeId, ReplicaId, Term } from "../types.ts"
import { firstTerm } from "./apply.ts"
import { Burials } from "./burials.ts"
import { lists } from "./descriptors.ts"
import { dataEnd, dataKey } from "./engineKeys.ts"
import { HeldMessages } from "./heldMessages.ts"
import type { MergingMachine } from "./merge/mergingMachine.ts"
import type { Gone, PeerMessage } from "./peerMessage.ts"
import type { Replica } from "./replica.ts"
import type { ReplicaSet } from "./replicaSet.ts"
import type { Storage } from "./storage.ts"
import type { ClockReading } from "./storeLoop.ts"
import { type AbsorbedBy, united } from "./tombstone.ts"

/** What this room needs of the loop. */
export interface LifeHost {
  readonly node: NodeId
  readonly storage: Storage
  readonly set: ReplicaSet
  readonly clock: ClockReading
  send(to: NodeId, message: PeerMessage): void
  /** Gives a message that was held to the loop again. */
  stepAgain(from: NodeId, message: PeerMessage): void
  /** Takes what a replica's core has to hand out. */
  collectAll(replica: Replica): void
  /** A descriptor changed, or came to be. */
  learn(descriptor: RangeDescriptor): void
  /** The replica goes away: everything that waits on it is answered. */
  abandon(replica: Replica): void
  /** The same, where another range has taken in all of it: nothing that waits has had an effect. */
  giveUp(replica: Replica): void
  /** It misses entries that it cannot hope for any more. */
  isHopeless(replica: Replica): boolean
}

/** Why a replica is to go. */
interface Proof {
  readonly descriptor: RangeDescriptor
  readonly lastReplica: ReplicaId
  readonly absorbedBy: AbsorbedBy | undefined
}

interface Condemned extends Proof {
  readonly sinceMs: MonotonicMs
}

/** What a replica of a range that is gone may take to replay a split. */
const replayMs = 5000
/** Empty replicas at a time: more are made when some of these have had their snapshot. */
const emptyMax = 64
/** A follower that has heard nobody for so long asks the others whether it is still one of them. */
const lonelyMs = 3000
/** One without data that has asked so long in vain rests. */
const forgottenMs = 10_000
/** A leader that has not been heard for so long does not stand in another one's way. */
const silentMs = 1000

/**
 * Ranges that come, change and go on this node: what becomes of a replica when a split or a change of members is applied, of messages for replicas that are
 * not here, and of a replica that others have removed.
 *
 * - A message for a range that a local replica may still split off is held. An empty replica is made only on the word of a leader, or of a candidate that
 *   needs its vote, and never under an id that was buried here.
 * - A replica goes on the proof of a committed descriptor that does not list it, though ids up to a later one were given out: ids rise and are never used
 *   again, so this stays true for ever, and no late message can kill a new replica.
 * - Who proposed a split and leads still leads the child's first term, without an election (raft/candidate.ts); any other leader of the parent seeks votes for it.
 * - Who is removed is told by the leader that removed it, and by whoever gets a message from it later. One that hears nobody asks all members that it has heard of;
 *   those of them that have left say who was there after them.
 * - A replica without data needs no proof to be out of the way: it rests (`ReplicaSet.rest`), which to the others is as if its node were down.
 */
export class RangeLife {
  private readonly host: LifeHost
  private readonly held = new HeldMessages()
  private readonly burials: Burials
  /** To be buried as soon as they are at rest: they may still lead, or have a snapshot on its way into the engine. */
  private readonly condemned = new Map<Replica, Condemned>()

  constructor(host: LifeHost) {
    this.host = host
    this.burials = new Burials(host.storage, host.set)
  }

  // ---- After an entry was applied

  /** The machine has applied a split or a change of members. `before` is its descriptor before that. */
  changed(replica: Replica, before: RangeDescriptor): void {
    const { machine } = replica
    if (machine.taken !== undefined) this.takenIn(machine, machine.taken)
    this.host.learn(machine.descriptor)
    if (machine.changed === "split") this.hasSplit(replica, before)
    else if (machine.changed === "members") this.membersChanged(replica, before)
  }

  private hasSplit(parent: Replica, before: RangeDescriptor): void {
    const { host } = this
    const { child, descriptor } = parent.machine
    if (child === undefined) {
      // Its state is from before it was a member: it has no right to the other half.
      const [lower, upper] = [dataKey(descriptor.end), dataEnd(before.end)]
      return host.storage.engine.deleteRange(lower, upper)
    }
    host.learn(child.descriptor)
    // Followers split when they know the entry to be committed, and until then nobody can vote for the child.
    parent.raft.broadcastCommit()
    const { monotonicMs } = host.clock
    const collect = (replica: Replica) => host.collectAll(replica)
    const born = host.set.splitOff(child, monotonicMs, collect)
    if (born === undefined) return
    for (const { from, message } of this.held.take(born.range)) host.stepAgain(from, message)
    if (!parent.isLeader) return
    if (!this.hasProposed(parent) || !born.raft.leadFirst(firstTerm, monotonicMs)) {
      born.raft.hasten(monotonicMs)
    }
  }

  /** The range has taken in another one, which is no more: one step with the change of the state that took it, as both are sealed together. */
  private takenIn(taker: MergingMachine, taken: MergingMachine): void {
    const { host } = this
    const source = host.set.byRange.get(taken.descriptor.id)
    const last = taker.absorbed[taker.absorbed.length - 1]
    assert(source !== undefined && last?.source.id === source.range, "what was taken in is here")
    this.condemned.delete(source)
    host.set.takenIn(source)
    // Those who wait are told where their keys are now.
    host.learn(taker.descriptor)
    host.giveUp(source)
    host.storage.absorb(last, () => source.log.destroy())
  }

  /** Who proposed the entry that was applied last and leads in that term still: one replica at most can find that of itself, and once. */
  private hasProposed({ machine, raft, isLeader }: Replica): boolean {
    return isLeader && machine.appliedTerm === raft.term
  }

  private membersChanged(replica: Replica, before: RangeDescriptor): void {
    const { descriptor, lastReplica } = replica.machine
    replica.learnPlaces(descriptor.replicas)
    const { raft } = replica
    raft.broadcastCommit()
    for (const place of before.replicas) {
      if (lists(descriptor, place.replica)) continue
      if (place.replica === replica.machine.replica)
        this.condemn(replica, { descriptor, lastReplica, absorbedBy: undefined })
      else if (replica.isLeader)
        this.tellGone(place.node, place.replica, {
          descriptor,
          lastReplica,
          absorbedBy: undefined,
        })
    }
  }

  // ---- Messages for who is not here

  /** A replica that the others have removed writes: it is told, and its message goes no further. */
  refuses(replica: Replica, from: NodeId, sender: ReplicaId): boolean {
    const { descriptor, lastReplica } = replica.machine
    if (sender > lastReplica || lists(descriptor, sender)) return false
    this.tellGone(from, sender, { descriptor, lastReplica, absorbedBy: undefined })
    return true
  }

  private tellGone(to: NodeId, replica: ReplicaId, proof: Proof): void {
    const { id: range } = proof.descriptor
    const { descriptor, lastReplica, absorbedBy } = proof
    this.host.send(to, { _tag: "Gone", range, replica, lastReplica, descriptor, absorbedBy })
  }

  /**
   * A message for a replica that is not here. Returns the one that it is for, if that was made now. `isDropped` is told of what comes to nothing.
   */
  unknown(
    from: NodeId,
    message: PeerMessage,
    ids: { readonly from: ReplicaId; readonly to: ReplicaId },
  ): Replica | "held" | undefined {
    const { host } = this
    const { range } = message
    if (host.set.isBuried(range, ids.to)) {
      this.answerForTheDead(from, range, ids.from)
      return undefined
    }
    const nowMs = host.clock.monotonicMs
    const leaders = message._tag === "Raft" && isLeaders(message.message) && message.message
    const present = host.set.byRange.get(range)
    if (present !== undefined) {
      if (leaders === false || !this.makesRoom(present, leaders.term)) return undefined
    }
    if (host.set.dying.has(range)) return undefined
    if (host.set.maySplitOff(range, ids.to)) {
      const outcome = this.held.hold(from, message, nowMs)
      if (outcome !== "expired") return outcome === "held" ? "held" : undefined
    }
    // A voter without data may be the one whose vote lets a leader be that sends it some.
    const isAsked =
      leaders !== false || (message._tag === "Raft" && message.message._tag === "VoteRequest")
    if (!isAsked) return undefined
    host.set.giveUpAwaited(range, (replica) => host.isHopeless(replica))
    if (!host.set.mayCreate(range, ids.to)) return undefined
    if (host.set.sorted.filter((replica) => replica.isEmpty).length >= emptyMax) return undefined
    return host.set.createEmpty(range, ids.to, nowMs)
  }

  /**
   * A leader wants another replica of the range here, and a node has one at a time. One without data makes room if its own leader is of an earlier term, or
   * silent: of two memberships that each wanted one here, one at most is ever committed, and who leads last knows best. It rests until somebody asks for it
   * again, so a leader whose word came to nothing does no harm. One with data waits to be told.
   */
  private makesRoom(present: Replica, term: Term): boolean {
    if (!present.isEmpty || present.installing || this.condemned.has(present)) return false
    const isSilent = this.host.clock.monotonicMs - present.heardAtMs >= silentMs
    if (term <= present.raft.term && !isSilent) return false
    if (!this.host.set.mayRest(present.range)) return false
    this.rest(present)
    return true
  }

  private rest(replica: Replica): void {
    this.host.abandon(replica)
    this.host.set.rest(replica)
  }

  /** Also who is left of a group that has moved away as a whole is told by somebody: that it is gone, or who was there after the dead. */
  private answerForTheDead(from: NodeId, range: RangeId, sender: ReplicaId): void {
    const tombstone = this.host.storage.tombstones.get(range)
    if (tombstone === undefined || sender > tombstone.lastReplica) return
    this.tellGone(from, sender, tombstone)
  }

  // ---- Going

  /** Somebody says that a replica of this node was removed. */
  gone(from: NodeId, message: Gone): void {
    const replica = this.host.set.byRange.get(message.range)
    if (replica === undefined || replica.machine.replica !== message.replica) return
    if (message.replica > message.lastReplica) return
    const { descriptor, absorbedBy } = message
    if (absorbedBy !== undefined) {
      replica.takenOn.add(from)
      return this.absorbedElsewhere(replica, message, absorbedBy)
    }
    if (lists(descriptor, message.replica)) {
      // Of one that was removed before: others may know more, and are asked from here on.
      return replica.learnPlaces(descriptor.replicas)
    }
    this.host.learn(descriptor)
    // The others have gone on without it: what it leads is nobody's.
    replica.raft.stepDown()
    this.condemn(replica, message)
  }

  /** The whole range is gone. What is here is needed as long as the range that took it in has still to do so here. */
  private absorbedElsewhere(replica: Replica, proof: Proof, absorbedBy: AbsorbedBy): void {
    if (!replica.isEmpty && this.host.set.isYetToTake(absorbedBy)) return
    replica.raft.stepDown()
    this.condemn(replica, proof)
  }

  private condemn(replica: Replica, { descriptor, lastReplica, absorbedBy }: Proof): void {
    if (this.condemned.has(replica)) return
    const { monotonicMs: sinceMs } = this.host.clock
    this.condemned.set(replica, { descriptor, lastReplica, absorbedBy, sinceMs })
  }

  /** It goes in another way. */
  spare(replica: Replica): void {
    this.condemned.delete(replica)
  }

  /** Call once a turn, outside of applying. */
  advance(): void {
    for (const [replica, proof] of this.condemned) {
      // A leader that has removed itself goes on until the core says that everyone can do without it.
      if (replica.installing || replica.isLeader || this.mayReplay(replica, proof)) continue
      this.condemned.delete(replica)
      this.host.abandon(replica)
      const known = this.host.storage.tombstones.get(replica.range)
      const upTo = proof.absorbedBy === undefined ? replica.machine.replica : proof.lastReplica
      const { descriptor, lastReplica, absorbedBy } = proof
      const added = { replica: upTo, descriptor, lastReplica, absorbedBy }
      const tombstone = united(known, added)
      this.burials.begin(replica, tombstone)
    }
    this.burials.advance()
  }

  /**
   * It has a split to replay, whose child's log would be lost with it. Where its whole group is gone there is nobody left who could give it what it lacks for that: it
   * has some time, and then the child's log is given up.
   */
  private mayReplay(replica: Replica, { absorbedBy, sinceMs }: Condemned): boolean {
    const { set, clock } = this.host
    if (!set.replays(replica.range)) return false
    if (absorbedBy === undefined || clock.monotonicMs - sinceMs < replayMs) return true
    set.giveUpChildren(replica.range, (other) => other === replica || this.host.isHopeless(other))
    return set.replays(replica.range)
  }

  /** Call at every tick. */
  tick(): void {
    const nowMs = this.host.clock.monotonicMs
    this.held.tick(nowMs)
    for (const replica of this.host.set.awake) {
      if (replica.isLeader) continue
      if (replica.heardAtMs === 0) replica.heardAtMs = nowMs - lonelyMs
      if (nowMs - Math.max(replica.heardAtMs, replica.askedAtMs) < lonelyMs) continue
      const isForgotten = nowMs - replica.heardAtMs >= forgottenMs
      if (isForgotten && this.mayGoToRest(replica)) this.rest(replica)
      else this.askOthers(replica, nowMs)
    }
  }

  /** Nobody answers a replica without data: its membership came to nothing, or who could tell is gone. */
  private mayGoToRest(replica: Replica): boolean {
    return replica.isEmpty && !replica.installing && !this.condemned.has(replica)
  }

  /** An answer to nothing, which a core ignores, but which tells a removed replica's others that it is there. */
  private askOthers(replica: Replica, nowMs: MonotonicMs): void {
    replica.askedAtMs = nowMs
    const from = replica.machine.replica
    for (const [to, node] of replica.knownNodes()) {
      if (to === from) continue
      const echo = { _tag: "HeartbeatResponse", term: 0, round: 0, full: false } as const
      const message: Message = { ...echo, from, to }
      this.host.send(node, { _tag: "Raft", range: replica.range, message })
    }
  }
}

function isLeaders(message: Message): boolean {
  return message._tag === "AppendRequest" || message._tag === "Heartbeat"
}
