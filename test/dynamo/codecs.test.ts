import { describe, expect, test } from "bun:test"
import {
  decodeToken,
  encodeToken,
  tokenBytes,
  tokenBytesMax,
  tokenText,
} from "../../src/dynamo/contextToken.ts"
import { actorOf, compareDots, describeDot, epochOf, nodeOf } from "../../src/dynamo/dot.ts"
import { checkState, contextOf, mergeStates, ruleOf } from "../../src/dynamo/keyState.ts"
import { SlotClock } from "../../src/dynamo/slotClock.ts"
import { emptyVector } from "../../src/dynamo/versionVector.ts"
import { ByteReader, MalformedBytes } from "../../src/lib/byteReader.ts"
import { concatBytes, toHex, utf8 } from "../../src/lib/bytes.ts"
import { ByteWriter } from "../../src/lib/byteWriter.ts"
import { Prng } from "../../src/lib/prng.ts"
import { CausalWorld } from "./causalWorld.ts"
import { Replica } from "./replica.ts"
import { ruleModels } from "./rules.ts"

/** States of all rules as worlds make them. */
const samples: ReadonlyArray<Uint8Array> = ruleModels.flatMap((model) => {
  const states: Array<Uint8Array> = []
  for (let seed = 900; seed < 906; seed++) {
    const world = new CausalWorld(seed, model)
    world.run(40)
    for (const replica of world.replicas.values()) states.push(...replica.states.values())
  }
  return states
})

/** `undefined` when refused; anything but a refusal is a bug. */
function accepted(check: () => void): boolean {
  try {
    check()
    return true
  } catch (error) {
    if (error instanceof MalformedBytes || `${error}`.includes("makes no actor")) return false
    throw error
  }
}

function mutated(prng: Prng, bytes: Uint8Array): Uint8Array {
  const copy = prng.chance(0.2) ? bytes.slice(0, prng.int(0, bytes.length)) : bytes.slice()
  for (let n = prng.int(1, 3); n > 0 && copy.length > 0; n--) {
    const at = prng.int(0, copy.length - 1)
    copy[at] = prng.pick([0, 1, 2, 127, 128, 255, copy[at] ^ (1 << prng.int(0, 7))])
  }
  return copy
}

describe("bytes of states", () => {
  test("every rule has samples, and the check takes them all", () => {
    for (const state of samples) checkState(state)
    expect(new Set(samples.map(ruleOf)).size).toBe(6)
  })

  test("damaged bytes are refused as malformed, or are another state in its only form", () => {
    const prng = new Prng(11)
    let taken = 0
    for (let run = 0; run < 6000; run++) {
      const bytes = mutated(prng, prng.pick(samples))
      if (!accepted(() => checkState(bytes))) continue
      taken++
      // What is taken works, and has no second form: merging it with itself written anew gives it back.
      contextOf(bytes)
      expect(mergeStates(bytes, bytes.slice())).toBe(bytes)
    }
    expect(taken).toBeGreaterThan(100)
  })

  test("a state that holds a write and what it covers is none", () => {
    const [one, other] = [new Replica(1), new Replica(2)]
    one.put("v1")
    other.receive(one.state)
    other.put("v2", other.context())
    const bytes = concatBytes(
      Uint8Array.of((one.state as Uint8Array)[0], 2),
      (one.state as Uint8Array).subarray(2),
      (other.state as Uint8Array).subarray(2),
    )
    expect(() => checkState(bytes)).toThrow("n1.1:1 is covered")
  })

  test("a namespace's rule is fixed: states of two rules do not merge", () => {
    const [first] = samples
    const other = samples.find((state) => state[0] !== first[0]) as Uint8Array
    expect(() => mergeStates(first, other)).toThrow(MalformedBytes)
    expect(() => ruleOf(Uint8Array.of(0x21))).toThrow(MalformedBytes)
    expect(() => ruleOf(new Uint8Array(0))).toThrow(MalformedBytes)
  })

  test("a number has one form: a varint longer than it need be is refused", () => {
    expect(() => new ByteReader(Uint8Array.of(0x80, 0)).varint()).toThrow(MalformedBytes)
    expect(() => new ByteReader(Uint8Array.of(0x80)).varint()).toThrow(MalformedBytes)
    const out = new ByteWriter()
    const values = [0, 1, 127, 128, 2 ** 31, 2 ** 32, 2 ** 45, Number.MAX_SAFE_INTEGER]
    for (const value of values) out.varint(value)
    const reader = new ByteReader(out.take())
    expect(values.map(() => reader.varint())).toEqual(values)
    reader.end()
    expect(() => new ByteReader(new Uint8Array(9).fill(255)).varint()).toThrow(MalformedBytes)
  })

  test("damaged clocks are refused as malformed, or are read and written back the same", () => {
    const prng = new Prng(12)
    const clock = new SlotClock()
    for (let i = 0; i < 40; i++) clock.add(actorOf(prng.int(1, 3), prng.int(1, 2)), prng.int(1, 99))
    clock.endBelow(7, 4, new Map())
    const out = new ByteWriter()
    clock.write(out)
    const bytes = out.take()
    for (let run = 0; run < 3000; run++) {
      const damaged = mutated(prng, bytes)
      const reader = new ByteReader(damaged)
      let read: SlotClock | undefined
      if (!accepted(() => (read = SlotClock.read(reader)))) continue
      read?.write(out)
      expect(toHex(out.take())).toBe(toHex(damaged.subarray(0, reader.offset)))
    }
  })
})

test("an actor is one safe integer, sorted by node, then epoch", () => {
  const largest = actorOf(2 ** 21 - 1, 2 ** 32 - 1)
  expect(Number.isSafeInteger(largest)).toBe(true)
  expect([nodeOf(largest), epochOf(largest)]).toEqual([2 ** 21 - 1, 2 ** 32 - 1])
  expect(describeDot(actorOf(2, 3), 7)).toBe("n2.3:7")
  expect(compareDots(actorOf(1, 9), 9, actorOf(2, 1), 1)).toBeLessThan(0)
  expect(() => actorOf(0, 1)).toThrow("no actor")
  expect(() => actorOf(1, 2 ** 32)).toThrow("no actor")
})

describe("context tokens", () => {
  const key = utf8("cart1")

  test("what was read comes back, for states of every rule, as text too", () => {
    for (const state of samples) {
      const rule = ruleOf(state)
      const token = { rule, stamp: 12345678901, seen: contextOf(state) }
      const bytes = encodeToken(token, 7, key)
      expect(decodeToken(bytes, 7, key)).toEqual(token)
      expect(tokenBytes(tokenText(bytes))).toEqual(bytes)
    }
    const blind = { rule: "siblings" as const, stamp: 0, seen: emptyVector }
    expect(decodeToken(encodeToken(blind, 1, key), 1, key)).toEqual(blind)
  })

  test("a token of another key or namespace is refused, and so is every damaged one", () => {
    const token = { rule: "siblings" as const, stamp: 0, seen: contextOf(samples[0]) }
    const bytes = encodeToken(token, 7, key)
    expect(decodeToken(bytes, 8, key)).toBeUndefined()
    expect(decodeToken(bytes, 7, utf8("cart2"))).toBeUndefined()
    for (let at = 0; at < bytes.length; at++) {
      for (let bit = 0; bit < 8; bit++) {
        const damaged = bytes.slice()
        damaged[at] ^= 1 << bit
        expect(decodeToken(damaged, 7, key)).toBeUndefined()
      }
      expect(decodeToken(bytes.subarray(0, at), 7, key)).toBeUndefined()
    }
    expect(decodeToken(new Uint8Array(tokenBytesMax + 1), 7, key)).toBeUndefined()
    expect(tokenBytes("not a token!")).toBeUndefined()
  })
})
