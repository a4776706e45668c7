import { expect, test } from "bun:test"
import { concatBytes, toHex, utf8 } from "../../src/lib/bytes.ts"
import { ByteWriter } from "../../src/lib/byteWriter.ts"
import { sessionKey } from "../../src/server/engineKeys.ts"
import { SnapshotFrames } from "../../src/server/snapshotFrames.ts"
import { writePair } from "../../src/server/spill.ts"
import { flushAll, open, put } from "../lsm/maintained.ts"

const frameBytes = 300
const sessions = [7, 9].map((clientId) => ({ clientId, record: utf8(`session ${clientId}`) }))
const keyOf = (i: number) => utf8(`key ${String(i).padStart(3, "0")}`)

/** Pairs of 0 to 399 bytes in tables and in the memtable; the snapshot is of before the last puts. */
function source() {
  const { disk, engine } = open()
  const values = Array.from({ length: 80 }, (_, i) => new Uint8Array((i * 37) % 400).fill(i))
  values.forEach((value, i) => {
    put(engine, disk, keyOf(i), value)
    if (i === 60) flushAll(engine, disk)
  })
  const snapshot = engine.snapshot()
  put(engine, disk, keyOf(3), utf8("later"))
  const make = () => {
    const [lower, upper] = [keyOf(0), keyOf(70)]
    return new SnapshotFrames({ range: 5, engine, snapshot, sessions, lower, upper, frameBytes })
  }
  const writer = new ByteWriter()
  for (const { clientId, record } of sessions) writePair(writer, sessionKey(5, clientId), record)
  for (let i = 0; i < 70; i++) writePair(writer, keyOf(i), values[i] as Uint8Array)
  return { make, expected: toHex(writer.take()) }
}

function all(frames: SnapshotFrames, ahead: (sequence: number) => void): Array<Uint8Array> {
  const result: Array<Uint8Array> = []
  for (let sequence = 1, last = false; !last; sequence++) {
    ahead(sequence)
    const frame = frames.take(sequence)
    result.push(frame.bytes)
    expect(result.length).toBeLessThan(1000)
    last = frame.last
  }
  return result
}

test("a snapshot's frames are the same however they are read ahead", () => {
  const { make, expected } = source()
  const whole = all(make(), () => {})
  expect(toHex(concatBytes(...whole))).toBe(expected)
  expect(whole.length).toBeGreaterThan(30)
  // One pair may exceed it.
  for (const { length } of whole) expect(length).toBeLessThanOrEqual(8 + 7 + 400)
  for (const sliceBytes of [1, 100, 299, 10_000]) {
    for (const slices of [1, 2, 1000]) {
      const frames = make()
      const sliced = all(frames, (sequence) => {
        let isWhole = false
        for (let i = 0; i < slices && !isWhole; i++)
          isWhole = frames.readAhead(sequence, sliceBytes)
        if (slices === 1000) expect(isWhole).toBe(true)
      })
      expect(sliced.map(toHex)).toEqual(whole.map(toHex))
    }
  }
})

test("a slice of a snapshot's frame is no longer than was asked for, but for one pair", () => {
  const { make } = source()
  let slices = 0
  const frames = make()
  all(frames, (sequence) => {
    do slices++
    while (!frames.readAhead(sequence, 1))
  })
  expect(slices).toBeGreaterThanOrEqual(70)
})

test("a snapshot's frames can be gone back to, also while another one is read ahead", () => {
  const { make } = source()
  const frames = make()
  const first = [1, 2, 3, 4, 5].map((sequence) => toHex(frames.take(sequence).bytes))
  frames.readAhead(6, 1)
  expect([2, 3].map((sequence) => toHex(frames.take(sequence).bytes))).toEqual(first.slice(1, 3))
  frames.readAhead(4, 1)
  expect([1, 2, 3, 4, 5].map((sequence) => toHex(frames.take(sequence).bytes))).toEqual(first)
})
