import { describe, expect, test } from "bun:test"
import { readMessage } from "../../../src/dynamo/node/exchangeOps.ts"
import { Exchanges } from "../../../src/dynamo/node/exchanges.ts"
import { ByteReader } from "../../../src/lib/byteReader.ts"
import { utf8 } from "../../../src/lib/bytes.ts"
import { slotOf } from "../../../src/lib/slot.ts"
import {
  AdoptedFirst,
  AnotherLife,
  AnyRing,
  AnySource,
  exchangesWith,
  FilledTooEarly,
  LateOverlooked,
  LiveNewsOnly,
  NothingGated,
  NumbersAgain,
} from "./exchangesBugs.ts"
import type { Parts } from "./exchangesNode.ts"
import { type Envelope, namespace, owned, pending, Story } from "./exchangesStories.ts"

const key = "a key"
const slot = slotOf(utf8(key))

/** The first message of a parcel. */
function kindOf({ bytes }: Envelope): string {
  const reader = new ByteReader(bytes)
  reader.u8()
  const { message } = readMessage(new ByteReader(reader.raw(reader.u32())))
  return message._tag === "AnswerBody" ? `answer ${message.kind}` : message._tag
}

describe("two owners", () => {
  test("AP pitfall 15: take over from each other what they lack, and then say no more than sums", () => {
    const story = new Story({ nodes: 2 })
    story.learn([1, 2], 1, owned([slot], [1, 2]))
    story.write(1, key, "of n1")
    story.write(2, key, "of n2")
    story.settle()
    expect(story.values(1, key)).toEqual(["of n1", "of n2"])
    expect(story.stateOf(2, key)).toEqual(story.stateOf(1, key) as Uint8Array)
    expect(story.node(1).exchanges.divergence()).toMatchObject([{ node: 2, keys: 0, oldestMs: 0 }])
    const kinds = new Set<string>()
    for (let i = 0; i < 20; i++) {
      story.tick(20)
      for (;;) {
        const envelope = story.network[0]
        if (envelope === undefined) break
        kinds.add(kindOf(envelope))
        story.deliver()
      }
    }
    expect([...kinds].sort()).toEqual(["Compare", "answer 17"])
  })

  test("AP pitfall 16: take over deletes, and what was reaped is not brought back by who had it before", () => {
    const story = new Story({ nodes: 2 })
    story.learn([1, 2], 1, owned([slot], [1, 2]))
    story.write(1, key, "old")
    const old = story.stateOf(1, key) as Uint8Array
    story.settle()
    story.write(2, key, undefined)
    story.settle()
    expect(story.values(1, key)).toEqual([])
    expect(story.stateOf(1, key)).toBeDefined()
    story.reap([1, 2], key)
    expect(story.stateOf(1, key)).toBeUndefined()
    story.bring(1, key, old)
    expect(story.stateOf(1, key)).toBeUndefined()
  })

  /** The second was brought a delete alone, and has never seen what it deletes. */
  const deleteAlone = (make?: (parts: Parts) => Exchanges) => {
    const story = new Story({ nodes: 3, ...(make === undefined ? {} : { make }) })
    story.learn([1, 2, 3], 1, owned([slot], [1, 2, 3]))
    for (const id of [1, 3]) story.node(id).down.add(2)
    story.write(2, key, "old")
    const old = story.stateOf(2, key) as Uint8Array
    story.write(2, key, undefined)
    story.bring(1, key, story.stateOf(2, key) as Uint8Array)
    for (let i = 0; i < 20; i++) {
      story.tick(20, [1, 3])
      while (story.network.length > 0) story.deliver()
    }
    story.bring(3, key, old)
    return story.values(3, key)
  }

  test("take over deletes of what they never had, so that it does not come later", () => {
    expect(deleteAlone()).toEqual([])
    const left = deleteAlone((parts) => new (exchangesWith({ source: LiveNewsOnly }))(parts))
    expect(left).toEqual(["old"])
  })

  test("count what differs while they can't agree, and since when", () => {
    const story = new Story({ nodes: 2, exchanges: { attemptsMax: 2 } })
    story.learn([1, 2], 1, owned([slot], [1, 2]))
    story.write(2, key, "new")
    for (let i = 0; i < 40; i++) {
      story.tick(20, [1])
      while (story.network.length > 0) {
        // The news never arrives.
        if (kindOf(story.network[0]) === "answer 20") story.network.shift()
        else story.deliver()
      }
    }
    const [{ keys, oldestMs }] = story.node(1).exchanges.divergence()
    expect(keys).toBe(1)
    expect(oldestMs).toBeGreaterThan(300)
    story.settle()
    expect(story.node(1).exchanges.divergence()).toMatchObject([{ keys: 0, oldestMs: 0 }])
  })

  test("wait for who is busy with others, and get their turn", () => {
    const story = new Story({ nodes: 4, exchanges: { servedMax: 1 } })
    story.learn([1, 2, 3, 4], 1, owned([slot], [1, 2, 3, 4]))
    story.write(1, key, "new")
    const kinds = new Set<string>()
    for (let i = 0; i < 100; i++) {
      story.tick(20)
      for (;;) {
        const envelope = story.network[0]
        if (envelope === undefined) break
        kinds.add(kindOf(envelope))
        story.deliver()
      }
    }
    expect(kinds).toContain("answer 23")
    for (const id of [2, 3, 4]) expect(story.values(id, key)).toEqual(["new"])
  })

  test("AP pitfall 21: stay within the budget", () => {
    const bytesPerSecond = 20_000
    const story = new Story({ nodes: 2, exchanges: { bytesPerSecond, pageBytes: 2000 } })
    story.learn([1, 2], 1, owned([slot], [1, 2]))
    for (let i = 0; i < 100; i++) story.write(1, `{${key}}${i}`, "x".repeat(1000))
    const bytes = story.settle(100)
    // Two seconds, and what was saved up; either side counts both ways.
    expect(bytes).toBeLessThan(2.3 * bytesPerSecond)
    expect(bytes).toBeGreaterThan(1.2 * bytesPerSecond)
    for (let i = 0; i < 30; i++) story.settle(20)
    expect(story.values(2, `{${key}}99`)).toEqual(["x".repeat(1000)])
  })

  test("that were out of reach of each other compare everything at once, and say what they don't know", () => {
    const story = new Story({ nodes: 2, exchanges: { passMs: 1_000_000 } })
    const keys = Array.from({ length: 20 }, (_, i) => `key ${i}`)
    const slots = keys.map((name) => slotOf(utf8(name)))
    const runs = new Set(slots.map((one) => Math.floor(one / 64))).size
    story.learn([1, 2], 1, owned(slots, [1, 2]))
    expect(story.node(1).exchanges.divergence()).toMatchObject([{ runsUnknown: runs }])
    story.settle()
    story.node(1).down.add(2)
    story.node(2).down.add(1)
    for (const [i, name] of keys.entries()) story.write((i % 2) + 1, name, "written apart")
    expect(story.settle()).toBe(0)
    expect(story.node(2).exchanges.divergence()).toMatchObject([{ runsUnknown: runs }])
    for (const node of story.nodes) node.down.clear()
    story.settle(3)
    for (const name of keys) {
      for (const id of [1, 2]) expect(story.values(id, name)).toEqual(["written apart"])
    }
    for (const node of story.nodes) {
      expect(node.exchanges.divergence()).toMatchObject([{ keys: 0, runsUnknown: 0 }])
    }
  })

  test("ask for nothing while there is no room for it", () => {
    const story = new Story({ nodes: 2 })
    story.learn([1, 2], 1, owned([slot], [1, 2]))
    story.write(1, key, "new")
    story.node(2).store.isFull = true
    story.settle()
    expect(story.values(2, key)).toEqual([])
    story.node(2).store.isFull = false
    story.settle()
    expect(story.values(2, key)).toEqual(["new"])
  })

  test("need no message that was lost", () => {
    const story = new Story({ nodes: 2 })
    story.learn([1, 2], 1, owned([slot], [1, 2]))
    story.write(1, key, "new")
    let count = 0
    for (let i = 0; i < 600; i++) {
      story.tick(20)
      while (story.network.length > 0) {
        if (++count % 3 === 0) story.network.shift()
        else story.deliver()
      }
    }
    expect(story.values(2, key)).toEqual(["new"])
  })
})

/** A new owner takes in, while it is being filled, what was deleted and reaped before it came. */
function lateKey(make?: (parts: Parts) => Exchanges): Story {
  const story = new Story({ nodes: 3, ...(make === undefined ? {} : { make }) })
  story.learn([1, 2, 3], 1, owned([slot], [1, 2]))
  story.write(1, key, "old")
  story.write(1, `{${key}}2`, "other")
  const old = story.stateOf(1, key) as Uint8Array
  story.write(1, key, undefined)
  story.settle()
  story.reap([1, 2], key)
  const step = pending([slot], { from: [1, 2], to: [1, 3], since: 2 })
  story.learn([1, 2, 3], 2, step)
  for (let i = 0; i < 400 && story.node(3).exchanges.filled().length === 0; i++) {
    if (story.network.length === 0) story.tick(20, [3])
    const envelope = story.network[0]
    if (envelope === undefined) continue
    // The trees have been asked about on either side by now.
    if (envelope.to === 3 && kindOf(envelope) === "answer 21") story.bring(3, key, old)
    story.deliver()
  }
  expect(story.node(3).exchanges.filled()).toEqual([{ slot, since: 2 }])
  expect(story.values(3, `{${key}}2`)).toEqual(["other"])
  return story
}

/** Ticks and delivers until this message is the next to arrive, which is taken out. */
function until(story: Story, isIt: (envelope: Envelope) => boolean): Envelope {
  for (let i = 0; i < 1000; i++) {
    if (story.network.length === 0) story.tick(20)
    const next = story.network[0]
    if (next !== undefined && isIt(next)) return story.network.shift() as Envelope
    story.deliver()
  }
  throw new Error("it never comes")
}

const second = `{${key}}2`

describe("a node that begins another life during a pull", () => {
  const lost = (make?: (parts: Parts) => Exchanges) => {
    const story = new Story({ nodes: 2, ...(make === undefined ? {} : { make }) })
    const ring = owned([slot], [1, 2])
    story.learn([1, 2], 1, ring)
    story.write(2, key, "value")
    story.settle()
    story.write(2, second, "value")
    const isOpened = (envelope: Envelope) => envelope.to === 1 && kindOf(envelope) === "answer 19"
    const opened = until(story, isOpened)
    story.node(2).wipe(() => 9)
    story.learn([2], 1, ring)
    story.network.unshift(opened)
    story.settle()
    return story
  }

  test("AP pitfall 4: and has lost everything takes nothing from others with it", () => {
    expect(lost().values(1, key)).toEqual(["value"])
    expect(lost().values(2, key)).toEqual(["value"])
    const wrong = lost((parts) => new (exchangesWith({ source: AnotherLife }))(parts))
    expect(wrong.values(1, key)).toEqual([])
  })

  const restarted = (make?: (parts: Parts) => Exchanges) => {
    const story = new Story({ nodes: 2, ...(make === undefined ? {} : { make }) })
    story.learn([1, 2], 1, owned([slot], [1, 2]))
    story.write(2, key, "value")
    const isPage = (envelope: Envelope) => envelope.to === 1 && kindOf(envelope) === "answer 20"
    const page = until(story, isPage)
    story.node(1).crash(() => 9)
    story.write(2, second, "value")
    until(story, isPage)
    story.network.unshift(page)
    story.settle()
    return story
  }

  test("and has forgotten what it asked takes no answer to it", () => {
    expect(restarted().values(1, second)).toEqual(["value"])
    const wrong = restarted((parts) => new NumbersAgain(parts))
    expect(wrong.values(1, second)).toEqual([])
  })
})

describe("a new owner", () => {
  test("does not keep what was gone at the source, whenever it came", () => {
    expect(lateKey().values(3, key)).toEqual([])
    const overlooked = lateKey((parts) => new (exchangesWith({ pull: LateOverlooked }))(parts))
    expect(overlooked.values(3, key)).toEqual(["old"])
  })

  test("AP pitfall 20: is filled by a source that knows that it is coming", () => {
    const run = (make?: (parts: Parts) => Exchanges) => {
      const story = new Story({ nodes: 3, ...(make === undefined ? {} : { make }) })
      story.learn([1, 2], 1, owned([slot], [1, 2]))
      story.write(2, key, "value")
      story.settle()
      story.learn([1, 3], 2, pending([slot], { from: [1, 2], to: [1, 3], since: 2 }))
      story.settle()
      expect(story.values(3, key)).toEqual(["value"])
      return story
    }
    const story = run()
    expect(story.node(3).exchanges.isFilled(namespace, slot, 2)).toBe(false)
    story.learn([2], 2, pending([slot], { from: [1, 2], to: [1, 3], since: 2 }))
    story.settle()
    expect(story.node(3).exchanges.isFilled(namespace, slot, 2)).toBe(true)
    expect(story.node(3).exchanges.isFilled(namespace, slot, 1)).toBe(false)
    expect(story.node(1).exchanges.filled()).toEqual([])
    const wrong = run((parts) => new (exchangesWith({ fills: AnyRing }))(parts))
    expect(wrong.node(3).exchanges.isFilled(namespace, slot, 2)).toBe(true)
  })

  test("that takes nobody's place is filled by all owners, and what it held before counts for nothing", () => {
    const run = (make?: (parts: Parts) => Exchanges) => {
      const story = new Story({ nodes: 3, ...(make === undefined ? {} : { make }) })
      story.learn([1, 2, 3], 2, pending([slot], { from: [1, 2], to: [1, 2, 3], since: 2 }))
      const deaf = (envelope: Envelope) => envelope.from === 2 || envelope.to === 2
      for (let i = 0; i < 30; i++) {
        story.tick(20)
        while (story.network.length > 0) {
          if (deaf(story.network[0])) story.network.shift()
          else story.deliver()
        }
      }
      return story
    }
    const story = run()
    expect(story.node(3).exchanges.filled()).toEqual([])
    story.settle()
    expect(story.node(3).exchanges.filled()).toEqual([{ slot, since: 2 }])
    story.learn([3], 3, pending([slot], { from: [1, 2], to: [1, 2, 3], since: 3 }))
    expect(story.node(3).exchanges.filled()).toEqual([])
    const wrong = run((parts) => new (exchangesWith({ fills: AnySource }))(parts))
    expect(wrong.node(3).exchanges.filled()).toEqual([{ slot, since: 2 }])
  })
})

describe("what is not durable", () => {
  const fill = (make?: (parts: Parts) => Exchanges) => {
    const story = new Story({ nodes: 3, ...(make === undefined ? {} : { make }) })
    const step = pending([slot], { from: [1, 2], to: [1, 3], since: 1 })
    story.learn([1, 2, 3], 1, step)
    // What was written over is in the clock alone.
    for (const value of ["value", "another"]) story.write(2, key, value)
    for (let isAdopted = false; !isAdopted; ) {
      if (story.network.length === 0) story.tick(20, [3])
      const next = story.network[0]
      // With the answer about the trees the last is known, and the clock is adopted.
      isAdopted = next?.from === 2 && next.to === 3 && kindOf(next) === "answer 21"
      story.isDurable = !isAdopted
      story.deliver()
    }
    expect(
      story
        .node(3)
        .owner.copyClock(namespace, slot)
        .covers(2 * 2 ** 32 + 2, 1),
    ).toBe(true)
    return story.node(3)
  }

  test("does not count as filled", () => {
    const node = fill()
    expect(node.exchanges.filled()).toEqual([])
    node.store.sync()
    expect(node.exchanges.filled()).toEqual([{ slot, since: 1 }])
    const wrong = fill((parts) => new (exchangesWith({ fills: FilledTooEarly }))(parts))
    expect(wrong.exchanges.filled()).toEqual([{ slot, since: 1 }])
  })

  const run = (make?: (parts: Parts) => Exchanges) => {
    const story = new Story({ nodes: 2, ...(make === undefined ? {} : { make }) })
    story.learn([1, 2], 1, owned([slot], [1, 2]))
    story.settle()
    story.isDurable = false
    story.write(2, key, "not durable")
    story.settle()
    story.node(2).crash(() => 99)
    story.isDurable = true
    return story
  }

  test("is not pulled by others", () => {
    expect(run().values(1, key)).toEqual([])
    const ungated = run((parts) => new NothingGated(parts))
    expect(ungated.values(1, key)).toEqual(["not durable"])
  })
})

/** What has been adopted of a pull that broke off after each of its steps. */
test("a pull that breaks off, after whichever step, adopts nothing", () => {
  const adopted = (make: (target: Parts) => Exchanges, steps: number) => {
    const story = new Story({ nodes: 2, make, exchanges: { attemptsMax: 1, pageBytes: 1 } })
    story.learn([1, 2], 1, owned([slot], [1, 2]))
    story.write(2, key, "one")
    story.write(2, `{${key}}2`, "two")
    let answers = 0
    story.tick(20, [1])
    while (story.network.length > 0) {
      if (story.network[0].to === 1 && ++answers > steps) break
      story.deliver()
    }
    const clock = story.node(1).owner.copyClock(namespace, slot)
    const dots = [1, 2].filter((counter) => clock.contains(2 * 2 ** 32 + 2, counter))
    const held = [key, `{${key}}2`].filter((name) => story.stateOf(1, name) !== undefined)
    return { dots: dots.length, held: held.length }
  }
  for (let steps = 0; steps < 8; steps++) {
    const { dots, held } = adopted((parts) => new Exchanges(parts), steps)
    expect(dots).toBe(held)
  }
  expect(adopted((parts) => new (exchangesWith({ pull: AdoptedFirst }))(parts), 2)).toEqual({
    dots: 2,
    held: 0,
  })
})
