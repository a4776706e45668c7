import { describe, expect, test } from "bun:test"
import { concatBytes, equalBytes } from "../../src/lib/bytes.ts"
import { ByteWriter } from "../../src/lib/byteWriter.ts"
import { Prng } from "../../src/lib/prng.ts"
import { beginFrame, endFrame, FrameDecoder } from "../../src/wire/frames.ts"
import { limits } from "../../src/wire/limits.ts"
import { runFrameFuzz } from "./fuzz.ts"
import { bytesOf, frameOf } from "./samples.ts"

function drain(decoder: FrameDecoder): Array<Uint8Array> {
  const frames: Array<Uint8Array> = []
  for (let frame = decoder.next(); frame !== undefined; frame = decoder.next()) frames.push(frame)
  return frames
}

function prefix(length: number): Uint8Array {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setUint32(0, length, true)
  return bytes
}

describe("frames", () => {
  test("any split of valid frames gives the same frames", () => {
    const seed = 20_260_101
    const prng = new Prng(seed)
    for (let round = 0; round < 400; round++) {
      const frames = Array.from({ length: prng.int(1, 12) }, () =>
        prng.chance(0.1) ? frameOfBytes(bytesOf(prng, 1, 20_000)) : frameOf(prng),
      )
      const stream = concatBytes(...frames)
      const decoder = new FrameDecoder()
      const got: Array<Uint8Array> = []
      const longest = prng.pick([1, 2, 3, 7, 64, 1000, 100_000])
      for (let offset = 0; offset < stream.length; ) {
        const end = Math.min(stream.length, offset + prng.int(1, longest))
        // A chunk of its own, as a socket gives it.
        decoder.push(stream.slice(offset, end))
        got.push(...drain(decoder))
        offset = end
      }
      expect(decoder.problem, `seed ${seed} round ${round}`).toBeUndefined()
      expect(got.length, `seed ${seed} round ${round}`).toBe(frames.length)
      const same = got.every((frame, i) => equalBytes(frame, (frames[i] as Uint8Array).subarray(4)))
      expect(same, `seed ${seed} round ${round}`).toBe(true)
      expect(decoder.reservedBytes).toBe(0)
    }
  })

  test("a frame inside one chunk is a view of it, also after one that was spread over two", () => {
    const decoder = new FrameDecoder()
    const chunk = concatBytes(prefix(3), new Uint8Array([1, 2, 3]), prefix(2))
    decoder.push(chunk)
    expect(drain(decoder)[0]?.buffer).toBe(chunk.buffer)
    const second = concatBytes(new Uint8Array([4, 5]), prefix(1), new Uint8Array([6]))
    decoder.push(second)
    const frames = drain(decoder)
    expect(frames.map((frame) => [...frame])).toEqual([[4, 5], [6]])
    expect(frames[1]?.buffer).toBe(second.buffer)
  })

  test("a claimed length reserves nothing before bytes arrive", () => {
    const decoder = new FrameDecoder()
    decoder.push(concatBytes(prefix(limits.frameBytes), new Uint8Array(100)))
    expect(drain(decoder)).toEqual([])
    expect(decoder.reservedBytes).toBeLessThanOrEqual(200)
    for (let i = 0; i < 50; i++) {
      decoder.push(new Uint8Array(100))
      drain(decoder)
      expect(decoder.reservedBytes).toBeLessThanOrEqual(2 * 100 * (i + 2))
    }
  })

  test("a frame of the largest size passes, one byte more is refused by its prefix alone", () => {
    const decoder = new FrameDecoder()
    decoder.push(prefix(limits.frameBytes))
    drain(decoder)
    let got = 0
    for (let i = 0; i < 16; i++) {
      decoder.push(new Uint8Array(1024 * 1024))
      got += drain(decoder).length
    }
    expect(got).toBe(1)
    decoder.push(prefix(limits.frameBytes + 1))
    expect(drain(decoder)).toEqual([])
    expect(decoder.problem).toEqual({
      _tag: "FrameTooLong",
      claimedBytes: limits.frameBytes + 1,
      limitBytes: limits.frameBytes,
    })
  })

  test("garbage is a problem, and nothing after it is decoded", () => {
    const decoder = new FrameDecoder()
    decoder.push(new TextEncoder().encode("GET / HTTP/1.1\r\n\r\n"))
    expect(drain(decoder)).toEqual([])
    expect(decoder.problem?._tag).toBe("FrameTooLong")
    decoder.push(concatBytes(prefix(1), new Uint8Array([7])))
    expect(drain(decoder)).toEqual([])
    const empty = new FrameDecoder()
    empty.push(prefix(0))
    expect(drain(empty)).toEqual([])
    expect(empty.problem?._tag).toBe("FrameEmpty")
  })

  test("a sender that encodes a frame beyond the limit is a bug", () => {
    const writer = new ByteWriter()
    const start = beginFrame(writer)
    writer.raw(new Uint8Array(limits.frameBytes + 1))
    expect(() => endFrame(writer, start)).toThrow("a frame of")
  })

  test("mutated frames are refused by type or read, never anything else", () => {
    const seed = 7
    const report = runFrameFuzz(30_000, seed)
    expect(report.frames).toBeGreaterThanOrEqual(30_000)
    // Both must happen, or the mutations are too weak or too wild to say anything.
    expect(report.accepted).toBeGreaterThan(1000)
    expect(report.refused).toBeGreaterThan(1000)
    expect(report.streamsBroken).toBeGreaterThan(100)
  })
})

function frameOfBytes(payload: Uint8Array): Uint8Array {
  return concatBytes(prefix(payload.length), payload)
}
