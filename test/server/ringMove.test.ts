import { expect, test } from "bun:test"
import { opCodes } from "../../src/dynamo/node/opCodes.ts"
import { text, utf8 } from "../../src/lib/bytes.ts"
import { slotOf } from "../../src/lib/slot.ts"
import type { PeerMessage } from "../../src/server/peerMessage.ts"
import { memberOf } from "../../src/topology/member.ts"
import { withParting } from "../../src/topology/ringMembers.ts"
import { ringFrom } from "../topology/harness.ts"
import { codesIn, EventualCluster, put, seenIn, siblings } from "./eventualCluster.ts"

test("slots move to a node that joins while writes go on; who had them forgets them, and nothing is lost", () => {
  const cluster = new EventualCluster(3)
  const base = cluster.settings.eventual
  const settings = { ...base, exchange: { ...base.exchange, passMs: 500 } }
  Object.assign(cluster.settings as { eventual: typeof base }, { eventual: settings })
  const acknowledged = new Set<string>()
  const write = (i: number) => {
    const key = `key${i % 40}`
    const place = { namespace: siblings, key }
    const at = cluster.owners(key)[i % 3] as number
    const { context } = seenIn(cluster.read(at, place), siblings, key)
    const reply = cluster.write(at, place, put(`${i}`), { context })
    if (reply._tag === "EventualWritten") acknowledged.add(`${key} ${i}`)
  }
  for (let i = 0; i < 60; i++) write(i)
  cluster.join(4)
  for (let i = 60; i < 400 && !cluster.isRingAtRest; i++) {
    write(i)
    cluster.stepRing()
    cluster.pass(50)
  }
  cluster.until("the ring is at rest", () => {
    cluster.stepRing()
    return cluster.isRingAtRest
  })
  const machines = [...cluster.nodes.values()].map(({ loop }) => loop.eventual.machine)
  cluster.until("former owners have forgotten", () =>
    machines.every(({ owner }) => owner.leftOver(siblings).length === 0),
  )
  expect(machines.some(({ formerSlots }) => formerSlots.forgotten > 0)).toBe(true)
  const latest = new Map<string, number>()
  for (const each of acknowledged) {
    const [key, i] = each.split(" ") as [string, string]
    latest.set(key, Math.max(latest.get(key) ?? 0, Number(i)))
  }
  let held = 0
  for (const [key, i] of latest) {
    const { values } = seenIn(cluster.read(4, { namespace: siblings, key }, "all"), siblings, key)
    expect(values.map(Number), key).toContain(i)
    if (cluster.owners(key).includes(4)) held++
    for (const { node, owner } of machines) {
      if (cluster.owners(key).includes(node)) continue
      expect(owner.state(siblings, slotOf(utf8(key)), utf8(key)), text(utf8(key))).toBe(undefined)
    }
  }
  expect(held).toBeGreaterThan(5)
}, 120_000)

test("who leaves says what it keeps for others, and takes nothing more for them once it is out", () => {
  const cluster = new EventualCluster(5)
  const key = Array.from({ length: 100 }, (_, i) => `key${i}`).find(
    (each) => cluster.ring.standIns(slotOf(utf8(each)), 3)[0] === 5,
  ) as string
  const [down, coordinator] = cluster.owners(key) as [number, number]
  const parting = cluster.node(5).loop.eventual
  cluster.pass(500)
  cluster.crash(down)
  const late: Array<PeerMessage> = []
  cluster.loses = (_, to, message) => {
    const isHint = to === 5 && codesIn(message).includes(opCodes.store)
    if (isHint) late.push(message)
    return isHint
  }
  const place = { namespace: siblings, key }
  cluster.write(coordinator, place, put("late"), { level: "one" })
  cluster.until("a hint was on its way", () => late.length > 0)
  cluster.loses = () => false
  cluster.write(coordinator, place, put("kept"), { level: "one" })
  cluster.until("it keeps a hint", () => parting.ringReport().owed > 0)
  cluster.start(down)
  cluster.until("it has delivered it", () => parting.ringReport().owed === 0)
  cluster.ring = ringFrom(withParting(cluster.ring, 5, "leaving"))
  for (const id of cluster.nodes.keys()) cluster.teach(id)
  // A version costs each node a look at all slots.
  while (memberOf(cluster.ring.members, 5) !== undefined) {
    cluster.stepRing()
    cluster.pass(300)
  }
  for (const message of late) cluster.node(5).loop.receive(coordinator, message)
  cluster.pass(100)
  expect(parting.ringReport()).toMatchObject({ owed: 0, confirmed: cluster.ring.version })
  expect(parting.machine.hints.count).toBe(0)
  const refused = cluster.write(5, place, put("lost"), { level: "one" })
  expect(refused).toMatchObject({ _tag: "EventualRefused", refusal: { _tag: "RingMoved" } })
}, 60_000)
