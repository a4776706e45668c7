import { assert } from "../../src/lib/assert.ts"
import { Prng } from "../../src/lib/prng.ts"
import { describeRole } from "../../src/raft/describe.ts"
import { isJoint } from "../../src/raft/membership.ts"
import type { Message } from "../../src/raft/message.ts"
import type { RaftNode, RaftOptions } from "../../src/raft/raftNode.ts"
import { TestCluster } from "./cluster.ts"
import { ClusterChecks, must, type RunStatistics } from "./clusterChecks.ts"
import { LeaseNemesis } from "./leaseNemesis.ts"
import { isMember } from "./members.ts"
import { drawRates, drawSettings, drawSize, leaseSettings } from "./swarm.ts"
import type { TestReplica } from "./testReplica.ts"

/** Messages kept to be sent once more, much later. */
const historyLength = 200

/** One cluster under random faults, with everything checked after every action. */
export class RandomCluster {
  readonly cluster: TestCluster
  readonly statistics: RunStatistics
  readonly checks: ClusterChecks
  private readonly hasLeases: boolean
  private readonly prng: Prng
  private readonly rates: ReadonlyArray<readonly [string, number]>
  private readonly totalRate: number
  private readonly history: Array<Message> = []
  private readonly nemesis: LeaseNemesis
  private proposals = 0
  private sent = 0

  constructor(seed: number, Node?: new (options: RaftOptions) => RaftNode) {
    this.prng = new Prng(seed)
    this.hasLeases = this.prng.chance(0.4)
    const settings = { ...drawSettings(this.prng), ...(this.hasLeases ? leaseSettings : {}) }
    const rates = { ...drawRates(this.prng) }
    if (this.hasLeases) {
      rates.tick = this.prng.logUniform(10, 200)
      rates.strike = this.prng.logUniform(0.1, 5)
    }
    this.rates = Object.entries(rates)
    this.totalRate = this.rates.reduce((sum, [, rate]) => sum + rate, 0)
    this.cluster = new TestCluster({
      ...drawSize(this.prng),
      seed: this.prng.uint32(),
      settings,
      ...(Node === undefined ? {} : { Node }),
    })
    for (const replica of this.cluster.replicas) {
      replica.writesVisibleAtOnce = this.prng.chance(0.5)
      if (this.hasLeases) replica.clockRate = 0.95 + 0.1 * this.prng.float()
    }
    this.checks = new ClusterChecks(this.cluster)
    this.statistics = this.checks.statistics
    this.cluster.onApply = (replica, entry) => this.checks.checkApply(replica, entry)
    this.cluster.onChange = (replica) => this.checks.checkLeader(replica)
    this.nemesis = new LeaseNemesis(this.cluster, this.prng, () => this.checks.checkLeases())
    this.cluster.onSend = (message) => {
      this.nemesis.sent(message)
      if (message._tag === "Heartbeat" || message._tag === "HeartbeatResponse") return
      this.history[this.sent++ % historyLength] = message
    }
  }

  // Actions

  private drawAction(): string {
    let at = this.prng.float() * this.totalRate
    for (const [action, rate] of this.rates) {
      at -= rate
      if (at < 0) return action
    }
    return "deliver"
  }

  private anyReplica(): TestReplica {
    return this.prng.pick(this.cluster.replicas)
  }

  private upReplica(): TestReplica | undefined {
    const up = this.cluster.replicas.filter((replica) => replica.up)
    return up.length === 0 ? undefined : this.prng.pick(up)
  }

  step(): void {
    this.act(this.drawAction())
    for (const replica of this.cluster.replicas) {
      this.forwardSnapshots(replica)
      this.checks.checkReads(replica)
      if (!replica.up || replica.node.role !== "leader") continue
      this.checks.checkQuorum(replica)
      this.checks.checkMemberships(replica)
    }
    if (this.hasLeases) this.checks.checkLeases()
  }

  private act(action: string): void {
    const { cluster, prng } = this
    const { network } = cluster
    switch (action) {
      case "deliver":
        if (network.length > 0) cluster.deliver()
        return
      case "burst":
        for (let i = prng.int(1, 30); i > 0 && network.length > 0; i--) cluster.deliver()
        return
      case "deliverAny":
        if (network.length > 0) cluster.deliver(prng.int(0, network.length - 1))
        return
      case "drop":
        if (network.length > 0) network.splice(prng.int(0, network.length - 1), 1)
        return
      case "duplicate":
        if (network.length > 0) network.push(prng.pick(network))
        return
      case "replayOld":
        if (this.history.length > 0) network.push(prng.pick(this.history))
        return
      case "tick":
        if (this.hasLeases) cluster.passTime(prng.int(1, 30))
        else cluster.tick(this.anyReplica().id)
        return
      case "strike":
        this.nemesis.strike()
        return
      case "sleep":
        this.anyReplica().sleepMs = prng.int(1, 400)
        return
      case "wallJump":
        this.anyReplica().wallAheadMs += prng.int(-1000, 1000)
        return
      case "heal":
        cluster.heal()
        return
      case "isolate":
        cluster.isolate(this.anyReplica().id)
        return
      case "cutOneWay":
        cluster.cut.add(`${this.anyReplica().id}>${this.anyReplica().id}`)
        return
      default:
        this.actOn(action, this.upReplica())
    }
  }

  private actOn(action: string, replica: TestReplica | undefined): void {
    if (action === "restart") {
      const down = this.cluster.replicas.filter(({ up }) => !up)
      if (down.length > 0) this.restart(this.prng.pick(down))
      return
    }
    if (replica === undefined) return
    const { id } = replica
    switch (action) {
      case "propose":
        this.proposeSomewhere()
        return
      case "read":
        for (const node of this.cluster.leaders) this.readAt(node)
        return
      case "followerRead":
        this.readAt(replica.node)
        return
      case "transfer":
        for (const node of this.cluster.leaders) {
          const to = this.anyReplica().id
          if (this.cluster.transfer(node.id, to)) this.statistics.transfers++
        }
        return
      case "change":
        for (const node of this.cluster.leaders) this.change(node)
        return
      case "crash":
        this.crash(replica)
        return
      case "hold":
        replica.holdsWrites = true
        return
      case "persist":
        if (replica.persist()) replica.settle()
        else replica.holdsWrites = false
        return
      case "compact":
        this.compact(replica)
        return
      case "election":
        if (this.cluster.settings.voteSilenceMs === 0) this.elect(replica)
        return
      case "campaign":
        if (this.cluster.settings.voteSilenceMs === 0) this.cluster.campaign(id)
        return
      case "unreachable":
        replica.node.reportUnreachable(this.prng.pick(this.cluster.ids))
        replica.settle()
        return
      default:
        throw new Error(`no action ${action}`)
    }
  }

  /** A campaign whose votes all arrive, so that terms pass quickly. */
  private elect(replica: TestReplica): void {
    const { network } = this.cluster
    this.cluster.campaign(replica.id)
    const isVote = ({ _tag }: Message) => _tag === "VoteRequest" || _tag === "VoteResponse"
    for (let at = network.findIndex(isVote); at >= 0; at = network.findIndex(isVote)) {
      this.cluster.deliver(at)
    }
  }

  private proposeSomewhere(): void {
    const count = this.prng.int(1, 3)
    for (const node of this.cluster.leaders) {
      for (let i = 0; i < count; i++) {
        node.propose(new TextEncoder().encode(`p${++this.proposals}`))
      }
      this.cluster.replica(node.id).settle()
    }
  }

  private readAt(node: RaftNode): void {
    const context = this.checks.readAsked()
    const accepted = this.cluster.read(node.id, context, this.prng.chance(0.3))
    assert(accepted || node.role !== "leader", "a leader refuses a read")
  }

  /** Asks for other voters, out of those and the learners, and other learners. */
  private change(node: RaftNode): void {
    const { prng } = this
    const { voters, learners } = node.membership
    const wanted = [...voters, ...learners].filter((id) =>
      voters.includes(id) ? prng.chance(0.7) : prng.chance(0.5),
    )
    const next = wanted.length === 0 || prng.chance(0.4) ? voters : wanted
    const others = this.cluster.ids.filter((id) => !next.includes(id) && prng.chance(0.6))
    this.cluster.change(node.id, next, others)
  }

  private crash(replica: TestReplica): void {
    const oldest = replica.durableLog.firstIndex - 1
    replica.crash(this.prng.int(oldest, replica.applied.length))
    this.statistics.crashes++
  }

  private restart(replica: TestReplica): void {
    replica.restart()
    replica.settle()
  }

  private compact(replica: TestReplica): void {
    const { firstIndex } = replica.durableLog
    if (replica.applied.length < firstIndex) return
    const index = this.prng.int(firstIndex, replica.applied.length)
    replica.durableLog.release(index)
    replica.visibleLog.release(index)
  }

  /** Each wanted snapshot is sent, and may be lost on the way like anything else. */
  private forwardSnapshots(replica: TestReplica): void {
    if (replica.wanted.length === 0) return
    const targets = replica.wanted.splice(0)
    for (const target of targets) {
      if (!replica.up || replica.node.role !== "leader") continue
      const failed = this.prng.chance(0.2)
      const index = replica.node.appliedIndex
      if (!failed) this.cluster.sendSnapshot(replica.id, target)
      replica.node.snapshotSent(target, failed ? "failed" : "installed", index)
      replica.settle()
      this.statistics.snapshots++
    }
  }

  /**
   * Whoever a committed membership leaves out is told so by its server, and goes; should it become a member again, it comes back.
   */
  private sendAwayTheRemoved(): void {
    for (const { membership, committedMembership } of this.cluster.leaders) {
      if (membership !== committedMembership || isJoint(membership)) continue
      for (const replica of this.cluster.replicas) {
        const isIn = isMember(membership, replica.id)
        if (replica.up && !isIn) replica.crash()
        else if (!replica.up && isIn) this.restart(replica)
      }
    }
  }

  /** Everything is repaired: the cluster must come to one leader, one log, leave joint, and go on. */
  converge(): void {
    const { cluster } = this
    cluster.heal()
    for (const replica of cluster.replicas) {
      replica.holdsWrites = false
      if (!replica.up) this.restart(replica)
      while (replica.persist()) {}
    }
    const calm = () => {
      for (let i = 0; i < 40; i++) {
        cluster.run(5)
        for (const replica of cluster.replicas) this.forwardSnapshots(replica)
        this.sendAwayTheRemoved()
      }
    }
    calm()
    must(cluster.leaders.length === 1, "liveness", () => `${cluster.leaders.length} leaders`)
    const leader = cluster.leaders[0] as RaftNode
    must(!isJoint(leader.membership), "liveness", () => `${describeRole(leader)} stays joint`)
    const index = cluster.propose(leader.id, "last")
    this.readAt(leader)
    calm()
    must(typeof index === "number", "liveness", () => `a proposal was refused: ${index}`)
    for (const replica of cluster.replicas) {
      if (!isMember(leader.membership, replica.id)) continue
      must(
        replica.applied.length === index,
        "liveness",
        () => `n${replica.id} applied ${replica.applied.length} of ${index}`,
      )
      this.checks.checkReads(replica)
    }
    this.checks.checkLogMatching()
  }
}

/** Runs one seed: `steps` random actions, then convergence. Throws what it finds wrong. */
export function runSeed(
  seed: number,
  steps: number,
  Node?: new (options: RaftOptions) => RaftNode,
): RunStatistics {
  const random = new RandomCluster(seed, Node)
  for (let i = 0; i < steps; i++) {
    random.step()
    if (i % 50 === 0) random.checks.checkLogMatching()
  }
  random.converge()
  return random.statistics
}
