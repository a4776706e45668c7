import { describe, expect, test } from "bun:test"
import { eventualStatusLines } from "../../src/cli/eventualLines.ts"
import { actorOf, epochOf } from "../../src/dynamo/dot.ts"
import { opCodes } from "../../src/dynamo/node/opCodes.ts"
import type { EventualReply } from "../../src/dynamo/node/requests.ts"
import { writeEnd } from "../../src/dynamo/node/tenures.ts"
import { utf8 } from "../../src/lib/bytes.ts"
import { ByteWriter } from "../../src/lib/byteWriter.ts"
import { slotCount, slotOf } from "../../src/lib/slot.ts"
import { EventualCluster, namespaces, put, seenIn, siblings } from "./eventualCluster.ts"
import {
  damageEnd,
  damageLog,
  damageTable,
  eventualTables,
  flushAll,
  untilWhole,
} from "./eventualDamage.ts"
import { unflushed } from "./loopCluster.ts"

const keys = Array.from({ length: 60 }, (_, i) => `key${i}`)
const contentOf = (key: string) => key.padEnd(100, "v")

function clusterOf(count: number, settings = {}): EventualCluster {
  const base = new EventualCluster(1).settings.eventual
  const exchange = { ...base.exchange, passMs: 500 }
  const engine = { memtableBytes: 8192, blockBytes: 256, blockCacheBytes: 0 }
  const given = { engine, eventual: { ...base, exchange }, ...settings }
  const space = { ...namespaces[0], copies: Math.min(count, 3) }
  return new EventualCluster(count, given, 1, [space])
}

function written(reply: EventualReply): void {
  if (reply._tag !== "EventualWritten") throw new Error(JSON.stringify(reply))
}

function fill(cluster: EventualCluster): void {
  for (const [i, key] of keys.entries()) {
    const owners = cluster.owners(key)
    const at = owners[i % owners.length]
    written(cluster.write(at, { namespace: siblings, key }, put(contentOf(key)), { level: "all" }))
  }
}

/** All owners hold the same, and a read of any shows what was written. */
function expectWhole(cluster: EventualCluster): void {
  cluster.until("owners hold the same", () =>
    keys.every((key) => new Set(cluster.held(siblings, key)).size === 1),
  )
  for (const [i, key] of keys.entries()) {
    const at = cluster.owners(key)[i % cluster.owners(key).length]
    const { values } = seenIn(cluster.read(at, { namespace: siblings, key }, "all"), siblings, key)
    expect(values, key).toEqual([contentOf(key)])
  }
}

const refilling = (cluster: EventualCluster, id: number) =>
  cluster.node(id).loop.eventual.status().refilling

describe("a node whose eventual half is damaged", () => {
  test("goes on when a read meets a damaged table, and is refilled from the other owners", () => {
    const cluster = clusterOf(3)
    fill(cluster)
    flushAll(cluster)
    const node = cluster.node(1)
    for (const path of eventualTables(node.disk)) damageTable(node.disk, path)
    for (const key of keys) cluster.read(1, { namespace: siblings, key }, "one")
    expect(refilling(cluster, 1).slots).toBeGreaterThan(0)
    expect(node.reports.join("\n")).toContain("have lost data on this node")
    // Others answer meanwhile, and writes count this node.
    for (const key of keys) {
      const { values } = seenIn(cluster.read(2, { namespace: siblings, key }), siblings, key)
      expect(values).toEqual([contentOf(key)])
    }
    untilWhole(cluster)
    expect(node.reports.join("\n")).toContain("are whole again")
    expectWhole(cluster)
  })

  test("starts over damaged tables, and without one of them", () => {
    const cluster = clusterOf(3)
    fill(cluster)
    flushAll(cluster)
    for (const id of [1, 2]) {
      const { disk } = cluster.node(id)
      cluster.crash(id)
      const [path] = eventualTables(disk)
      if (id === 1) damageTable(disk, path)
      else disk.remove(path)
      cluster.start(id)
      untilWhole(cluster)
      expectWhole(cluster)
    }
  })

  test("starts over holes in its log", () => {
    const cluster = clusterOf(3, unflushed)
    fill(cluster)
    cluster.pass(200)
    cluster.crash(1)
    const { disks, prng } = cluster
    const disk = disks.get(1)
    if (disk === undefined) throw new Error("no disk")
    expect(damageLog(disk, prng, 0.3)).toBeGreaterThan(10)
    cluster.start(1)
    untilWhole(cluster)
    expectWhole(cluster)
  })

  describe("whose log has lost its end, nobody can tell how much, and that loses power again", () => {
    /** Node 1 has started after the damage, and has ended nothing of what it does about it. */
    function startedOnce(): EventualCluster {
      const cluster = clusterOf(3, unflushed)
      fill(cluster)
      // The last batches are not damaged: without them nothing tells that there was more. They are not of this log.
      for (const value of ["1", "2"]) {
        cluster.pass(200)
        cluster.put("strong", value)
      }
      cluster.pass(200)
      cluster.crash(1)
      const disk = cluster.disks.get(1)
      if (disk === undefined) throw new Error("no disk")
      expect(damageEnd(disk, 0.2)).toBeGreaterThan(10)
      cluster.start(1)
      expect(refilling(cluster, 1).slots).toBe(slotCount)
      expect(cluster.node(1).loop.eventual.machine.store.epoch).toBeGreaterThan(2 ** 24)
      return cluster
    }

    test("before the loss is noted for good, knows of it at the next start", () => {
      const cluster = startedOnce()
      for (let turn = 0; turn < 10; turn++) {
        cluster.node(1).turn(10)
        cluster.node(1).finishWrite()
      }
      expect(cluster.node(1).loop.storage.engine.flushedThrough).toBe(0)
      cluster.restart(1)
      expect(refilling(cluster, 1).slots).toBe(slotCount)
      untilWhole(cluster)
      expectWhole(cluster)
    })

    test("when it is noted, and before an epoch was begun, gives out none that was lost with the log", () => {
      const cluster = startedOnce()
      while (cluster.node(1).loop.storage.engine.flushedThrough === 0) cluster.pass(10)
      cluster.restart(1)
      untilWhole(cluster)
      const { owner } = cluster.node(1).loop.eventual.machine
      for (const key of keys) {
        const actor = owner.actorOf(siblings, slotOf(utf8(key))) ?? 0
        expect(epochOf(actor)).toBeGreaterThan(2 ** 24)
      }
      expectWhole(cluster)
    })
  })

  test("is not alone: damage at different places of all owners loses nothing", () => {
    const cluster = clusterOf(3)
    fill(cluster)
    flushAll(cluster)
    // The same keys lie in the same places of the three, more or less.
    for (const [i, { disk, id }] of [...cluster.nodes.values()].entries()) {
      const tables = eventualTables(disk)
      cluster.crash(id)
      expect(tables.length).toBeGreaterThan(2)
      damageTable(disk, tables[i])
      cluster.start(id)
    }
    untilWhole(cluster)
    expectWhole(cluster)
  })

  test("answers no reads until the ring has heard of it, however long, and takes writes", () => {
    const cluster = clusterOf(3)
    fill(cluster)
    flushAll(cluster)
    const { disk } = cluster.node(1)
    cluster.crash(1)
    for (const path of eventualTables(disk)) damageTable(disk, path)
    cluster.start(1)
    cluster.pass(10_000)
    expect(refilling(cluster, 1)).toMatchObject({ slots: 16_384, unannounced: 16_384 })
    // What was damaged is gone by now, and known all the same.
    cluster.restart(1)
    cluster.pass(5000)
    expect(refilling(cluster, 1)).toMatchObject({ slots: 16_384, unannounced: 16_384 })
    cluster.loses = () => true
    cluster.pass(3000)
    const [key] = keys
    const place = { namespace: siblings, key }
    expect(cluster.read(1, place, "one")).toMatchObject({ _tag: "EventualRefused" })
    cluster.loses = () => false
    cluster.pass(1000)
    const { context } = seenIn(cluster.read(2, place), siblings, key)
    written(cluster.write(1, place, put(contentOf(key)), { context, level: "all" }))
    untilWhole(cluster)
    expectWhole(cluster)
  })

  test("has nobody to ask where there is one copy, and says that it is lost", () => {
    const cluster = clusterOf(1)
    fill(cluster)
    flushAll(cluster)
    const node = cluster.node(1)
    for (const path of eventualTables(node.disk)) damageTable(node.disk, path)
    cluster.read(1, { namespace: siblings, key: keys[0] }, "one")
    untilWhole(cluster)
    expect(node.reports.join("\n")).toContain("no other owner: what damage took of them is lost")
    const reply = cluster.read(1, { namespace: siblings, key: keys[0] }, "one")
    expect(seenIn(reply, siblings, keys[0]).values).toEqual([])
    written(cluster.write(1, { namespace: siblings, key: keys[0] }, put("again")))
  })

  test("gives out no epoch twice, whichever of the places is damaged where the last one stands", () => {
    const cluster = clusterOf(3)
    fill(cluster)
    flushAll(cluster)
    fill(cluster)
    const epochs = () => {
      const { owner } = cluster.node(1).loop.eventual.machine
      return keys.map((key) => epochOf(owner.actorOf(siblings, slotOf(utf8(key))) ?? 0))
    }
    const { disk } = cluster.node(1)
    for (const strike of [
      () => eventualTables(disk).forEach((path) => void damageTable(disk, path)),
      () => void damageLog(disk, cluster.prng, 1),
      () => {
        eventualTables(disk).forEach((path) => void damageTable(disk, path))
        damageLog(disk, cluster.prng, 1)
      },
    ]) {
      const before = Math.max(...epochs())
      cluster.pass(1000)
      cluster.crash(1)
      strike()
      cluster.start(1)
      untilWhole(cluster)
      expect(Math.min(...epochs())).toBeGreaterThan(before)
      // A last epoch for the next round to stand in the log alone.
      written(cluster.write(1, { namespace: siblings, key: "more" }, put("more")))
    }
  })
})

describe("a slot that is being refilled", () => {
  function damagedCluster(): EventualCluster {
    const cluster = clusterOf(3)
    fill(cluster)
    flushAll(cluster)
    const { disk } = cluster.node(1)
    cluster.crash(1)
    for (const path of eventualTables(disk)) damageTable(disk, path)
    cluster.start(1)
    cluster.pass(1000)
    return cluster
  }

  test("shows in the status of its node", () => {
    const cluster = damagedCluster()
    const lines = () =>
      eventualStatusLines({ ...cluster.node(1).loop.eventual.status(), latencies: [] })
    expect(lines()[0]).toBe(
      "has lost data of 16384 slots to damage: refills them from n2 n3; the ring has not heard of 16384 of them",
    )
    cluster.crash(3)
    cluster.stepRing()
    cluster.pass(15_000)
    expect(lines()[0]).toBe("has lost data of 16384 slots to damage: refills them from n3")
    cluster.start(3)
    untilWhole(cluster)
    expect(lines().filter((line) => line.startsWith("has lost"))).toEqual([])
  })

  test("waits for its namespaces where the node began with a directory that is older than they are", () => {
    const cluster = clusterOf(3)
    fill(cluster)
    flushAll(cluster)
    const { disk } = cluster.node(1)
    cluster.crash(1)
    for (const path of eventualTables(disk)) damageTable(disk, path)
    cluster.hears = () => false
    cluster.start(1)
    const half = () => cluster.node(1).loop.eventual
    half().learn(cluster.ring, [])
    cluster.pass(1000)
    const slots = () => half().status().refilling.slots
    expect(slots()).toBeGreaterThan(0)
    cluster.hears = () => true
    cluster.teach(1)
    untilWhole(cluster)
    expectWhole(cluster)
  })

  test("is not said to be lost where it is not this node's at all", () => {
    const cluster = clusterOf(4)
    fill(cluster)
    flushAll(cluster)
    const { disk } = cluster.node(1)
    cluster.crash(1)
    for (const path of eventualTables(disk)) damageTable(disk, path)
    cluster.start(1)
    untilWhole(cluster)
    const { reports } = cluster.node(1)
    expect(reports.filter((line) => line.includes("whole again")).length).toBe(1)
    expect(reports.filter((line) => line.includes("have no other owner"))).toEqual([])
  })

  test("is no source for a new owner", () => {
    const cluster = damagedCluster()
    cluster.join(4)
    cluster.stepRing()
    cluster.crash(3)
    cluster.pass(20_000)
    // Node 1 cannot be refilled without node 3, so what node 4 is to get from node 1 is not there.
    const filled = new Set(
      cluster
        .node(4)
        .loop.eventual.ringReport()
        .filled.map(({ slot }) => slot),
    )
    const fromFirst = cluster.ring.changes().filter(({ from, to }) => {
      const before = from.slice(0, 3)
      const after = to.slice(0, 3)
      return before.includes(1) && !after.includes(1) && after.includes(4)
    })
    expect(fromFirst.length).toBeGreaterThan(100)
    expect(fromFirst.filter(({ slot }) => filled.has(slot))).toEqual([])
  })

  test("does not take a stand-in's word for what it held before", () => {
    const cluster = damagedCluster()
    const { machine } = cluster.node(1).loop.eventual
    const slot = slotOf(utf8("a"))
    const body = new ByteWriter(16)
    const ringVersion = cluster.ring.version
    writeEnd(body, { namespace: siblings, slot, epoch: 9, counter: 3, ringVersion })
    const message = new ByteWriter(16)
    message.u8(opCodes.tenureEnded)
    message.u32(body.length)
    message.raw(body.bytes())
    machine.receive(2, message.take())
    expect(machine.owner.copyClock(siblings, slot).contains(actorOf(2, 9), 1)).toBe(false)
  })
})
