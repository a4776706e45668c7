import { describe, expect, test } from "bun:test"
import { MalformedBytes } from "../../src/lib/byteReader.ts"
import { crc32 } from "../../src/lib/checksum.ts"
import { storeU32 } from "../../src/lib/littleEndian.ts"
import { Prng } from "../../src/lib/prng.ts"
import { slotCount } from "../../src/lib/slot.ts"
import type { Ring } from "../../src/topology/ring.ts"
import { nextRing } from "../../src/topology/ringChange.ts"
import { decodeRing, encodeRing, ringBytesMax } from "../../src/topology/ringCodec.ts"
import { withNewcomer, withParting } from "../../src/topology/ringMembers.ts"
import { newcomerOf, promptReports, ringFrom, ringOf, versionsToRest } from "./harness.ts"

/** Some rings of a life: at rest, changing in every state, with members of every state. */
function someRings(): ReadonlyArray<Ring> {
  const first = ringOf(5, { strategy: "zone", zones: 3, racks: 2 })
  const joined = ringFrom(withNewcomer(first, newcomerOf(6, { zones: 3 }), 20))
  const versions = versionsToRest(joined, 700).slice(0, 9)
  const wounded = ringFrom(withParting(versions[versions.length - 1], 4, "gone"))
  const leaving = ringFrom(withParting(wounded, 1, "leaving"))
  const goal = leaving.goal()
  const last = nextRing(leaving, { goal, reports: promptReports, slotsAtOnceMax: 900 }) as Ring
  return [ringOf(1), first, joined, ...versions, wounded, leaving, last]
}

const rings = someRings()

/** With the checksum made right again: a body that is wrong in itself. */
function resealed(bytes: Uint8Array): Uint8Array {
  storeU32(bytes, bytes.length - 4, crc32(bytes.subarray(0, bytes.length - 4)))
  return bytes
}

function outcomeOf(bytes: Uint8Array): "ring" | "malformed" {
  try {
    decodeRing(bytes)
    return "ring"
  } catch (error) {
    if (error instanceof MalformedBytes) return "malformed"
    throw error
  }
}

describe("a ring in bytes", () => {
  test("is the same ring again", () => {
    for (const ring of rings) {
      const bytes = encodeRing(ring)
      const read = decodeRing(bytes)
      expect(read.members).toEqual(ring.members)
      expect([read.version, read.floor, read.strategy]).toEqual([
        ring.version,
        ring.floor,
        ring.strategy,
      ])
      for (let slot = 0; slot < slotCount; slot += 11) {
        expect(read.listOf(slot)).toEqual(ring.listOf(slot))
        expect(read.changeOf(slot)).toEqual(ring.changeOf(slot))
        expect(read.verdictOf(slot, ring.version - 1)).toBe(ring.verdictOf(slot, ring.version - 1))
      }
      expect(encodeRing(read)).toEqual(bytes)
    }
  })

  test("is short: ten nodes take 4 KiB, forty 16 KiB", () => {
    expect(encodeRing(ringOf(10)).length).toBeLessThan(4 * 1024)
    expect(encodeRing(ringOf(40)).length).toBeLessThan(16 * 1024)
  })

  test("any bit changed, any end cut off, is noticed", () => {
    const prng = new Prng(3)
    for (let i = 0; i < 300; i++) {
      const bytes = encodeRing(prng.pick(rings))
      const at = prng.int(0, bytes.length - 1)
      bytes[at] ^= 1 << prng.int(0, 7)
      expect(outcomeOf(bytes)).toBe("malformed")
      expect(outcomeOf(bytes.subarray(0, at))).toBe("malformed")
    }
  })

  test("bytes that nobody has written are no ring, and no crash, even under a right checksum", () => {
    const prng = new Prng(4)
    const outcomes = { ring: 0, malformed: 0 }
    for (let i = 0; i < 300; i++) {
      const bytes = encodeRing(rings[prng.int(0, 3)])
      for (let j = prng.int(1, 3); j > 0; j--) {
        bytes[prng.int(0, bytes.length - 5)] = prng.int(0, 255)
      }
      const outcome = outcomeOf(resealed(bytes))
      outcomes[outcome]++
      // What is taken all the same says something else in the one form that there is.
      if (outcome === "ring") expect(encodeRing(decodeRing(bytes))).toEqual(bytes)
    }
    expect(outcomes.malformed).toBeGreaterThan(100)
  })

  test("an unknown format and a ring beyond the limit are refused", () => {
    const bytes = encodeRing(rings[1])
    bytes[0] = 2
    expect(() => decodeRing(resealed(bytes))).toThrow("ring of format 2")
    expect(() => decodeRing(new Uint8Array(ringBytesMax + 1))).toThrow("bytes")
  })
})
