import { expect, test } from "bun:test"
import type { NamespaceInfo, RangeReport } from "../../src/wire/answers.ts"
import { violationsOf } from "../jepsen/check.ts"
import { fromJsonLines, toJsonLines } from "../jepsen/history.ts"
import { NodeSet, temporaryFolder, until } from "./Cluster.ts"
import { kvorum } from "./Command.ts"
import { isConverged, NodeAsker, Replicas, SideWriters } from "./EventualSide.ts"
import { FaultLoad } from "./FaultLoad.ts"
import { PeerProxy } from "./PeerProxy.ts"

/**
 * Four real nodes, cut into two halves while clients of either half add to sets through the nodes of theirs. Neither half can tell what the other takes; both
 * go on. When the cut has healed, the nodes say when they are equal; then every owner of every key must hold the same bytes, and in them every add that was acknowledged. A
 * strong namespace in the same cluster is written all the while, and its history must be linearizable. `KVORUM_KEYS=100000` takes the size of which the time is claimed.
 *
 * The seed decides what the writers ask for; the schedule is that of the machine, so it does not replay.
 */
const keys = Number(process.env.KVORUM_KEYS ?? 5_000)
const cutMs = 4000
const writersOfSide = 24
const seed = Number(process.env.KVORUM_SEED ?? Math.floor(performance.timeOrigin % 2 ** 31))
const [left, right] = [
  [1, 2],
  [3, 4],
] as const

class Halves {
  readonly nodes: NodeSet
  readonly proxy = new PeerProxy()
  private readonly folder = temporaryFolder()
  askers: Array<NodeAsker> = []

  constructor() {
    this.nodes = new NodeSet({ nodes: 4, directory: this.folder.path, behindProxy: true })
  }

  async start(): Promise<NamespaceInfo> {
    const { nodes, proxy } = this
    await proxy.open(nodes.ids, nodes.portBase)
    nodes.startAll()
    const create = "namespace create carts --mode eventual --conflict crdt:set --endpoints".split(
      " ",
    )
    await until("the namespace is made", async () => {
      const { code, stderr } = await kvorum([...create, nodes.endpoints])
      return code === 0 || stderr.includes("exists already")
    })
    this.askers = await Promise.all(nodes.ids.map((id) => NodeAsker.open(id, nodes.endpoint(id))))
    let carts: NamespaceInfo | undefined
    await until("every node knows it, and the ring", async () => {
      const known = await Promise.all(this.askers.map((asker) => asker.routes()))
      carts = known[0]?.namespaces.find(({ name }) => name === "carts")
      return known.every(
        ({ namespaces, ring }) =>
          ring !== undefined && namespaces.some(({ id }) => id === carts?.id),
      )
    })
    return carts as NamespaceInfo
  }

  async ranges(): Promise<ReadonlyArray<RangeReport>> {
    return (await (this.askers[0] as NodeAsker).routes()).ranges
  }

  side(nodes: ReadonlyArray<number>): ReadonlyArray<NodeAsker> {
    return this.askers.filter(({ node }) => nodes.includes(node))
  }

  cut(): void {
    for (const one of left) {
      for (const other of right) {
        this.proxy.cut(one, other)
        this.proxy.cut(other, one)
      }
    }
  }

  async close(): Promise<void> {
    for (const asker of this.askers) asker.close()
    await this.nodes.stop()
    this.proxy.close()
    this.folder.remove()
  }
}

test.if(process.platform === "linux")(
  "both halves of a cluster that is cut in two keep writing, and are equal soon after it heals",
  async () => {
    const halves = new Halves()
    let strong: FaultLoad | undefined
    try {
      const namespace = await halves.start()
      const common = { namespace, keys, seed }
      const first = new SideWriters({ ...common, name: "f", askers: halves.askers })
      await first.fill(4 * writersOfSide)
      expect(first.failed).toEqual(new Map())
      strong = new FaultLoad({
        ...{ endpoints: halves.nodes.endpoints.split(","), ranges: await halves.ranges(), seed },
        ...{ name: "cut", deadlineMs: 15_000 },
      })
      strong.start()
      const sides = [left, right].map((nodes, i) => {
        const [name, askers] = [["l", "r"][i] as string, halves.side(nodes)]
        return new SideWriters({ ...common, name, askers, seed: seed + i })
      })
      for (const side of sides) side.start(writersOfSide)
      halves.cut()
      await Bun.sleep(cutMs)
      await Promise.all(sides.map((side) => side.stop()))
      const healedMs = performance.now()
      halves.proxy.heal()
      for (const side of sides) {
        const failed = JSON.stringify([...side.failed])
        expect(side.written / side.calls, failed).toBeGreaterThanOrEqual(0.999)
        expect(side.written).toBeGreaterThan(100)
      }
      expect(halves.proxy.swallowedBytes).toBeGreaterThan(0)
      expect(await isConverged(halves.askers)).toBe(false)
      let equalMs = 0
      await until(
        "every node says that all it shares is equal",
        async () => {
          await Bun.sleep(200)
          const isEqual = await isConverged(halves.askers)
          equalMs = performance.now() - healedMs
          return isEqual
        },
        120_000,
      )
      const replicas = await Replicas.read(halves.askers, namespace)
      expect(replicas.differing).toBe(0)
      const writes = sides.map(({ written }) => written).join(" and ")
      console.log(
        `${writes} writes during the cut; ${keys} keys equal after ${Math.round(equalMs)} ms`,
      )
      expect(replicas.keys).toBe(keys)
      for (const { acknowledged } of [first, ...sides]) {
        expect(replicas.missing(acknowledged)).toEqual([])
      }
      await strong.stop()
      const violations = violationsOf(fromJsonLines(toJsonLines(strong.recorder.events)))
      expect([...violations, ...strong.broken]).toEqual([])
      expect(strong.succeeded).toBeGreaterThan(100)
      expect(halves.nodes.fallen).toEqual([])
    } catch (error) {
      // A node that falls says why.
      await Bun.sleep(500)
      console.error(`KVORUM_SEED=${seed}\n${halves.nodes.logs.slice(-8000)}`)
      throw error
    } finally {
      await strong?.dispose()
      await halves.close()
    }
  },
  240_000,
)
