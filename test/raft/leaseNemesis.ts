import type { Prng } from "../../src/lib/prng.ts"
import type { Message } from "../../src/raft/message.ts"
import type { RaftNode } from "../../src/raft/raftNode.ts"
import type { TestCluster } from "./cluster.ts"

/** How much time passes between two looks. */
const stepMs = 15
const keptMessages = 20

/**
 * Misfortunes that leases have to survive, which plain chance brings together too seldom: each ends with a leader cut off while the others may
 * elect. `check` is called at every step.
 */
export class LeaseNemesis {
  private readonly cluster: TestCluster
  private readonly prng: Prng
  private readonly check: () => void
  private readonly timeoutsNow: Array<Message> = []

  constructor(cluster: TestCluster, prng: Prng, check: () => void) {
    this.cluster = cluster
    this.prng = prng
    this.check = check
  }

  /** Every message that is sent. */
  sent(message: Message): void {
    if (message._tag === "TimeoutNow") this.timeoutsNow.push(message)
    if (this.timeoutsNow.length > keptMessages) this.timeoutsNow.shift()
  }

  strike(): void {
    const leader = this.cluster.leaders.at(-1)
    if (leader === undefined) return
    this.settle()
    switch (this.prng.int(0, 3)) {
      case 0:
        this.sleepApart(leader)
        return
      case 1:
        this.usurp(leader)
        return
      case 2:
        this.transferApart(leader)
        return
      default:
        this.lateTimeoutNow(leader)
    }
  }

  /** The network works for a while, so that there is a lease to lose. */
  private settle(): void {
    this.cluster.heal()
    this.pass(12, 1)
  }

  /** The leader's machine sleeps, and nobody hears of it. */
  private sleepApart(leader: RaftNode): void {
    this.cluster.isolate(leader.id)
    this.cluster.replica(leader.id).sleepMs = this.prng.int(1, 1000)
    this.pass(60, 0.9)
  }

  /** Between one and the leader nothing passes, so that it campaigns; when it has won, or not, the leader is cut off. */
  private usurp(leader: RaftNode): void {
    const usurper = this.prng.pick(this.cluster.replicas)
    this.cluster.cut.add(`${leader.id}>${usurper.id}`)
    this.cluster.cut.add(`${usurper.id}>${leader.id}`)
    for (let step = 0; step < 60 && usurper.node.role !== "leader"; step++) this.pass(1, 0.9)
    this.cluster.isolate(leader.id)
    this.pass(16, 1)
  }

  /** The leader is cut off right after it told another to campaign. */
  private transferApart(leader: RaftNode): void {
    this.cluster.transfer(leader.id, this.prng.pick(this.cluster.ids))
    if (leader.role !== "leader") return
    this.deliverTimeoutNow()
    this.cluster.isolate(leader.id)
    this.pass(16, 1)
  }

  /** One that was sent long ago comes again, and the present leader is cut off. */
  private lateTimeoutNow(leader: RaftNode): void {
    if (this.timeoutsNow.length === 0) return
    this.cluster.network.push(this.prng.pick(this.timeoutsNow))
    this.deliverTimeoutNow()
    this.cluster.isolate(leader.id)
    this.pass(16, 1)
  }

  private deliverTimeoutNow(): void {
    const at = this.cluster.network.findLastIndex(({ _tag }) => _tag === "TimeoutNow")
    if (at >= 0) this.cluster.deliver(at)
  }

  private pass(steps: number, chanceToDeliver: number): void {
    const { cluster, prng } = this
    for (let step = 0; step < steps; step++) {
      cluster.passTime(stepMs)
      for (let count = cluster.network.length; count > 0; count--) {
        if (prng.chance(chanceToDeliver)) cluster.deliver()
      }
      for (const replica of cluster.replicas) while (replica.persist()) replica.settle()
      this.check()
    }
  }
}
