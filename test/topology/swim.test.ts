import { describe, expect, test } from "bun:test"
import { ByteReader } from "../../src/lib/byteReader.ts"
import { ByteWriter } from "../../src/lib/byteWriter.ts"
import { Prng } from "../../src/lib/prng.ts"
import { readSwim, type SwimMessage, writeSwim } from "../../src/topology/swim/messages.ts"
import { Swim, swimDefaults } from "../../src/topology/swim/swim.ts"

interface Flying {
  readonly atMs: number
  readonly from: number
  readonly to: number
  readonly message: SwimMessage
}

const stepMs = 30

/** Nodes over a network that loses and delays. */
class World {
  readonly nodes = new Map<number, Swim>()
  nowMs = 0
  sent = 0
  loss = 0
  /** Pairs that hear nothing of each other. */
  readonly cut = new Set<string>()
  readonly paused = new Set<number>()
  private readonly prng: Prng
  private flying: Array<Flying> = []
  private readonly ids: ReadonlyArray<number>

  constructor(seed: number, count: number) {
    this.prng = new Prng(seed)
    this.ids = Array.from({ length: count }, (_, i) => i + 1)
    for (const id of this.ids) this.start(id)
  }

  start(id: number): void {
    const swim = new Swim({
      ...{ self: id, settings: swimDefaults, prng: this.prng.fork(), nowMs: this.nowMs },
      send: (to, message) => {
        this.sent++
        const isCut = this.cut.has(`${Math.min(id, to)} ${Math.max(id, to)}`)
        if (isCut || this.prng.chance(this.loss)) return
        const writer = new ByteWriter()
        writeSwim(writer, message)
        const copy = readSwim(new ByteReader(writer.bytes()))
        const atMs = this.nowMs + this.prng.int(1, 60)
        this.flying.push({ atMs, from: id, to, message: copy })
      },
    })
    swim.setMembers(this.ids, this.nowMs)
    this.nodes.set(id, swim)
  }

  run(ms: number, watch: () => void = () => {}): void {
    for (const end = this.nowMs + ms; this.nowMs < end; ) {
      this.nowMs += stepMs
      const due = this.flying.filter(({ atMs, to }) => atMs <= this.nowMs && !this.paused.has(to))
      this.flying = this.flying.filter((each) => !due.includes(each))
      for (const { from, to, message } of due) {
        this.nodes.get(to)?.receive(from, message, this.nowMs)
      }
      for (const [id, swim] of this.nodes) if (!this.paused.has(id)) swim.tick(this.nowMs)
      watch()
    }
  }

  /** What those that run believe of a node. */
  beliefs(of: number): ReadonlyArray<string | undefined> {
    return [...this.nodes].flatMap(([id, swim]) => (id === of ? [] : [swim.beliefOf(of)]))
  }

  countDown(): number {
    let count = 0
    for (const id of this.nodes.keys())
      for (const belief of this.beliefs(id)) if (belief === "down") count++
    return count
  }
}

const seeds = [1, 2, 3, 4, 5]

describe("swim", () => {
  test("a node that dies is down on all others within two rounds, the suspicion and the spread; one that lives never is", () => {
    for (const seed of seeds) {
      for (const count of [2, 3, 9]) {
        const world = new World(seed, count)
        world.loss = 0.05
        world.run(20_000)
        world.nodes.delete(1)
        // Two rounds at most until somebody probes it, 10 s of suspicion, and rumours take a few periods.
        world.run((2 * count + 10 + 8) * 1000)
        expect(new Set(world.beliefs(1))).toEqual(new Set(["down"]))
        expect(world.countDown()).toBe(0)
      }
    }
  })

  test("with every fifth message lost nobody that lives is ever taken for dead", () => {
    for (const seed of seeds) {
      const world = new World(seed, 7)
      world.loss = 0.2
      let down = 0
      world.run(300_000, () => {
        down += world.countDown()
      })
      expect(down).toBe(0)
    }
  })

  test("a link that is cut between two is no death: others are asked", () => {
    const world = new World(9, 5)
    world.cut.add("1 2")
    const seen = new Set<string | undefined>()
    world.run(120_000, () => {
      for (const belief of [...world.beliefs(1), ...world.beliefs(2)]) seen.add(belief)
    })
    expect(seen).toEqual(new Set(["up"]))
  })

  test("a node that was down clears itself: after a partition, and after a start that forgets its incarnation", () => {
    for (const seed of seeds) {
      const world = new World(seed, 5)
      const others = [2, 3, 4, 5].map((id) => `1 ${id}`)
      for (const pair of others) world.cut.add(pair)
      world.run(60_000)
      expect(new Set(world.beliefs(1))).toEqual(new Set(["down"]))
      for (const pair of others) world.cut.delete(pair)
      world.run(20_000)
      expect(new Set(world.beliefs(1))).toEqual(new Set(["up"]))
      // Once more, dead for good this time, then started anew.
      world.nodes.delete(1)
      world.run(60_000)
      expect(new Set(world.beliefs(1))).toEqual(new Set(["down"]))
      world.start(1)
      world.run(20_000)
      expect(new Set(world.beliefs(1))).toEqual(new Set(["up"]))
      expect(world.countDown()).toBe(0)
    }
  })

  test("a node that stood still for a minute judges nobody by what it missed", () => {
    const world = new World(4, 5)
    world.run(10_000)
    world.paused.add(3)
    world.run(60_000)
    expect(new Set(world.beliefs(3))).toEqual(new Set(["down"]))
    world.paused.delete(3)
    let wronged = 0
    world.run(30_000, () => {
      for (const id of [1, 2, 4, 5]) {
        wronged += world.nodes.get(3)?.beliefOf(id) === "down" ? 1 : 0
      }
    })
    expect(wronged).toBe(0)
    expect(new Set(world.beliefs(3))).toEqual(new Set(["up"]))
  })

  test("what a node sends does not grow with the cluster", () => {
    const perNode = [10, 100].map((count) => {
      const world = new World(1, count)
      world.run(30_000)
      return world.sent / count / 30
    })
    // A ping and an answer to one a second.
    for (const each of perNode) expect(each).toBeLessThan(2.5)
  })

  test("members come and go by the directory alone; rumours of others are nothing", () => {
    const world = new World(2, 3)
    const swim = world.nodes.get(1) as Swim
    const rumours = [{ node: 9, belief: "down", incarnation: 4 }] as const
    swim.receive(2, { _tag: "Swim", range: 0, kind: "ack", sequence: 1, about: 2, rumours }, 0)
    expect(swim.beliefOf(9)).toBe(undefined)
    swim.setMembers([1, 2], 0)
    expect([swim.beliefOf(2), swim.beliefOf(3)]).toEqual(["up", undefined])
  })
})
