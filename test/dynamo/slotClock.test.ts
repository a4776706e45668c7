import { describe, expect, test } from "bun:test"
import { actorOf } from "../../src/dynamo/dot.ts"
import { runsMax, SlotClock } from "../../src/dynamo/slotClock.ts"
import { ByteReader } from "../../src/lib/byteReader.ts"
import { ByteWriter } from "../../src/lib/byteWriter.ts"
import { Prng } from "../../src/lib/prng.ts"
import { copyOf } from "./causalRules.ts"

function bytesOf(clock: SlotClock): Uint8Array {
  const out = new ByteWriter()
  clock.write(out)
  return out.take()
}

function readAll(bytes: Uint8Array): SlotClock {
  const reader = new ByteReader(bytes)
  const clock = SlotClock.read(reader)
  reader.end()
  return clock
}

describe("slot clocks", () => {
  test("a clock holds what a set of dots would, for random dots and exchanges", () => {
    const prng = new Prng(3)
    const actors = [actorOf(1, 1), actorOf(1, 2), actorOf(9, 1)]
    for (let run = 0; run < 60; run++) {
      const clocks = [new SlotClock(), new SlotClock()]
      const sets = [new Set<string>(), new Set<string>()]
      for (let step = 0; step < 120; step++) {
        const side = prng.int(0, 1)
        if (prng.chance(0.03)) {
          clocks[side].adopt(clocks[1 - side])
          for (const dot of sets[1 - side]) sets[side].add(dot)
        } else {
          const actor = prng.pick(actors)
          const counter = prng.int(1, 40)
          expect(clocks[side].add(actor, counter)).toBe(true)
          sets[side].add(`${actor}:${counter}`)
        }
      }
      for (const side of [0, 1]) {
        for (const actor of actors) {
          let base = 0
          for (let counter = 1; counter <= 41; counter++) {
            const has = sets[side].has(`${actor}:${counter}`)
            expect(clocks[side].contains(actor, counter)).toBe(has)
            if (has && base === counter - 1) base = counter
          }
          expect(clocks[side].baseOf(actor)).toBe(base)
          expect(clocks[side].covers(actor, base)).toBe(true)
          expect(clocks[side].covers(actor, base + 1)).toBe(false)
        }
        expect(readAll(bytesOf(clocks[side])).describe()).toBe(clocks[side].describe())
      }
      const meet = SlotClock.meet(clocks)
      for (const actor of actors) {
        expect(meet.baseOf(actor)).toBe(Math.min(...clocks.map((clock) => clock.baseOf(actor))))
      }
    }
  })

  test("equal clocks have equal bytes, whatever the order in which they grew", () => {
    const prng = new Prng(4)
    const dots = Array.from({ length: 60 }, () => [actorOf(prng.int(1, 3), 1), prng.int(1, 30)])
    const one = new SlotClock()
    const other = new SlotClock()
    for (const [actor, counter] of dots) one.add(actor, counter)
    for (const [actor, counter] of prng.shuffle(dots)) other.add(actor, counter)
    expect(bytesOf(other)).toEqual(bytesOf(one))
  })

  test("a node's own dots follow each other without gaps", () => {
    const clock = new SlotClock()
    const own = actorOf(2, 1)
    expect([clock.mint(own), clock.mint(own), clock.mint(own)]).toEqual([1, 2, 3])
    clock.add(own, 5)
    expect(() => clock.mint(own)).toThrow("gaps of its own")
  })

  test("past its number of runs a clock notes no new one, and goes on when gaps close", () => {
    const clock = new SlotClock()
    const actor = actorOf(1, 1)
    for (let i = 1; i <= runsMax; i++) expect(clock.add(actor, 2 * i)).toBe(true)
    const beyond = 2 * runsMax + 2
    expect(clock.add(actor, beyond)).toBe(false)
    expect(clock.contains(actor, beyond)).toBe(false)
    expect(clock.add(actor, 3)).toBe(true)
    expect(clock.add(actor, beyond)).toBe(true)
    expect(readAll(bytesOf(clock)).describe()).toBe(clock.describe())
  })

  test("ended epochs leave one number for a node, and only where nothing is missing", () => {
    const clock = new SlotClock()
    const [first, second, third] = [actorOf(4, 1), actorOf(4, 2), actorOf(4, 3)]
    clock.add(first, 1)
    clock.add(second, 2)
    clock.add(third, 1)
    const finals = new Map([
      [first, 1],
      [second, 2],
    ])
    expect(clock.endBelow(4, 3, finals)).toBe(false)
    expect(clock.seenBelow(4)).toBe(1)
    clock.add(second, 1)
    expect(clock.endBelow(4, 3, finals)).toBe(true)
    expect(clock.describe()).toBe("n4.3:1, n4 below 3")
    expect(clock.contains(second, 7)).toBe(true)
    expect(clock.add(first, 9)).toBe(true)
    expect(() => clock.mint(second)).toThrow("has ended")
    expect(readAll(bytesOf(clock)).describe()).toBe("n4.3:1, n4 below 3")
    const other = new SlotClock()
    other.add(second, 1)
    clock.adopt(other)
    expect(clock.describe()).toBe("n4.3:1, n4 below 3")
    expect(clock.endBelow(4, 2, new Map())).toBe(true)
    expect(clock.describe()).toBe("n4.3:1, n4 below 3")
    other.adopt(clock)
    expect(other.describe()).toBe("n4.3:1, n4 below 3")
    expect(SlotClock.meet([clock, new SlotClock()]).describe()).toBe("")
    expect(SlotClock.meet([clock, copyOf(clock)]).describe()).toBe("n4.3:1, n4 below 3")
  })

  test("dots lost with their node are closed by agreement, so that the epoch can end", () => {
    const clock = new SlotClock()
    const lost = actorOf(2, 1)
    clock.add(lost, 1)
    clock.add(lost, 4)
    expect(clock.highest(lost)).toBe(4)
    clock.closeLost(lost, clock.highest(lost))
    expect(clock.describe()).toBe("n2.1:4")
    expect(clock.endBelow(2, 2, new Map([[lost, 4]]))).toBe(true)
  })
})
