import { assert } from "../../src/lib/assert.ts"
import { equalBytes } from "../../src/lib/bytes.ts"
import { Prng } from "../../src/lib/prng.ts"
import { describeEntry, describeRole } from "../../src/raft/describe.ts"
import type { Entry, Message } from "../../src/raft/message.ts"
import type { RaftLog } from "../../src/raft/raftLog.ts"
import type { RaftNode, RaftOptions } from "../../src/raft/raftNode.ts"
import { TestCluster, type TestReplica } from "./cluster.ts"
import { drawRates, drawSettings } from "./swarm.ts"

/** A promise of the Raft paper (Figure 3), or of thesis 6.4, that did not hold. */
export class Violation extends Error {
  override readonly name = "Violation"
}

function must(condition: boolean, property: string, detail: () => string): void {
  if (!condition) throw new Violation(`${property}: ${detail()}`)
}

export interface RunStatistics {
  committed: number
  elections: number
  crashes: number
  reads: number
  snapshots: number
}

/** Messages kept to be sent once more, much later. */
const historyLength = 200

/** One cluster under random faults, with everything checked after every action. */
export class RandomCluster {
  readonly cluster: TestCluster
  readonly statistics: RunStatistics = {
    committed: 0,
    elections: 0,
    crashes: 0,
    reads: 0,
    snapshots: 0,
  }
  private readonly prng: Prng
  private readonly rates: ReadonlyArray<readonly [string, number]>
  private readonly totalRate: number
  private readonly leaderOfTerm = new Map<number, number>()
  /** Terms of each leader's own log as last seen, by term: it may only grow. */
  private readonly leaderLogs = new Map<number, Array<number>>()
  /** Every entry that any replica ever applied, by index. */
  private readonly committed: Array<Entry> = []
  private readonly history: Array<Message> = []
  private readonly readFloor = new Map<number, number>()
  private proposals = 0
  private sent = 0

  constructor(seed: number, Node?: new (options: RaftOptions) => RaftNode) {
    this.prng = new Prng(seed)
    const settings = drawSettings(this.prng)
    this.rates = Object.entries(drawRates(this.prng))
    this.totalRate = this.rates.reduce((sum, [, rate]) => sum + rate, 0)
    const nodes = this.prng.pick([1, 2, 3, 3, 3, 5])
    this.cluster = new TestCluster({
      nodes,
      seed: this.prng.uint32(),
      settings,
      ...(Node === undefined ? {} : { Node }),
    })
    for (const replica of this.cluster.replicas) {
      replica.writesVisibleAtOnce = this.prng.chance(0.5)
    }
    this.cluster.onApply = (replica, entry) => this.checkApply(replica, entry)
    this.cluster.onChange = (replica) => this.checkLeader(replica)
    this.cluster.onSend = (message) => {
      if (message._tag === "Heartbeat" || message._tag === "HeartbeatResponse") return
      this.history[this.sent++ % historyLength] = message
    }
  }

  // The five properties (Raft paper, Figure 3)

  private checkLeader(replica: TestReplica): void {
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

  private logOf(node: RaftNode): RaftLog {
    return (node as unknown as { log: RaftLog }).log
  }

  private checkCompleteness(node: RaftNode): void {
    const log = this.logOf(node)
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
    const log = this.logOf(node)
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

  private checkApply(replica: TestReplica, entry: Entry): void {
    const known = this.committed[entry.index]
    if (known === undefined) {
      this.committed[entry.index] = entry
      this.statistics.committed++
      this.checkMajority(entry)
      return
    }
    must(
      known.term === entry.term && equalBytes(known.data, entry.data),
      "state machine safety",
      () =>
        `n${replica.id} applied ${describeEntry(entry)}, others applied ${describeEntry(known)}`,
    )
  }

  /** What is committed is on the disks of a majority. */
  private checkMajority(entry: Entry): void {
    let holding = 0
    for (const { durableLog } of this.cluster.replicas) {
      const released = entry.index < durableLog.firstIndex
      if (released || durableLog.term(entry.index) === entry.term) holding++
    }
    must(
      holding * 2 > this.cluster.voters.length,
      "committed means durable on a majority",
      () => `${describeEntry(entry)} is on ${holding} of ${this.cluster.voters.length}`,
    )
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

  /**
   * A read sees everything that any replica had applied when it was asked for. (Raft thesis 6.4)
   */
  private checkReads(replica: TestReplica): void {
    for (const { context, index } of replica.reads) {
      const floor = this.readFloor.get(context) as number
      must(
        index >= floor,
        "linearizable reads",
        () => `n${replica.id} reads at ${index} what was at ${floor}`,
      )
      this.statistics.reads++
    }
    replica.reads = []
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
      this.checkReads(replica)
    }
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
        cluster.tick(this.anyReplica().id)
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
        replica.node.reportUnreachable(this.prng.pick(this.cluster.voters))
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
    const context = this.readFloor.size
    this.readFloor.set(context, Math.max(0, this.committed.length - 1))
    assert(node.readIndex(context), "a leader refuses a read")
    this.cluster.replica(node.id).settle()
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

  /** Everything is repaired: the cluster must come to one leader, one log, and go on. */
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
      }
    }
    calm()
    must(cluster.leaders.length === 1, "liveness", () => `${cluster.leaders.length} leaders`)
    const leader = cluster.leaders[0] as RaftNode
    const index = cluster.propose(leader.id, "last")
    this.readAt(leader)
    calm()
    must(typeof index === "number", "liveness", () => `a proposal was refused: ${index}`)
    for (const replica of cluster.replicas) {
      must(
        replica.applied.length === index,
        "liveness",
        () => `n${replica.id} applied ${replica.applied.length} of ${index}`,
      )
      this.checkReads(replica)
    }
    this.checkLogMatching()
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
    if (i % 50 === 0) random.checkLogMatching()
  }
  random.converge()
  return random.statistics
}
