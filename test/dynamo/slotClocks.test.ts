import { describe, expect, test } from "bun:test"
import { actorOf } from "../../src/dynamo/dot.ts"
import { SlotClock } from "../../src/dynamo/slotClock.ts"
import { SlotClocks } from "../../src/dynamo/slotClocks.ts"
import { toHex } from "../../src/lib/bytes.ts"
import { ByteWriter } from "../../src/lib/byteWriter.ts"
import { Prng } from "../../src/lib/prng.ts"

describe("a table of slot clocks", () => {
  test("does what a clock for each slot does, whatever fits its cells", () => {
    const prng = new Prng(21)
    for (let run = 0; run < 12; run++) {
      const slots = 4
      const table = new SlotClocks(slots)
      const twins = Array.from({ length: slots }, () => new SlotClock())
      const own = actorOf(9, 1)
      const actors = Array.from({ length: prng.int(2, 9) }, (_, i) => actorOf(1 + (i % 4), 1 + i))
      let grown = 0
      for (let step = 0; step < 500; step++) {
        const slot = prng.int(0, slots - 1)
        const twin = twins[slot]
        const actor = prng.pick(actors)
        const counter = Math.max(1, twin.highest(actor) + prng.pick([0, 1, 1, 1, 1, 1, 1, 2]))
        const draw = prng.float()
        if (draw < 0.55) expect(table.of(slot).add(actor, counter)).toBe(twin.add(actor, counter))
        else if (draw < 0.7) expect(table.mint(slot, own)).toBe(twin.mint(own))
        else if (draw < 0.8) {
          const other = twins[prng.int(0, slots - 1)]
          const adopted = table.copy(slot)
          adopted.adopt(other)
          twin.adopt(other)
          table.set(slot, adopted)
        } else if (draw < 0.82) {
          const ended = table.copy(slot)
          const epoch = prng.int(2, 5)
          const node = prng.int(1, 4)
          ended.endBelow(node, epoch, new Map())
          twin.endBelow(node, epoch, new Map())
          table.set(slot, ended)
        }
        expect(table.of(slot).contains(actor, counter)).toBe(twin.contains(actor, counter))
        expect(table.contains(slot, actor, counter + 1)).toBe(twin.contains(actor, counter + 1))
        expect(table.copy(slot).describe()).toBe(twin.describe())
        const [bytes, twinBytes] = [new ByteWriter(), new ByteWriter()]
        table.write(slot, bytes)
        twin.write(twinBytes)
        expect(toHex(bytes.bytes())).toBe(toHex(twinBytes.bytes()))
        grown = Math.max(grown, table.grownCount)
      }
      expect(grown).toBeGreaterThan(0)
    }
  })

  test("sixteen thousand clocks of three owners take one array and nothing on the heap", () => {
    const table = new SlotClocks(16384)
    for (let slot = 0; slot < 16384; slot++) {
      for (let node = 1; node <= 3; node++) {
        for (let counter = 1; counter <= 3; counter++) table.add(slot, actorOf(node, 1), counter)
      }
    }
    expect(table.sizeBytes).toBe(16384 * 96)
    expect(table.grownCount).toBe(0)
    expect(table.copy(16383).describe()).toBe("n1.1:3 n2.1:3 n3.1:3")
    expect(() => table.add(16384, actorOf(1, 1), 1)).toThrow("no slot")
  })

  test("a clock whose gaps have closed goes back into its cell", () => {
    const table = new SlotClocks(1)
    const actor = actorOf(1, 1)
    table.add(0, actor, 1)
    table.add(0, actor, 3)
    expect(table.grownCount).toBe(1)
    table.add(0, actor, 2)
    expect(table.grownCount).toBe(0)
    expect(table.contains(0, actor, 3)).toBe(true)
  })
})
