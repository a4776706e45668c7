import { Prng } from "../../src/lib/prng.ts"
import { overlap } from "../../src/server/descriptors.ts"
import type { PeerMessage } from "../../src/server/peerMessage.ts"
import { fixedLosses, lose, RecordedDisk } from "../lsm/crashSweepDisk.ts"
import type { SimulatedDisk } from "../sim/simulatedDisk.ts"
import { type ChainBook, LoopCluster, learner, voter } from "./loopCluster.ts"
import { LoopNode } from "./loopNode.ts"

/** What the node that is watched has promised to others. */
interface Promises {
  /** By range and replica: the last entry that it acknowledged. */
  readonly acknowledged: Map<
    string,
    { readonly range: number; readonly replica: number; index: number }
  >
  /** Replicas that it had buried. */
  readonly buried: Map<number, number>
}

interface Point {
  readonly disk: SimulatedDisk
  readonly nowMs: number
  readonly promises: Promises
}

const watched = 4

/**
 * A crash of one node at operations on its disk, spread over its life: it joins as an empty replica, is filled by a snapshot, becomes a voter, splits, is
 * removed from one half and destroyed there, and comes back to it under a new id. At each point the disk is left in all the ways that a crash can leave it, and
 * opened again. Then what was acknowledged is in the log or the state, what was buried stays so, intervals are disjoint, and every entry replayed
 * leaves the chain that it left on the others.
 */
export function runLoopCrashSweep(options: { readonly seed: number; readonly points: number }): {
  readonly points: number
  readonly opens: number
} {
  const { book, points, cluster } = recordLife(options.seed, options.points)
  const prng = new Prng(options.seed)
  let opens = 0
  for (const point of points) {
    for (let loss = 0; loss < fixedLosses; loss++) {
      const disk = point.disk.clone()
      lose(disk, prng, loss)
      try {
        expectRecovered(disk, point, { book, cluster })
      } catch (error) {
        throw new Error(
          `seed ${options.seed}, operation ${point.disk.operations}, loss ${loss}: ${error}`,
        )
      }
      opens++
    }
  }
  return { points: points.length, opens }
}

function recordLife(seed: number, wanted: number) {
  const cluster = new LoopCluster({ seed })
  const disk = new RecordedDisk()
  cluster.disks.set(watched, disk)
  const all: Array<Point> = []
  const promises: Promises = { acknowledged: new Map(), buried: new Map() }
  let spacing = 1
  disk.atPoint = () => {
    if (disk.operations % spacing !== 0) return
    all.push({ disk: disk.clone(), nowMs: cluster.node(1).nowMs, promises: copyOf(promises) })
    if (all.length <= 2 * wanted) return
    // Twice as sparse from here on, and what was taken thinned out alike.
    spacing *= 2
    all.splice(0, all.length, ...all.filter((point) => point.disk.operations % spacing === 0))
  }
  cluster.loses = (from, _to, message) => {
    if (from === watched) note(promises, message)
    return false
  }
  const pass = cluster.pass.bind(cluster)
  cluster.pass = (ms) => {
    pass(ms)
    for (const [range, { replica }] of cluster.nodes.get(watched)?.loop.storage.tombstones ?? []) {
      promises.buried.set(range, replica)
    }
  }
  live(cluster)
  disk.atPoint = undefined
  return { book: cluster.book, points: all, cluster }
}

function live(cluster: LoopCluster): void {
  const write = (round: number) => {
    for (let i = 0; i < 12; i++) {
      cluster.claim(`${round}-${i}`)
      cluster.put(`key${i}`, `${round}`.padEnd(150, "."))
    }
  }
  const become = (range: number, ...replicas: Parameters<LoopCluster["members"]>[1]) => {
    const reply = cluster.members(range, replicas)
    if (reply?._tag !== "Changed") throw new Error(`range ${range}: ${JSON.stringify(reply)}`)
  }
  write(1)
  cluster.start(watched)
  become(1, voter(1), voter(2), voter(3), learner(4, 10))
  become(1, voter(1), voter(2), voter(4, 10))
  write(2)
  if (cluster.split(1, 20)?._tag !== "Changed") throw new Error("range 1 was not split")
  write(3)
  become(20, voter(1), voter(2), voter(3, 12))
  cluster.until("the watched half is buried", () => {
    return cluster.node(watched).loop.storage.tombstones.has(20)
  })
  write(4)
  become(20, voter(1), voter(2), voter(3, 12), voter(4, 13))
  write(5)
  cluster.expectWhole()
}

function note({ acknowledged }: Promises, message: PeerMessage): void {
  if (message._tag !== "Raft" || message.message._tag !== "AppendResponse") return
  const { from: replica, accepted, index } = message.message
  const { range } = message
  if (accepted) acknowledged.set(`${range}-${replica}`, { range, replica, index })
}

function copyOf({ acknowledged, buried }: Promises): Promises {
  return { acknowledged: new Map(acknowledged), buried: new Map(buried) }
}

function expectRecovered(
  disk: SimulatedDisk,
  { nowMs, promises }: Point,
  { book, cluster }: { readonly book: ChainBook; readonly cluster: LoopCluster },
): void {
  const { settings, founders } = cluster
  const parts = book.partsOf(() => {})
  const node = new LoopNode({
    disk,
    settings,
    nowMs,
    id: watched,
    nodes: founders,
    bootstrap: false,
    parts,
  })
  const { loop } = node
  for (const { range, replica, index } of promises.acknowledged.values()) {
    if (loop.set.isBuried(range, replica)) continue
    const held = loop.replicas.get(range)
    const state = held?.machine.replica === replica ? held.machine.appliedIndex : 0
    const log = loop.storage.journal.group({ range, replica }).lastIndex
    if (Math.max(state, log) < index) {
      throw new Error(
        `range ${range} replica ${replica} acknowledged ${index}, and has ${state}, ${log}`,
      )
    }
  }
  for (const [range, replica] of promises.buried) {
    const isBack = loop.replicas.get(range)?.machine.replica === replica
    if (isBack || !loop.set.isBuried(range, replica)) throw new Error(`range ${range} is back`)
  }
  for (const replica of loop.replicas.values()) if (!replica.isEmpty) book.note(replica.machine)
  node.pass(100)
  expectDisjoint(
    loop.set.all.filter((replica) => !replica.isEmpty).map((each) => each.machine.descriptor),
  )
  loop.storage.engine.verify()
  loop.storage.close()
}

function expectDisjoint(descriptors: ReadonlyArray<Parameters<typeof overlap>[0]>): void {
  for (const left of descriptors) {
    for (const right of descriptors) {
      if (left !== right && overlap(left, right)) throw new Error("intervals overlap")
    }
  }
}
