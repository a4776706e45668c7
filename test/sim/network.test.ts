import { expect, test } from "bun:test"
import { Prng } from "../../src/lib/prng.ts"
import type { PeerMessage } from "../../src/server/peerMessage.ts"
import { EventQueue } from "./eventQueue.ts"
import { Network } from "./network.ts"
import type { NetworkParameters } from "./parameters.ts"
import { Trace } from "./trace.ts"

const calm: NetworkParameters = {
  encode: false,
  inOrder: false,
  delayMinUs: 100,
  delayMaxUs: 5_000,
  spikeRate: 0,
  spikeMaxUs: 100_000,
  lossRate: 0,
  lossNoticedRate: 0,
  duplicateRate: 0,
  duplicateDelayMinUs: 100,
  duplicateDelayMaxUs: 2_000_000,
}

/** Sends 200 numbered messages from node 1 to node 2, one each 100 us, and returns what arrives. */
function run(
  parameters: Partial<NetworkParameters>,
  during: (network: Network, i: number) => void = () => {},
) {
  const queue = new EventQueue()
  const arrived: Array<PeerMessage> = []
  let lost = 0
  const world = {
    now: 0,
    trace: new Trace(),
    schedule: (time: number, event: () => void) => queue.push(time, event),
    deliver: (_from: number, _to: number, message: PeerMessage) => arrived.push(message),
    lost: () => {
      lost++
    },
  }
  const network = new Network({ world, parameters: { ...calm, ...parameters }, prng: new Prng(7) })
  for (let i = 0; i < 200; i++) {
    queue.push(i * 100, () => {
      during(network, i)
      network.send(1, 2, {
        _tag: "Raft",
        range: 1,
        message: { _tag: "HeartbeatResponse", from: 1, to: 2, term: 3, round: i, full: false },
      })
    })
  }
  while (queue.size > 0) {
    const event = queue.pop()
    world.now = event.time
    event.run()
  }
  const rounds = arrived.map((message) =>
    message._tag === "Raft" && message.message._tag === "HeartbeatResponse"
      ? message.message.round
      : -1,
  )
  return { rounds, lost, end: world.now }
}

const all = Array.from({ length: 200 }, (_, i) => i)
const sorted = (numbers: ReadonlyArray<number>) => [...numbers].sort((left, right) => left - right)

test("a calm network loses nothing, but a later message may overtake", () => {
  const { rounds } = run({})
  expect(sorted(rounds)).toEqual(all)
  expect(rounds).not.toEqual(all)
})

test("an ordered network keeps the order of each link", () => {
  expect(run({ inOrder: true }).rounds).toEqual(all)
})

test("messages travel as bytes and come out the same", () => {
  expect(run({ inOrder: true, encode: true }).rounds).toEqual(all)
})

test("losses are lost, and noticed as the parameters say", () => {
  const { rounds, lost } = run({ lossRate: 0.3, lossNoticedRate: 1 })
  expect(rounds.length).toBeLessThan(190)
  expect(lost).toBe(200 - rounds.length)
})

test("a message may come again, also seconds later", () => {
  const { rounds, end } = run({ duplicateRate: 0.5 })
  expect(rounds.length).toBeGreaterThan(250)
  expect(new Set(rounds).size).toBe(200)
  expect(end).toBeGreaterThan(1_000_000)
})

test("a cut link passes nothing in its direction until every cut has healed", () => {
  const { rounds } = run({ inOrder: true }, (network, i) => {
    if (i === 50 || i === 60) network.cut(1, 2)
    if (i === 0) network.cut(2, 1)
    if (i === 70 || i === 100) network.heal(1, 2)
  })
  expect(rounds).toEqual(all.filter((i) => i < 50 || i >= 100))
})

test("after healing for good every message arrives once and in order", () => {
  const { rounds } = run({ lossRate: 0.5, duplicateRate: 0.5 }, (network, i) => {
    if (i === 0) network.becomePerfect()
  })
  expect(rounds).toEqual(all)
})
