import { describe, expect, test } from "bun:test"
import {
  batchHeaderBytes,
  decodeSegmentHeader,
  encodeSegmentHeader,
  patchBatchHeader,
  RecordView,
  readBatchHeader,
  recordLength,
  recordTypes,
  sealRecords,
  writeRecord,
} from "../../src/journal/format.ts"
import { GroupIndex } from "../../src/journal/groupIndex.ts"
import { toHex, utf8 } from "../../src/lib/bytes.ts"
import { ByteWriter } from "../../src/lib/byteWriter.ts"
import { Prng } from "../../src/lib/prng.ts"

/** A batch of one entry at LSN 2^40 + 64, all of whose numbers are different. */
function goldenBatch(): Uint8Array {
  const writer = new ByteWriter()
  writer.raw(new Uint8Array(batchHeaderBytes))
  const fields = { type: recordTypes.append, kind: 1, range: 2, replica: 3, index: 4, term: 6 }
  writeRecord(writer, { ...fields, previousTerm: 5 }, utf8("value"))
  const lsn = 2 ** 40 + 64
  const lengthBytes = writer.length
  const header = {
    lengthBytes,
    recordCount: 1,
    checkpointCount: 0,
    standingCount: 0,
    lsn,
    durableLsn: lsn - 7,
  }
  patchBatchHeader(writer, header)
  sealRecords(writer, lsn)
  return writer.take()
}

describe("stored bytes do not change", () => {
  test("of a segment header", () => {
    const header = { number: 7, baseLsn: 2 ** 40, sizeBytes: 4096 }
    const bytes = encodeSegmentHeader(header)
    expect(toHex(bytes)).toBe(
      [
        "4b56524d4a524e4c",
        "02000000",
        "aa3cd5cc",
        "0700000000000000",
        "0000000000010000",
        "0010000000000000",
        "000000000000000000000000000000000000000000000000",
      ].join(""),
    )
    expect(decodeSegmentHeader("x", bytes)).toEqual(header)
  })

  test("of a batch with an entry", () => {
    expect(toHex(goldenBatch())).toBe(
      [
        "b54b56f1",
        "37c002d2",
        "61000000",
        "01000000",
        "00000000",
        "00000000",
        "4000000000010000",
        "3900000000010000",
        "9e89a7f1",
        "39000000",
        "01",
        "01",
        "0000",
        "0200000000000000",
        "0300000000000000",
        "0400000000000000",
        "0600000000000000",
        "0500000000000000",
        "76616c7565",
      ].join(""),
    )
  })
})

test("a batch or record is believed only at the LSN for which it was written", () => {
  const bytes = goldenBatch()
  const view = new DataView(bytes.buffer)
  const lsn = 2 ** 40 + 64
  const at = batchHeaderBytes
  expect(readBatchHeader(bytes, view, 0, lsn)?.durableLsn).toBe(lsn - 7)
  expect(recordLength(bytes, view, at, bytes.length, lsn + at)).toBe(57)
  for (const other of [lsn + 1, lsn - 2 ** 40, lsn + 2 ** 32, 0]) {
    expect(readBatchHeader(bytes, view, 0, other)).toBeUndefined()
    expect(recordLength(bytes, view, at, bytes.length, other + at)).toBe(0)
  }
})

test("numbers up to 2^53 - 1 come back as they were", () => {
  const largest = Number.MAX_SAFE_INTEGER
  const writer = new ByteWriter()
  const fields = { type: 1, kind: 255, range: largest, replica: largest - 1, index: largest - 2 }
  writeRecord(writer, { ...fields, term: 2 ** 32, previousTerm: 2 ** 32 - 1 }, utf8(""))
  const bytes = writer.take()
  const record = new RecordView()
  record.parse(bytes, new DataView(bytes.buffer), 0, 0)
  expect(record).toMatchObject({ ...fields, term: 2 ** 32, previousTerm: 2 ** 32 - 1 })
})

test("a claimed length is never believed beyond the bytes there are", () => {
  const lsn = 2 ** 40 + 64
  const bytes = goldenBatch()
  const view = new DataView(bytes.buffer)
  for (const length of [0, 1, 51, bytes.length, 2 ** 31, 2 ** 32 - 1]) {
    view.setUint32(batchHeaderBytes + 4, length, true)
    expect(recordLength(bytes, view, batchHeaderBytes, bytes.length, lsn + 40)).toBe(0)
  }
  for (let cut = 0; cut < batchHeaderBytes + 57; cut++) {
    const part = goldenBatch().slice(0, cut)
    expect(readBatchHeader(part, new DataView(part.buffer), 0, lsn)).toBeUndefined()
  }
})

test("a group's index follows a plain array through random changes", () => {
  const prng = new Prng(11)
  const index = new GroupIndex()
  let base = 0
  let baseTerm = 0
  let model: Array<{ term: number; lsn: number; size: number }> = []
  for (let round = 0; round < 20_000; round++) {
    const draw = prng.int(0, 99)
    const last = base + model.length
    if (draw < 70) {
      const entry = {
        term: prng.int(1, 2 ** 40),
        lsn: prng.int(-100, 2 ** 50),
        size: prng.int(0, 999),
      }
      model.push(entry)
      index.push(entry.term, entry.lsn, entry.size)
    } else if (draw < 80 && model.length > 0) {
      const from = prng.int(base + 1, last + 1)
      index.truncateFrom(from)
      model.length = from - base - 1
    } else if (draw < 95) {
      const to = prng.int(base, Math.min(last, base + 20))
      if (to > base) baseTerm = model[to - base - 1]?.term as number
      index.releaseThrough(to, baseTerm)
      model.splice(0, to - base)
      base = to
    } else if (draw < 99 && model.length > 0) {
      const at = prng.int(base + 1, last)
      const entry = { term: round, lsn: round, size: 1 }
      index.place(at, entry.term, entry.lsn, entry.size)
      model[at - base - 1] = entry
    } else if (prng.chance(0.1)) {
      base = prng.int(0, 1000)
      baseTerm = round
      model = []
      index.reset(base, baseTerm)
    }
    expect(index.lastIndex).toBe(base + model.length)
    const probe = prng.int(base - 1, base + model.length + 1)
    const wanted = model[probe - base - 1]
    expect(index.termAt(probe)).toBe(probe === base ? baseTerm : (wanted?.term as number))
    if (wanted !== undefined) {
      expect([index.lsnAt(probe), index.sizeAt(probe)]).toEqual([wanted.lsn, wanted.size])
    }
    if (round % 100 === 0) {
      expect(index.sizeBytes).toBe(model.reduce((sum, entry) => sum + entry.size, 0))
    }
  }
})
