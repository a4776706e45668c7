import { type ByteReader, MalformedBytes } from "../lib/byteReader.ts"
import type { ByteWriter } from "../lib/byteWriter.ts"
import type { LogIndex, RangeId, ReplicaId, Term } from "../types.ts"

/** A sleeping group, as leader and follower both know it: in this term, with all up to `index` committed. */
export interface SleepingPair {
  readonly range: RangeId
  readonly leader: ReplicaId
  readonly follower: ReplicaId
  readonly term: Term
  readonly index: LogIndex
}

/** Of a set of sleeping pairs: how many, and a sum over them that does not depend on their order. */
export interface PairSum {
  readonly count: number
  readonly high: number
  readonly low: number
}

/** One heartbeat for all sleeping groups that the sender leads and the receiver follows. */
export interface Beat {
  readonly _tag: "Beat"
  readonly range: 0
  /** Drawn by the sender once in its life. */
  readonly session: number
  readonly round: number
  readonly sum: PairSum
  /** Those that fall asleep with this beat; they are in the sum. */
  readonly asleep: ReadonlyArray<SleepingPair>
}

/** The answer to a beat. */
export interface BeatEcho {
  readonly _tag: "BeatEcho"
  readonly range: 0
  readonly session: number
  readonly round: number
  /** The receiver's own sum, of its state when the beat came in, is the same. */
  readonly equal: boolean
  /** Where it is not: the receiver's sleeping pairs with ranges in (after, upTo], a page of all. */
  readonly after: RangeId
  readonly upTo: RangeId
  readonly held: ReadonlyArray<SleepingPair>
}

/** These do not sleep where they are led, if they are led there at all. */
export interface Rouse {
  readonly _tag: "Rouse"
  readonly range: 0
  readonly pairs: ReadonlyArray<SleepingPair>
}

/** Pairs in one message. */
export const pairsMax = 512

export function writeBeat(writer: ByteWriter, beat: Beat): void {
  writer.u64(beat.session)
  writer.u64(beat.round)
  writer.u32(beat.sum.count)
  writer.u32(beat.sum.high)
  writer.u32(beat.sum.low)
  writePairs(writer, beat.asleep)
}

export function readBeat(reader: ByteReader): Beat {
  const session = reader.u64()
  const round = reader.u64()
  const sum = { count: reader.u32(), high: reader.u32(), low: reader.u32() }
  const asleep = readPairs(reader)
  reader.end()
  return { _tag: "Beat", range: 0, session, round, sum, asleep }
}

export function writeBeatEcho(writer: ByteWriter, echo: BeatEcho): void {
  writer.u64(echo.session)
  writer.u64(echo.round)
  writer.u8(echo.equal ? 1 : 0)
  writer.u64(echo.after)
  writer.u64(echo.upTo)
  writePairs(writer, echo.held)
}

export function readBeatEcho(reader: ByteReader): BeatEcho {
  const session = reader.u64()
  const round = reader.u64()
  const flag = reader.u8()
  if (flag > 1) throw new MalformedBytes(`flag ${flag}`)
  const after = reader.u64()
  const upTo = reader.u64()
  const held = readPairs(reader)
  reader.end()
  return { _tag: "BeatEcho", range: 0, session, round, equal: flag === 1, after, upTo, held }
}

export function writeRouse(writer: ByteWriter, { pairs }: Rouse): void {
  writePairs(writer, pairs)
}

export function readRouse(reader: ByteReader): Rouse {
  const pairs = readPairs(reader)
  reader.end()
  return { _tag: "Rouse", range: 0, pairs }
}

function writePairs(writer: ByteWriter, pairs: ReadonlyArray<SleepingPair>): void {
  writer.u16(pairs.length)
  for (const { range, leader, follower, term, index } of pairs) {
    writer.u64(range)
    writer.u64(leader)
    writer.u64(follower)
    writer.u64(term)
    writer.u64(index)
  }
}

function readPairs(reader: ByteReader): ReadonlyArray<SleepingPair> {
  const count = reader.u16()
  if (count > pairsMax) throw new MalformedBytes(`${count} sleeping groups in a message`)
  const pairs: Array<SleepingPair> = []
  for (let i = 0; i < count; i++) {
    const range = reader.u64()
    const leader = reader.u64()
    const follower = reader.u64()
    pairs.push({ range, leader, follower, term: reader.u64(), index: reader.u64() })
  }
  return pairs
}
