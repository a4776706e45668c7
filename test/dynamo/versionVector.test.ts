import { describe, expect, test } from "bun:test"
import { actorOf } from "../../src/dynamo/dot.ts"
import {
  checkVector,
  VersionVector,
  vectorCovers,
  vectorEnd,
} from "../../src/dynamo/versionVector.ts"
import { ByteReader } from "../../src/lib/byteReader.ts"
import { ByteWriter } from "../../src/lib/byteWriter.ts"
import { Prng } from "../../src/lib/prng.ts"
import { Replica } from "./replica.ts"

const a = actorOf(1, 1)
const b = actorOf(2, 1)

function vector(...entries: ReadonlyArray<readonly [number, number]>): VersionVector {
  const result = new VersionVector()
  for (const [actor, counter] of entries) result.add(actor, counter)
  return result
}

describe("version vectors", () => {
  test("[A:1] and [B:1] are concurrent, and [A:2, B:1] is after both", () => {
    const v1 = vector([a, 1])
    const v2 = vector([b, 1])
    const v3 = vector([a, 2], [b, 1])
    expect(v1.compare(v2)).toBe("concurrent")
    expect(v3.compare(v1)).toBe("after")
    expect(v2.compare(v3)).toBe("before")
    expect(v3.compare(vector([b, 1], [a, 2]))).toBe("equal")
    expect(v3.describe()).toBe("[n1.1:2, n2.1:1]")
  })

  test("so two writes made apart are siblings, and a write that has read both replaces both", () => {
    const left = new Replica(1)
    const right = new Replica(2)
    left.put("v1")
    right.put("v2")
    left.receive(right.state)
    expect(left.values()).toEqual(["v1", "v2"])
    left.put("v3", left.context())
    expect(left.values()).toEqual(["v3"])
    right.receive(left.state)
    expect(right.state).toEqual(left.state as Uint8Array)
  })

  test("bytes answer like the class, for random vectors", () => {
    const prng = new Prng(1)
    const out = new ByteWriter()
    for (let run = 0; run < 300; run++) {
      const all = new VersionVector()
      const draw = () => actorOf(prng.int(1, 300), prng.pick([1, 2, 2 ** 32 - 1]))
      for (let n = prng.int(0, 6); n > 0; n--) all.add(draw(), prng.pick([1, 127, 128, 2 ** 40]))
      const start = prng.int(0, 3)
      out.raw(new Uint8Array(start))
      all.write(out)
      const end = out.length
      out.u8(255)
      const bytes = out.take()
      expect(vectorEnd(bytes, start)).toBe(end)
      all.forEach((actor, counter) => {
        expect(vectorCovers(bytes, start, actor, counter)).toBe(true)
        expect(vectorCovers(bytes, start, actor, counter + 1)).toBe(false)
        expect(vectorCovers(bytes, start, actor + 1, 1)).toBe(all.covers(actor + 1, 1))
      })
      const read = new VersionVector()
      const reader = new ByteReader(bytes, start)
      checkVector(reader, read)
      expect(reader.offset).toBe(end)
      expect(read.compare(all)).toBe("equal")
      const joined = vector([a, 5])
      expect(joined.joinBytes(bytes, start)).toBe(end)
      expect(joined.includes(all)).toBe(true)
    }
  })
})
