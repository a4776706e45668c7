import { describe, expect, test } from "bun:test"
import { opCodes } from "../../src/dynamo/node/opCodes.ts"
import type { EventualReply } from "../../src/dynamo/node/requests.ts"
import { utf8 } from "../../src/lib/bytes.ts"
import { slotOf } from "../../src/lib/slot.ts"
import type { PeerMessage } from "../../src/server/peerMessage.ts"
import {
  codesIn,
  EventualCluster,
  lww,
  put,
  seenIn,
  siblings,
  unmended,
} from "./eventualCluster.ts"

function written(reply: EventualReply | undefined) {
  if (reply?._tag !== "EventualWritten") throw new Error(JSON.stringify(reply))
  return reply
}

function refusal(reply: EventualReply): string {
  return reply._tag === "EventualRefused" ? reply.refusal._tag : reply._tag
}

const holders = (cluster: EventualCluster, key: string, namespace = siblings) => {
  const owners = cluster.owners(key)
  return cluster.held(namespace, key).flatMap((held, i) => (held === "" ? [] : [owners[i]]))
}

/** A fourth node has joined three, and n4 is to own the slot of the key beside those that do: pending, but those who do not hear do not know. */
function moving(deaf: ReadonlyArray<number>): { cluster: EventualCluster; key: string } {
  const cluster = new EventualCluster(3)
  cluster.pass(200)
  cluster.join(4)
  cluster.pass(100)
  cluster.hears = (node) => !deaf.includes(node)
  cluster.stepRing()
  const keys = Array.from({ length: 100 }, (_, i) => `key${i}`)
  const key = keys.find((each) => cluster.ring.changeOf(slotOf(utf8(each))) !== undefined)
  if (key === undefined) throw new Error("no key moves")
  return { cluster, key }
}

/** All but n1 know that the slot of the key has gone from it to n4. */
function departed() {
  const cluster = new EventualCluster(3)
  cluster.pass(200)
  cluster.join(4)
  const goal = cluster.ring.goal()
  const keys = Array.from({ length: 100 }, (_, i) => `key${i}`)
  const key = keys.find((each) => {
    return !goal.lists
      .nodesOf(goal.of[slotOf(utf8(each))])
      .slice(0, 3)
      .includes(1)
  })
  if (key === undefined) throw new Error("n1 stays an owner of all")
  const slot = slotOf(utf8(key))
  for (let i = 0; cluster.owners(key).includes(1); i++) {
    if (i === 100) throw new Error("the slot stays")
    // It has confirmed that the new owners are filled, and hears no more.
    if (cluster.ring.changeOf(slot)?.state === "filled") cluster.hears = (node) => node !== 1
    cluster.stepRing()
    cluster.pass(200)
  }
  return { cluster, key, slot }
}

function isForgottenBy(
  cluster: EventualCluster,
  node: number,
  { namespace, key }: { readonly namespace: number; readonly key: string },
): boolean {
  const { owner } = cluster.node(node).loop.eventual.machine
  return !owner.leftOver(namespace).includes(slotOf(utf8(key)))
}

describe("a coordinator that has not learned the ring yet", () => {
  test("AP pitfall 20: waits for it, and then counts new owners too", () => {
    const { cluster, key } = moving([1])
    const place = { namespace: siblings, key }
    const write = cluster.beginWrite(1, place, put("one"), { strict: true })
    const read = cluster.beginRead(1, place)
    cluster.pass(400)
    expect([write(), read()]).toEqual([undefined, undefined])
    cluster.teach(1)
    cluster.pass(50)
    const { receipt } = written(write())
    expect(receipt).toMatchObject({ sloppy: false, standIns: [] })
    expect(receipt.owners).toEqual(cluster.owners(key))
    expect(receipt.owners.length).toBe(4)
    expect(read()?._tag).toBe("EventualValue")
    cluster.pass(50)
    expect(holders(cluster, key)).toEqual([...cluster.owners(key)])
  })

  test("does not say that it failed before its deadline", () => {
    const { cluster, key } = moving([1])
    const place = { namespace: siblings, key }
    const write = cluster.beginWrite(1, place, put("one"), { strict: true })
    const read = cluster.beginRead(1, place)
    cluster.pass(1900)
    expect([write(), read()]).toEqual([undefined, undefined])
    cluster.pass(200)
    expect(refusal(write() as EventualReply)).toBe("WriteUnknown")
    expect(refusal(read() as EventualReply)).toBe("LevelUnavailable")
  })

  test("leaves a write with those who were owners, for whoever is one now, and says that it is sloppy", () => {
    const { eventual } = new EventualCluster(1).settings
    const exchange = { ...eventual.exchange, bytesPerSecond: 0 }
    const cluster = new EventualCluster(3, { eventual: { ...eventual, exchange } })
    cluster.hears = (node) => node !== 1
    cluster.join(4)
    cluster.stepRing()
    const keys = Array.from({ length: 100 }, (_, i) => `key${i}`)
    const key = keys.find((each) => cluster.owners(each).includes(4)) as string
    const { receipt } = written(cluster.write(1, { namespace: siblings, key }, put("one")))
    expect(receipt).toMatchObject({ sloppy: true, overlap: false, answered: [1] })
    expect(receipt.standIns.length).toBeGreaterThan(0)
    for (const { node, owner } of receipt.standIns) expect(node).toBe(owner)
    cluster.crash(1)
    const present = cluster.owners(key).filter((node) => node !== 1)
    cluster.until("the present owners hold it", () =>
      present.every((node) => {
        const { owner } = cluster.node(node).loop.eventual.machine
        return owner.state(siblings, slotOf(utf8(key)), utf8(key)) !== undefined
      }),
    )
  })

  test("is told that there is a newer one by any other node", () => {
    const { cluster } = moving([1])
    const { eventual } = cluster.node(1).loop
    expect(eventual.isBehind).toBe(false)
    cluster.until("n1 has heard of it", () => eventual.isBehind, 1000)
    cluster.teach(1)
    expect(eventual.isBehind).toBe(false)
  })

  test("has its write taken by the new owners when it finds that it is none of them", () => {
    const { cluster, key } = departed()
    const write = cluster.beginWrite(1, { namespace: siblings, key }, put("one"), { strict: true })
    cluster.pass(300)
    expect(write()).toBe(undefined)
    cluster.teach(1)
    cluster.pass(100)
    const { receipt } = written(write())
    expect(receipt).toMatchObject({ coordinator: 1, sloppy: false, standIns: [] })
    expect(receipt.answered).not.toContain(1)
    cluster.until("all owners hold it", () => holders(cluster, key).length === 3)
    cluster.until("n1 has forgotten the slot", () =>
      isForgottenBy(cluster, 1, { namespace: siblings, key }),
    )
  })

  test("brings to the present owners what it took as one, as soon as it knows them", () => {
    const { cluster, key, slot } = departed()
    cluster.loses = (from, to) => from === 1 || to === 1
    // Under `lww` the first one is replaced before anybody else has seen it.
    const writes = [siblings, lww, lww].map((namespace, i) => {
      return cluster.beginWrite(1, { namespace, key }, put(`${i}`))
    })
    cluster.pass(2200)
    for (const write of writes) expect(refusal(write() as EventualReply)).toBe("WriteUnknown")
    expect(holders(cluster, key)).toEqual([])
    cluster.loses = () => false
    cluster.teach(1)
    for (const namespace of [siblings, lww]) {
      cluster.until("all owners hold it", () => holders(cluster, key, namespace).length === 3)
      cluster.until("n1 has forgotten the slot", () => {
        return isForgottenBy(cluster, 1, { namespace, key })
      })
    }
    for (const node of cluster.owners(key)) {
      const { owner } = cluster.node(node).loop.eventual.machine
      expect(owner.copyClock(lww, slot).hasNoGaps).toBe(true)
    }
  })
})

describe("a coordinator that is ahead of the owners", () => {
  test("asks them again until they know its ring, and has nobody stand in meanwhile", () => {
    const { cluster, key } = moving([2, 3, 4])
    const place = { namespace: siblings, key }
    const write = cluster.beginWrite(1, place, put("one"))
    const read = cluster.beginRead(1, place)
    cluster.pass(80)
    expect([write(), read()]).toEqual([undefined, undefined])
    for (const node of [2, 3, 4]) cluster.teach(node)
    cluster.pass(80)
    expect(written(write()).receipt).toMatchObject({ sloppy: false, standIns: [] })
    expect(read()?._tag).toBe("EventualValue")
  })
})

test("a node that is no member of the ring sends a writer elsewhere, and answers who reads", () => {
  const cluster = new EventualCluster(3)
  cluster.start(4)
  const place = { namespace: siblings, key: "a" }
  // Its members greet it too, or it would take them for down.
  cluster.pass(1500)
  expect(refusal(cluster.write(4, place, put("one"), { level: "one" }))).toBe("RingMoved")
  written(cluster.write(1, place, put("one")))
  expect(seenIn(cluster.read(4, place), siblings, "a").values).toEqual(["one"])
})

describe("a read by digests", () => {
  /** What a quorum read at n1 costs in answers to it. */
  function costOf(cluster: EventualCluster, key: string) {
    let bytes = 0
    let asked = 0
    cluster.loses = (from, to, message) => {
      const codes = codesIn(message)
      if (to === 1 && codes.includes(opCodes.fetched) && message._tag === "Eventual") {
        bytes += message.bytes.length
      }
      if (from === 1) asked += codes.filter((code) => code === opCodes.fetch).length
      return false
    }
    const reply = cluster.read(1, { namespace: siblings, key })
    return { bytes, asked, values: seenIn(reply, siblings, key).values }
  }

  test("brings a large value once, and a small one without another question", () => {
    const cluster = unmended(3)
    const large = "x".repeat(100_000)
    for (const [key, value] of [
      ["large", large],
      ["small", "one"],
    ] as const) {
      written(cluster.write(1, { namespace: siblings, key }, put(value), { level: "all" }))
    }
    const bytesMax = 1000
    const ofLarge = costOf(cluster, "large")
    expect(ofLarge).toMatchObject({ asked: 1, values: [large] })
    expect(ofLarge.bytes).toBeLessThan(bytesMax)
    expect(costOf(cluster, "small")).toMatchObject({ asked: 1, values: ["one"] })
  })

  test("asks for the value where the digests differ", () => {
    const cluster = unmended(3)
    const place = { namespace: siblings, key: "large" }
    cluster.loses = (from) => from === 1
    const first = cluster.write(1, place, put("x".repeat(10_000)), { level: "one" })
    written(first)
    written(cluster.write(2, place, put("y".repeat(10_000)), { level: "one" }))
    cluster.loses = () => false
    const { asked, values } = costOf(cluster, "large")
    expect(values.length).toBe(2)
    expect(asked).toBe(2)
  })
})

describe("what a quorum read has shown", () => {
  const place = { namespace: siblings, key: "a" }

  test("AP pitfall 12: is shown by every quorum read after it, though a write had reached one owner only, and that one is gone", () => {
    let shown = 0
    for (let seed = 1; seed <= 30; seed++) {
      const cluster = unmended(3, seed)
      cluster.loses = (from) => from === 1
      expect(refusal(cluster.write(1, place, put("one")))).toBe("WriteUnknown")
      cluster.loses = () => cluster.prng.chance(0.25)
      const reader = 1 + (seed % 2)
      const reply = cluster.read(reader, place)
      if (reply._tag !== "EventualValue") continue
      const { values } = seenIn(reply, siblings, "a")
      if (values.length === 0) continue
      shown++
      cluster.loses = () => false
      cluster.crash(1)
      for (const node of [2, 3]) {
        const later = seenIn(cluster.read(node, place), siblings, "a").values
        expect(`${seed} ${later}`).toBe(`${seed} one`)
      }
    }
    expect(shown).toBeGreaterThan(5)
  })

  test("AP pitfall 14: is not shown while nobody else can be brought it, at a level above one", () => {
    const cluster = unmended(3)
    cluster.loses = (from) => from === 1
    expect(refusal(cluster.write(1, place, put("one")))).toBe("WriteUnknown")
    cluster.loses = (_, __, message) => codesIn(message).includes(opCodes.store)
    expect(refusal(cluster.read(1, place))).toBe("LevelUnavailable")
    expect(seenIn(cluster.read(1, place, "one"), siblings, "a").values).toEqual(["one"])
    cluster.loses = () => false
    const reply = cluster.read(1, place)
    expect(seenIn(reply, siblings, "a").values).toEqual(["one"])
    if (reply._tag === "EventualValue") expect(reply.receipt.repairs.length).toBe(1)
  })
})

test("an owner that answers a read late, with something else, is brought what the read has shown", () => {
  const cluster = unmended(3)
  const place = { namespace: siblings, key: "a" }
  cluster.loses = (_, to) => to === 2
  written(cluster.write(1, place, put("one")))
  cluster.pass(2500)
  expect(holders(cluster, "a").includes(2)).toBe(false)
  const stopped: Array<PeerMessage> = []
  cluster.loses = () => false
  cluster.pass(300)
  cluster.loses = (from, _, message) => {
    if (from === 2 && codesIn(message).includes(opCodes.fetched)) return stopped.push(message) > 0
    return false
  }
  // One of the two is asked at first, and the other as its spare.
  for (const node of [1, 3]) {
    expect(seenIn(cluster.read(node, place), siblings, "a").values).toEqual(["one"])
  }
  expect(stopped.length).toBeGreaterThan(0)
  expect(holders(cluster, "a").includes(2)).toBe(false)
  for (const to of [1, 3]) {
    for (const message of stopped) cluster.node(to).loop.receive(2, message)
  }
  cluster.pass(100)
  expect(holders(cluster, "a").includes(2)).toBe(true)
})
