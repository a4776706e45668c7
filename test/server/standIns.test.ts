import { describe, expect, test } from "bun:test"
import { SetState } from "../../src/dynamo/crdt/set.ts"
import { actorOf } from "../../src/dynamo/dot.ts"
import { opCodes } from "../../src/dynamo/node/opCodes.ts"
import type { EventualChange, EventualReply } from "../../src/dynamo/node/requests.ts"
import { writeEnd } from "../../src/dynamo/node/tenures.ts"
import { viewOf } from "../../src/dynamo/valueView.ts"
import { utf8 } from "../../src/lib/bytes.ts"
import { ByteWriter } from "../../src/lib/byteWriter.ts"
import { slotOf } from "../../src/lib/slot.ts"
import { memberOf } from "../../src/topology/member.ts"
import { withNewcomer, withParting } from "../../src/topology/ringMembers.ts"
import { newcomerOf, ringFrom } from "../topology/harness.ts"
import {
  add,
  codesIn,
  counter,
  EventualCluster,
  increment,
  put,
  seenIn,
  set,
  siblings,
} from "./eventualCluster.ts"

const place = { namespace: siblings, key: "a" }
const ids = [1, 2, 3, 4, 5]

function written(reply: EventualReply) {
  if (reply._tag !== "EventualWritten") throw new Error(JSON.stringify(reply))
  return reply
}

function refusal(reply: EventualReply): string {
  return reply._tag === "EventualRefused" ? reply.refusal._tag : reply._tag
}

function standInsAtRest(cluster: EventualCluster): boolean {
  return ids.every((id) => {
    const { hints, tenures } = cluster.node(id).loop.eventual.machine
    return hints.count === 0 && tenures.counts.lasting + tenures.counts.ended === 0
  })
}

const heldAlike = (cluster: EventualCluster) => new Set(cluster.held(siblings, "a")).size === 1

describe("stand-ins", () => {
  test("AP pitfall 11: take a write for owners that are down, say so, and bring it to them", () => {
    const cluster = new EventualCluster(5)
    const [first, second, third] = cluster.owners("a") as [number, number, number]
    cluster.crash(second)
    cluster.crash(third)
    cluster.pass(1500)
    expect(refusal(cluster.write(first, place, put("one"), { strict: true }))).toBe(
      "LevelUnavailable",
    )
    const { receipt } = written(cluster.write(first, place, put("one")))
    expect(receipt).toMatchObject({ sloppy: true, overlap: false, answered: [first] })
    expect(receipt.standIns.length).toBeGreaterThanOrEqual(1)
    expect(new Set(receipt.standIns.map(({ node }) => node)).size).toBe(receipt.standIns.length)
    // What stands in does not answer for the key.
    expect(refusal(cluster.read(first, place))).toBe("LevelUnavailable")
    cluster.start(second)
    cluster.start(third)
    cluster.until("all owners have it", () => heldAlike(cluster))
    cluster.until("no hint is left", () => standInsAtRest(cluster))
    expect(seenIn(cluster.read(third, place, "all"), siblings, "a").values).toEqual(["one"])
  })

  test("are rid of an old hint whose owner is lost, once those who own the key then have it", () => {
    const base = new EventualCluster(1).settings.eventual
    const hints = { ...base.hints, windowMs: 300 }
    const cluster = new EventualCluster(4, { eventual: { ...base, hints } })
    const [coordinator, , lost] = cluster.owners("a") as [number, number, number]
    const standIn = ids.find((id) => id <= 4 && !cluster.owners("a").includes(id)) as number
    cluster.crash(lost)
    cluster.pass(1500)
    written(cluster.write(coordinator, place, put("one"), { level: "all" }))
    const { machine } = cluster.node(standIn).loop.eventual
    expect(machine.hints.owed()).toMatchObject([{ node: lost, count: 1 }])
    // It is offered to the others, too, who say that they have it.
    cluster.pass(2000)
    cluster.ring = ringFrom(withParting(cluster.ring, lost, "gone"))
    for (const id of cluster.nodes.keys()) cluster.teach(id)
    while (!cluster.isRingAtRest || memberOf(cluster.ring.members, lost) !== undefined) {
      cluster.stepRing()
      cluster.pass(300)
    }
    expect(cluster.owners("a")).toContain(standIn)
    cluster.until("no hint is left", () => machine.hints.count === 0)
    expect(seenIn(cluster.read(standIn, place, "all"), siblings, "a").values).toEqual(["one"])
  })

  test("write themselves when no owner is up, in a tenure that ends when all owners have it", () => {
    const cluster = new EventualCluster(5)
    const owners = cluster.owners("a")
    const standIn = ids.find((id) => !owners.includes(id)) as number
    for (const owner of owners) cluster.crash(owner)
    cluster.pass(1500)
    const { machine } = cluster.node(standIn).loop.eventual
    written(cluster.write(standIn, place, put("one")))
    written(cluster.write(standIn, place, put("two"), { level: "one" }))
    expect(machine.tenures.counts).toEqual({ lasting: 1, ended: 0 })
    // It may lose power meanwhile.
    cluster.restart(standIn)
    for (const owner of owners) cluster.start(owner)
    cluster.until("all owners have it", () => heldAlike(cluster) && standInsAtRest(cluster))
    expect(seenIn(cluster.read(owners[0] as number, place, "all"), siblings, "a").values).toEqual([
      "one",
      "two",
    ])
    const slot = slotOf(utf8("a"))
    for (const owner of owners) {
      const clock = cluster.node(owner).loop.eventual.machine.owner.copyClock(siblings, slot)
      expect(clock.hasNoGaps).toBe(true)
    }
  })

  test("begin no tenure for a write that they refuse", () => {
    const cluster = new EventualCluster(5)
    const owners = cluster.owners("a")
    const standIn = ids.find((id) => !owners.includes(id)) as number
    for (const owner of owners) cluster.crash(owner)
    cluster.pass(1500)
    const { machine } = cluster.node(standIn).loop.eventual
    const beyond: EventualChange = { _tag: "Increment", delta: 2n ** 63n }
    const counted = { namespace: counter, key: "a" }
    expect(refusal(cluster.write(standIn, counted, beyond))).toBe("InvalidRequest")
    expect(machine.tenures.counts).toEqual({ lasting: 0, ended: 0 })
    cluster.restart(standIn)
    cluster.pass(1500)
    expect(cluster.node(standIn).loop.eventual.machine.tenures.counts.lasting).toBe(0)
    written(cluster.write(standIn, counted, increment(1), { level: "one" }))
    expect(refusal(cluster.write(standIn, counted, beyond))).toBe("InvalidRequest")
    expect(cluster.node(standIn).loop.eventual.machine.tenures.counts.lasting).toBe(1)
  })

  test("have another epoch in a second tenure", () => {
    const cluster = new EventualCluster(5)
    const owners = cluster.owners("a")
    const standIn = ids.find((id) => !owners.includes(id)) as number
    const actors = new Set<number>()
    for (let round = 0; round < 2; round++) {
      for (const owner of owners) cluster.crash(owner)
      cluster.pass(1500)
      const { tenures } = cluster.node(standIn).loop.eventual.machine
      actors.add(tenures.next(siblings, slotOf(utf8("a"))).actor)
      written(cluster.write(standIn, place, put(`${round}`)))
      for (const owner of owners) cluster.start(owner)
      cluster.until("all owners have it", () => heldAlike(cluster) && standInsAtRest(cluster))
    }
    expect(actors.size).toBe(2)
    expect(seenIn(cluster.read(standIn, place, "all"), siblings, "a").values).toEqual(["0", "1"])
  })

  test("build on what they wrote before, though its hint was delivered while others of the slot were not", () => {
    const cluster = new EventualCluster(5)
    const standIn = ids.find((id) => !cluster.owners("{a}").includes(id)) as number
    const total = 60
    const ask = (namespace: number, key: string, change: EventualChange, token: number) => {
      const fields = { context: undefined, level: undefined, strict: false, requestId: 0 }
      cluster.node(standIn).loop.requestEventual({
        ...{ _tag: "EventualWrite", token, namespace, key: utf8(key), change, ...fields },
        deadlineMs: 5000,
      })
    }
    // Nobody waits for answers, so that there is always a hint in the slot, and its tenures last.
    for (let i = 0; i < total; i++) {
      const token = 7_000_000 + 4 * i
      ask(set, `{a}${i % 5}`, add(`${i}`), token)
      ask(counter, `{a}${i % 5}`, increment(1), token + 1)
      cluster.pass(10)
    }
    cluster.until("no hint is left", () => standInsAtRest(cluster))
    const [owner] = cluster.owners("{a}") as [number]
    for (let i = 0; i < 5; i++) {
      const found = cluster.read(owner, { namespace: set, key: `{a}${i}` }, "all")
      const counted = cluster.read(owner, { namespace: counter, key: `{a}${i}` }, "all")
      if (found._tag !== "EventualValue" || counted._tag !== "EventualValue") throw new Error()
      expect(SetState.read(found.state).members.length).toBe(total / 5)
      expect(viewOf(counted.state as Uint8Array)).toMatchObject({ value: BigInt(total / 5) })
    }
  })

  test("tell the end of a tenure to nobody who owns the slot no more", () => {
    const cluster = new EventualCluster(4)
    cluster.pass(100)
    const goal = ringFrom(withNewcomer(cluster.ring, newcomerOf(5), 16)).goal()
    const next = (key: string) => goal.lists.nodesOf(goal.of[slotOf(utf8(key))]).slice(0, 3)
    const keys = Array.from({ length: 100 }, (_, i) => `key${i}`)
    const key = keys.find((each) => next(each).includes(5)) as string
    const owners = cluster.owners(key)
    const parting = owners.find((owner) => !next(key).includes(owner)) as number
    const standIn = [1, 2, 3, 4].find((id) => !owners.includes(id)) as number
    for (const owner of owners) cluster.crash(owner)
    cluster.pass(1500)
    written(cluster.write(standIn, { namespace: siblings, key }, put("one"), { level: "one" }))
    for (const owner of owners) cluster.start(owner)
    // The one that is to go does not hear of the end as long as it is an owner.
    cluster.loses = (from, to, message) =>
      from === parting && to === standIn && codesIn(message).includes(opCodes.tenureKnown)
    const { hints, tenures } = cluster.node(standIn).loop.eventual.machine
    cluster.until("the hints are delivered", () => hints.count === 0)
    cluster.pass(1500)
    expect(tenures.counts).toEqual({ lasting: 0, ended: 1 })
    cluster.join(5)
    for (let i = 0; i < 100 && cluster.owners(key).includes(parting); i++) {
      cluster.stepRing()
      cluster.pass(200)
    }
    cluster.loses = () => false
    cluster.until("nothing is to be told", () => tenures.counts.ended === 0)
  })

  test("are not believed by an owner since then, which was given nothing of the tenure", () => {
    const cluster = new EventualCluster(4)
    cluster.pass(100)
    const before = cluster.ring.version
    cluster.join(5)
    cluster.until("the ring rests", () => {
      cluster.stepRing()
      cluster.pass(200)
      return cluster.isRingAtRest
    })
    const isNew = (each: string) =>
      cluster.owners(each).includes(5) && cluster.ring.changedAt(slotOf(utf8(each))) > before
    const key = Array.from({ length: 100 }, (_, i) => `key${i}`).find(isNew) as string
    const slot = slotOf(utf8(key))
    const { machine } = cluster.node(5).loop.eventual
    const told = (ringVersion: number) => {
      const body = new ByteWriter(16)
      writeEnd(body, { namespace: siblings, slot, epoch: 9, counter: 3, ringVersion })
      const message = new ByteWriter(16)
      message.u8(opCodes.tenureEnded)
      message.u32(body.length)
      message.raw(body.bytes())
      machine.receive(2, message.take())
      return machine.owner.copyClock(siblings, slot).covers(actorOf(2, 9), 3)
    }
    expect(told(before)).toBe(false)
    expect(told(cluster.ring.version)).toBe(true)
  })

  test("AP pitfall 10: hold no more for an owner than its budget, and lose nothing that was acknowledged over it", () => {
    const base = new EventualCluster(3).settings.eventual
    const hints = { ...base.hints, bytesPerOwnerMax: 600 }
    const cluster = new EventualCluster(5, { eventual: { ...base, hints } })
    const owners = cluster.owners("a")
    for (const owner of owners.slice(1)) cluster.crash(owner)
    cluster.pass(1500)
    const acknowledged: Array<string> = []
    for (let i = 0; i < 30; i++) {
      const reply = cluster.write(owners[0] as number, place, put(`${i}`.padStart(30, "0")))
      if (reply._tag === "EventualWritten") acknowledged.push(`${i}`.padStart(30, "0"))
    }
    expect(acknowledged.length).toBeGreaterThan(2)
    expect(acknowledged.length).toBeLessThan(30)
    for (const id of ids) {
      if (!cluster.nodes.has(id)) continue
      for (const { bytes } of cluster.node(id).loop.eventual.machine.hints.owed()) {
        expect(bytes).toBeLessThan(1300)
      }
    }
    for (const owner of owners.slice(1)) cluster.start(owner)
    cluster.until("all owners have it", () => heldAlike(cluster) && standInsAtRest(cluster))
    const { values } = seenIn(cluster.read(owners[1] as number, place, "all"), siblings, "a")
    for (const value of acknowledged) expect(values).toContain(value)
  })
})
