import { describe, expect, test } from "bun:test"
import { pairsMax } from "../../src/server/beatMessages.ts"
import { type Asleep, type BeatHost, Beats } from "../../src/server/beats.ts"
import type { PeerMessage } from "../../src/server/peerMessage.ts"
import type { Replica } from "../../src/server/replica.ts"

const groups = 1200
const sleepTicks = 3
const settings = { sleepTicks, heartbeatTicks: 2, electionTicksMin: 10, tickMs: 30 }
const membership = { voters: [1, 2], outgoing: [], learners: [] }

/** As much of a quiet replica as its node's beats look at. The first of two replicas leads. */
function quietReplica(range: number, replica: 1 | 2): Replica {
  const index = range + 100
  const isLeader = replica === 1
  const report = (id: number) => ({ replica: id, match: index, next: index + 1 })
  return {
    ...{ range, isLeader, quietTicks: 0, waiting: 0, isEmpty: false, installing: false },
    ...{ asleep: undefined, damage: undefined, differs: undefined, heardAtMs: 0 },
    machine: { replica, appliedIndex: index },
    log: { lastIndex: index, voteFloor: undefined, missingCount: 0 },
    nodeOf: (id: number) => id,
    raft: {
      ...{ term: 7, lastIndex: index, membership, maySleep: isLeader },
      maySleepUnder: (leader: number, term: number, at: number) =>
        !isLeader && leader === 1 && term === 7 && at === index,
      progress: () => [report(1), report(2)],
      observeClocks: () => {},
      wake: () => {},
    },
  } as unknown as Replica
}

/** The beats of a node over many quiet replicas. */
class BeatingNode {
  readonly byRange = new Map<number, Replica>()
  readonly beats: Beats
  readonly sent: Array<PeerMessage> = []
  readonly clock = { monotonicMs: 1000, wallMs: 1_700_000_000_000 }

  constructor(replica: 1 | 2) {
    for (let range = 1; range <= groups; range++) {
      this.byRange.set(range, quietReplica(range, replica))
    }
    const { byRange, clock } = this
    const set = {
      byRange,
      get awake() {
        return [...byRange.values()].filter(({ asleep }) => asleep === undefined)
      },
      fallAsleep: (sleeper: Replica, asleep: Asleep) => {
        sleeper.asleep = asleep
      },
      wake: (sleeper: Replica) => {
        sleeper.asleep = undefined
      },
    }
    const send = (_: number, message: PeerMessage) => void this.sent.push(message)
    const host = { clock, settings, set, session: replica, isBusy: () => false, send }
    this.beats = new Beats(host as unknown as BeatHost)
  }

  get awake(): ReadonlyArray<number> {
    return [...this.byRange.values()]
      .filter(({ asleep }) => asleep === undefined)
      .map(({ range }) => range)
  }

  rouse(range: number): void {
    this.beats.rouse(this.byRange.get(range) as Replica)
  }

  receive(from: number, message: PeerMessage): void {
    if (message._tag === "Beat") this.beats.beaten(from, message)
    if (message._tag === "BeatEcho") this.beats.echoed(from, message)
    if (message._tag === "Rouse") this.beats.roused(from, message)
  }
}

/** The node that leads all groups, and the one that follows in all. */
class Pair {
  readonly leading = new BeatingNode(1)
  readonly following = new BeatingNode(2)
  readonly heard: Array<PeerMessage> = []

  /** A tick of both, and all that they say to each other about it. Whoever woke stays awake. */
  tick(): void {
    for (const node of [this.leading, this.following]) {
      node.clock.monotonicMs += settings.tickMs
      node.beats.tick()
    }
    while (this.leading.sent.length + this.following.sent.length > 0) {
      this.deliver(1, this.leading, this.following)
      this.deliver(2, this.following, this.leading)
    }
  }

  private deliver(from: number, { sent }: BeatingNode, to: BeatingNode): void {
    for (const message of sent.splice(0)) {
      this.heard.push(message)
      to.receive(from, message)
    }
  }

  untilAsleep(): void {
    for (let i = 0; i < 20; i++) this.tick()
    expect([this.leading.awake, this.following.awake]).toEqual([[], []])
    this.heard.length = 0
  }

  /** How many groups each message of a kind named, in order. */
  counts(tag: "Beat" | "BeatEcho" | "Rouse"): ReadonlyArray<number> {
    return this.heard.flatMap((message) => {
      if (message._tag !== tag) return []
      if (message._tag === "Beat") return [message.asleep.length]
      return [message._tag === "BeatEcho" ? message.held.length : message.pairs.length]
    })
  }

  get echoes(): ReadonlyArray<boolean> {
    return this.heard.flatMap((message) => (message._tag === "BeatEcho" ? [message.equal] : []))
  }

  /** Nobody falls asleep again by itself. */
  keepAwake(): void {
    for (const { byRange } of [this.leading, this.following]) {
      for (const { raft } of byRange.values()) Object.assign(raft, { maySleep: false })
    }
  }
}

describe(`${groups} sleeping groups of two nodes`, () => {
  test(`fall asleep ${pairsMax} with one beat, and the sums agree at each`, () => {
    const pair = new Pair()
    for (let i = 0; i < 20; i++) pair.tick()
    expect(pair.counts("Beat").filter((count) => count > 0)).toEqual([512, 512, 176])
    expect(pair.echoes.every((equal) => equal)).toBe(true)
    expect([pair.leading.awake, pair.following.awake]).toEqual([[], []])
  })

  test("one that woke where it follows is found page by page, and only that one is woken where it is led", () => {
    for (const range of [1, 512, 513, 700, 1025, 1200]) {
      const pair = new Pair()
      pair.untilAsleep()
      pair.keepAwake()
      pair.following.rouse(range)
      for (let i = 0; i < 6; i++) pair.tick()
      expect(pair.leading.awake).toEqual([range])
      expect(pair.following.awake).toEqual([range])
      for (const count of pair.counts("BeatEcho")) expect(count).toBeLessThanOrEqual(pairsMax)
      for (let i = 0; i < 2; i++) pair.tick()
      expect(pair.echoes.at(-1)).toBe(true)
    }
  })

  test("one that woke where it is led, whose beat was lost, is woken where it follows by its page", () => {
    for (const range of [1, 512, 513, 700, 1025, 1200]) {
      const pair = new Pair()
      pair.untilAsleep()
      pair.keepAwake()
      pair.leading.rouse(range)
      for (let i = 0; i < 6; i++) pair.tick()
      expect(pair.following.awake).toEqual([range])
      expect(pair.leading.awake).toEqual([range])
      expect(pair.counts("Rouse")).toEqual([1])
      for (let i = 0; i < 2; i++) pair.tick()
      expect(pair.echoes.at(-1)).toBe(true)
    }
  })

  test("a list that takes three pages begins again where it ended, as long as the sums differ", () => {
    const pair = new Pair()
    pair.untilAsleep()
    pair.keepAwake()
    pair.leading.rouse(1200)
    for (let i = 0; i < 4; i++) pair.tick()
    const pages = pair.heard.flatMap((message) =>
      message._tag === "BeatEcho" ? [[message.after, message.upTo]] : [],
    )
    expect(pages).toEqual([
      [0, 512],
      [512, 1024],
    ])
    expect(pair.following.awake).toEqual([])
    for (let i = 0; i < 2; i++) pair.tick()
    expect(pair.following.awake).toEqual([1200])
  })
})
