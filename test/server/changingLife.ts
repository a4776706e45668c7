import type { ReplicaPlace } from "../../src/types.ts"
import { LoopCluster, learner, voter } from "./loopCluster.ts"

/**
 * Four nodes of which three begin, and a range that is split and moved about under writes while nodes crash and restart and messages are lost: after
 * each change the ranges are as asked, and at the end all that was acknowledged is there, on all replicas alike.
 */
export class ChangingLife {
  readonly cluster: LoopCluster
  restarts = 0
  private turns = 0
  private crashAt = 0
  private readonly lossy: boolean

  constructor(seed: number) {
    const cluster = new LoopCluster({ seed })
    this.cluster = cluster
    const { prng } = cluster
    this.lossy = prng.chance(0.5)
    cluster.start(4)
    if (this.lossy) cluster.loses = () => prng.chance(0.05)
    const pass = cluster.pass.bind(cluster)
    cluster.pass = (ms) => {
      pass(ms)
      cluster.expectDisjoint()
      if (++this.turns === this.crashAt) this.crash()
    }
  }

  private crash(): void {
    const { cluster } = this
    const { prng } = cluster
    this.restarts++
    const id = prng.int(1, 4)
    cluster.restart(id)
    if (prng.chance(0.2)) for (const other of [1, 2, 3, 4]) if (other !== id) cluster.restart(other)
    if (prng.chance(0.5)) this.crashAt = this.turns + prng.int(1, 60)
  }

  private amidCrashes(change: () => void): void {
    this.crashAt = this.turns + this.cluster.prng.int(1, 80)
    change()
  }

  /** Asked again until the range is as it is to be: what was refused or lost in a crash may be half done. */
  private become(range: number, replicas: ReadonlyArray<ReplicaPlace>): void {
    const wanted = JSON.stringify(replicas)
    for (let i = 0; i < 30; i++) {
      if (JSON.stringify(this.cluster.descriptor(range).replicas) === wanted) return
      this.cluster.members(range, replicas)
    }
    throw new Error(`range ${range} did not become ${wanted}`)
  }

  private divide(range: number, child: number): void {
    const { boundsVersion } = this.cluster.descriptor(range)
    for (let i = 0; this.cluster.descriptor(range).boundsVersion === boundsVersion; i++) {
      if (i === 30) throw new Error(`range ${range} was not split`)
      // A split that a crash left open may still come: no two take one id.
      this.cluster.split(range, child + 100 * i)
      this.cluster.pass(50)
    }
  }

  run(): void {
    const { cluster } = this
    for (let i = 0; i < 25; i++) cluster.put(`key${i}`, `${i}`.padEnd(200, "."))
    this.amidCrashes(() => this.divide(1, 20))
    this.write(1)
    const right = [...this.rangesOf(cluster.untilLeader(1).id)].find((id) => id >= 20) ?? 20
    this.amidCrashes(() => this.become(1, [voter(1), voter(2), voter(3), learner(4, 10)]))
    this.write(2)
    this.amidCrashes(() => this.become(1, [voter(1), voter(2), voter(4, 10)]))
    this.amidCrashes(() => this.become(right, [voter(2), voter(3), voter(4, 12)]))
    this.write(3)
    this.amidCrashes(() => this.become(1, [voter(2), voter(4, 10)]))
    this.amidCrashes(() => this.become(1, [voter(2), voter(4, 10), voter(3, 13)]))
    this.write(4)
    this.amidCrashes(() => this.divide(right, 3000))
    this.write(5)
    this.crashAt = 0
    cluster.loses = () => false
    cluster.expectWhole()
  }

  private *rangesOf(node: number): Iterable<number> {
    yield* this.cluster.node(node).loop.replicas.keys()
  }

  private write(round: number): void {
    for (let i = 0; i < 12; i++) this.cluster.claim(`${round}-${i}`)
    for (let i = 0; i < 6; i++) this.cluster.put(`key${i * 4}`, `${round}`.padEnd(200, "-"))
  }
}
