/**
 * Sleep of idle groups, and the beats of nodes that stand in for theirs (DESIGN section 3, "Hibernation").
 *
 * The idea. A group in which every voter and learner has the whole log and knows that all of it is committed has nothing to say but "I still lead", sixteen times
 * a second. So its leader lets it sleep, and the nodes beat instead: one message a pair of nodes says so for all groups that sleep there. Sleeping replicas are not
 * ticked, not visited by turns, and send nothing.
 *
 * The flow.
 * 1. A leader whose group has been quiet for `sleepTicks` names it in the next beat to each node of the group, with term and last index, and counts it into the sum for
 *    that node. The follower falls asleep with it if it is in that very state.
 * 2. Whoever gets a beat compares the sum with that of its own present state, and echoes which it was. Equal sums say that both hold the same groups, in the same terms,
 *    between the same replicas: to the follower, that it has heard its leader; to the leader, that it was heard. So one comparison confirms all of them.
 * 3. Different sums: the follower's node sends the list of its own, a page at a time. The leader wakes those that are not in it, and has those woken that sleep there and not
 *    here. It goes on as if nobody had slept.
 * 4. Any request that the state alone does not answer, and any message of consensus, wakes a replica before it is looked at; a leader that wakes beats at once, which wakes its followers. No election is held.
 * 5. A node that is silent, or does not agree, for an election timeout, wakes what slept on its word, some at a time.
 *
 * What was heard while it slept is told to the core when it wakes: the vote silence of a follower counts from the last beat that was equal, a leader's lease from the
 * *sending* of the last round that a majority of voters found equal.
 *
 * Invariants:
 * - an echo says what the receiver's state was when the beat came in, and counts for a group only if that slept here before the round was sent and has slept since
 *   (`round` of `Asleep`): an echo from before it fell asleep, or from before a sleep that has ended, confirms nothing (RELIABILITY section 3);
 * - what a sum says of a replica never changes while it sleeps: whatever would change it wakes it first, so that its pairs are in the sums exactly while it sleeps;
 * - waking is always right, and costs a beat: a lost, late or doubled message of this room can do no more than that.
 *
 * Limits: `pairsMax` groups fall asleep with one beat, and are in one page; `wakesPerTick` wake at once for a silent node.
 *
 * Left out: the clocks that nodes tell each other travel by themselves (clockGuard.ts), and groups that are awake beat one by one.
 */
import type { ClockMark } from "../raft/leader.ts"
import type { Meanwhile } from "../raft/raftNode.ts"
import type { MonotonicMs, NodeId, ReplicaId } from "../types.ts"
import {
  type Beat,
  type BeatEcho,
  pairsMax,
  type Rouse,
  type SleepingPair,
} from "./beatMessages.ts"
import { PeerBeats } from "./peerBeats.ts"
import type { PeerMessage } from "./peerMessage.ts"
import type { Replica } from "./replica.ts"
import type { ReplicaSet } from "./replicaSet.ts"
import type { StoreSettings } from "./settings.ts"

/** What this room needs of the loop. */
export interface BeatHost {
  readonly clock: ClockMark
  readonly settings: Pick<
    StoreSettings,
    "sleepTicks" | "heartbeatTicks" | "electionTicksMin" | "tickMs"
  >
  readonly set: ReplicaSet
  /** Drawn once in the life of this loop. */
  readonly session: number
  /** Something is under way that the replica itself does not show: a change of the range, a snapshot. */
  isBusy(replica: Replica): boolean
  send(to: NodeId, message: PeerMessage): void
}

/** Why a replica is not ticked. */
export interface Asleep {
  readonly leads: boolean
  readonly sinceMs: MonotonicMs
  /** Of a leader: the first round that counts for the group. */
  readonly round: number
  /** With the other members of the group, if it leads; with its leader, if it follows. */
  readonly pairs: ReadonlyArray<{ readonly node: NodeId; readonly pair: SleepingPair }>
}

/** Woken at one tick, when a node falls silent: elections of many groups at one moment help nobody. */
const wakesPerTick = 64

export class Beats {
  private readonly host: BeatHost
  private readonly peers = new Map<NodeId, PeerBeats>()
  private readonly sleepers = new Set<Replica>()
  private round = 0
  private ticks = 0

  constructor(host: BeatHost) {
    this.host = host
  }

  /** Replicas that sleep here. */
  get asleepCount(): number {
    return this.sleepers.size
  }

  // ---- Time

  /** Call at every tick. */
  tick(): void {
    const { settings, set } = this.host
    if (settings.sleepTicks === 0) return
    for (const replica of set.awake) replica.quietTicks++
    this.wakeForSilence()
    this.lull()
    if (++this.ticks % settings.heartbeatTicks === 0) this.beat()
  }

  private beat(): void {
    this.round++
    const { clock, session } = this.host
    for (const [node, peer] of this.peers) {
      if (peer.led.count === 0) continue
      const { announced: asleep } = peer
      peer.announced = []
      peer.sent(this.round, clock)
      const sum = peer.led.take()
      this.host.send(node, { _tag: "Beat", range: 0, session, round: this.round, sum, asleep })
    }
  }

  private wakeForSilence(): void {
    const { settings, clock } = this.host
    const limitMs = settings.electionTicksMin * settings.tickMs
    const { monotonicMs } = clock
    const [deaf, mute] = [new Set<NodeId>(), new Set<NodeId>()]
    for (const [node, peer] of this.peers) {
      if (peer.isDeaf(monotonicMs, limitMs)) deaf.add(node)
      if (peer.isMute(monotonicMs, limitMs)) mute.add(node)
    }
    if (deaf.size === 0 && mute.size === 0) return
    let left = wakesPerTick
    for (const replica of this.sleepers) {
      if (left === 0) return
      const { asleep } = replica
      const silent = asleep?.leads === true ? deaf : mute
      if (asleep?.pairs.some(({ node }) => silent.has(node)) !== true) continue
      this.rouse(replica)
      left--
    }
  }

  // ---- Falling asleep

  /** Leaders of groups that have been quiet for long. */
  private lull(): void {
    // No more than fit into a beat, with what waits for it already.
    let left =
      pairsMax - Math.max(0, ...[...this.peers.values()].map(({ announced }) => announced.length))
    for (const replica of this.host.set.awake) {
      if (left <= 0) return
      if (!replica.isLeader || replica.quietTicks < this.host.settings.sleepTicks) continue
      if (!replica.raft.maySleep || !isQuiet(replica) || this.host.isBusy(replica)) continue
      const pairs = pairsOf(replica)
      if (pairs === undefined) continue
      const { monotonicMs: sinceMs } = this.host.clock
      this.fallAsleep(replica, { leads: true, sinceMs, round: this.round + 1, pairs })
      for (const { node, pair } of pairs) this.peerOf(node).announced.push(pair)
      left--
    }
  }

  private fallAsleep(replica: Replica, asleep: Asleep): void {
    this.host.set.fallAsleep(replica, asleep)
    this.sleepers.add(replica)
    for (const { node, pair } of asleep.pairs) {
      const peer = this.peerOf(node)
      const sum = asleep.leads ? peer.led : peer.followed
      if (sum.count === 0) {
        if (asleep.leads) peer.ledSinceMs = asleep.sinceMs
        else peer.followedSinceMs = asleep.sinceMs
      }
      sum.add(pair)
    }
  }

  private follow(from: NodeId, pair: SleepingPair): void {
    const { range, leader, follower, term, index } = pair
    const replica = this.host.set.byRange.get(range)
    if (replica === undefined || replica.machine.replica !== follower) return
    if (replica.asleep !== undefined || replica.nodeOf(leader) !== from) return
    if (!replica.raft.maySleepUnder(leader, term, index) || !isQuiet(replica)) return
    if (this.host.isBusy(replica)) return
    const { monotonicMs: sinceMs } = this.host.clock
    this.fallAsleep(replica, { leads: false, sinceMs, round: 0, pairs: [{ node: from, pair }] })
  }

  // ---- Waking

  /** Something is about to happen to the replica. Right at any time; a replica that is awake is merely not quiet any more. */
  rouse(replica: Replica): void {
    replica.quietTicks = 0
    const { asleep } = replica
    if (asleep === undefined) return
    const { clock, set } = this.host
    set.wake(replica)
    this.sleepers.delete(replica)
    for (const { node, pair } of asleep.pairs) {
      const peer = this.peerOf(node)
      if (asleep.leads) {
        peer.led.remove(pair)
        peer.announced = peer.announced.filter((each) => each !== pair)
      } else peer.followed.remove(pair)
    }
    replica.heardAtMs = clock.monotonicMs
    replica.raft.observeClocks(clock.monotonicMs, clock.wallMs)
    replica.raft.wake(clock.monotonicMs, this.meanwhile(replica, asleep))
  }

  /** What was heard for a replica while it slept. */
  private meanwhile(replica: Replica, asleep: Asleep): Meanwhile {
    if (!asleep.leads) {
      const heardAtMs = Math.max(...asleep.pairs.map(({ node }) => this.peerOf(node).equalAtMs))
      const leaderHeardAtMs = heardAtMs >= asleep.sinceMs ? heardAtMs : undefined
      return { leaderHeardAtMs, heard: [], confirmed: undefined }
    }
    const marks = new Map<ReplicaId, ClockMark>([[replica.machine.replica, this.host.clock]])
    for (const { node, pair } of asleep.pairs) {
      const { equalRound, equalMark } = this.peerOf(node)
      if (equalMark !== undefined && this.countsFor(asleep, equalRound)) {
        marks.set(pair.follower, equalMark)
      }
    }
    const { voters } = replica.raft.membership
    const counted = voters.flatMap((voter) => marks.get(voter) ?? [])
    counted.sort((left, right) => right.monotonicMs - left.monotonicMs)
    const confirmed = counted[Math.floor(voters.length / 2)]
    return { leaderHeardAtMs: undefined, heard: [...marks.keys()], confirmed }
  }

  /** An echo of that round was made when the group slept on both sides. */
  protected countsFor(asleep: Asleep, round: number): boolean {
    return round >= asleep.round
  }

  // ---- Messages

  /** The beat of a node that leads groups which sleep here. */
  beaten(from: NodeId, { session, round, sum, asleep }: Beat): void {
    for (const pair of asleep) this.follow(from, pair)
    const peer = this.peerOf(from)
    const equal = peer.followed.equals(sum)
    if (equal) peer.equalAtMs = this.host.clock.monotonicMs
    const page = equal ? { after: 0, upTo: 0, held: [] } : this.pageOf(from, peer)
    this.host.send(from, { _tag: "BeatEcho", range: 0, session, round, equal, ...page })
  }

  private pageOf(from: NodeId, peer: PeerBeats): Pick<BeatEcho, "after" | "upTo" | "held"> {
    const after = peer.cursor
    const rest: Array<SleepingPair> = []
    for (const { asleep } of this.sleepers) {
      const place = asleep?.pairs[0]
      if (asleep?.leads !== false || place?.node !== from) continue
      if (place.pair.range > after || after === 0) rest.push(place.pair)
    }
    rest.sort((left, right) => left.range - right.range)
    const held = rest.slice(0, pairsMax)
    const isLast = held.length === rest.length
    const upTo = isLast ? Number.MAX_SAFE_INTEGER : (held.at(-1) as SleepingPair).range
    peer.cursor = isLast ? 0 : upTo
    return { after, upTo, held }
  }

  /** What a node found when it compared a beat of this one with its own state. */
  echoed(from: NodeId, echo: BeatEcho): void {
    if (echo.session !== this.host.session) return
    const peer = this.peerOf(from)
    if (echo.equal) return peer.confirmed(echo.round)
    const held = new Map(echo.held.map((pair) => [pair.range, pair]))
    for (const replica of this.sleepers) {
      const { asleep } = replica
      if (asleep?.leads !== true || asleep.round > echo.round) continue
      const place = asleep.pairs.find(({ node }) => node === from)
      if (place === undefined) continue
      const { range } = place.pair
      const isInPage = (range > echo.after || echo.after === 0) && range <= echo.upTo
      if (isInPage && !isSame(held.get(range), place.pair)) this.rouse(replica)
    }
    const pairs = echo.held.filter((pair) => !this.leadsAsleep(from, pair))
    if (pairs.length > 0) this.host.send(from, { _tag: "Rouse", range: 0, pairs })
  }

  private leadsAsleep(follower: NodeId, pair: SleepingPair): boolean {
    const { asleep } = this.host.set.byRange.get(pair.range) ?? {}
    if (asleep?.leads !== true) return false
    return asleep.pairs.some((place) => place.node === follower && isSame(place.pair, pair))
  }

  /** A node does not lead these groups, or not asleep. */
  roused(from: NodeId, { pairs }: Rouse): void {
    for (const pair of pairs) {
      const replica = this.host.set.byRange.get(pair.range)
      const place = replica?.asleep?.leads === false ? replica.asleep.pairs[0] : undefined
      if (replica === undefined || place?.node !== from) continue
      if (isSame(place.pair, pair)) this.rouse(replica)
    }
  }

  private peerOf(node: NodeId): PeerBeats {
    let peer = this.peers.get(node)
    if (peer === undefined) {
      peer = new PeerBeats()
      this.peers.set(node, peer)
    }
    return peer
  }
}

/** Nothing waits, nothing is on its way, nothing is wrong. */
function isQuiet(replica: Replica): boolean {
  const { machine, raft, log } = replica
  return (
    replica.waiting === 0 &&
    !replica.isEmpty &&
    !replica.installing &&
    replica.damage === undefined &&
    replica.differs === undefined &&
    machine.appliedIndex === raft.lastIndex &&
    log.lastIndex === raft.lastIndex &&
    log.voteFloor === undefined &&
    log.missingCount === 0
  )
}

/** With each other member of its group; `undefined` while it is not known where one of them lives. */
function pairsOf(replica: Replica): Asleep["pairs"] | undefined {
  const { raft, machine, range } = replica
  const { replica: leader } = machine
  const { term, lastIndex: index } = raft
  const pairs: Array<Asleep["pairs"][number]> = []
  for (const { replica: follower } of raft.progress()) {
    if (follower === leader) continue
    const node = replica.nodeOf(follower)
    if (node === undefined) return undefined
    pairs.push({ node, pair: { range, leader, follower, term, index } })
  }
  return pairs
}

function isSame(left: SleepingPair | undefined, right: SleepingPair): boolean {
  return (
    left !== undefined &&
    left.range === right.range &&
    left.leader === right.leader &&
    left.follower === right.follower &&
    left.term === right.term &&
    left.index === right.index
  )
}
