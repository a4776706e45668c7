import { expect, test } from "bun:test"
import { text, utf8 } from "../../src/lib/bytes.ts"
import { slotOf } from "../../src/lib/slot.ts"
import { EventualCluster, put, seenIn, siblings } from "./eventualCluster.ts"

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
