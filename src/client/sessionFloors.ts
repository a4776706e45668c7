import { assert } from "../lib/assert.ts"
import { ByteReader, MalformedBytes } from "../lib/byteReader.ts"
import { compareBytes, text, utf8 } from "../lib/bytes.ts"
import { ByteWriter } from "../lib/byteWriter.ts"
import { crc32 } from "../lib/checksum.ts"
import type { Position, Version } from "../types.ts"

/**
 * What a session has seen, as a version for each interval of positions: a state of an earlier range time must not be shown to it. Ranges come and go, and
 * both halves of a split inherit the range time, so the intervals stay true whatever becomes of the ranges that they were seen in.
 *
 * Invariants: intervals are sorted, disjoint and not empty; what is asked of a position never sinks. There are at most `intervalsMax` of them, whose bounds take
 * at most `boundsBytesMax`; beyond, neighbours become one interval of the larger version, which asks for more than was seen, never for less.
 */
interface Floor {
  readonly start: Position
  /** Exclusive; empty = to the end of the space. */
  readonly end: Position
  version: Version
}

const intervalsMax = 256
const boundsBytesMax = 8 * 1024
const tokenVersion = 1
const checksumBytes = 4

export class SessionFloors {
  readonly clusterId: string
  private floors: Array<Floor> = []

  constructor(clusterId: string) {
    assert(utf8(clusterId).length <= 255, "the cluster's id fits a token")
    this.clusterId = clusterId
  }

  /** The largest version seen of any position from `lower` up to `upper`; 0 = nothing. An empty `upper` is the end of the space. */
  least(lower: Position, upper: Position): Version {
    let version = 0
    for (const floor of this.floors) {
      if (isBelow(lower, floor.end) && isBelow(floor.start, upper)) {
        version = Math.max(version, floor.version)
      }
    }
    return version
  }

  /** A state of the interval at `version` has been shown, or a write there acknowledged. */
  saw(interval: { readonly start: Position; readonly end: Position }, version: Version): void {
    if (version === 0) return
    const { start, end } = interval
    const same = this.floors.find(
      (floor) => compareBytes(floor.start, start) === 0 && compareBytes(floor.end, end) === 0,
    )
    if (same !== undefined) {
      same.version = Math.max(same.version, version)
      return
    }
    const floors: Array<Floor> = []
    let from: Position | undefined = start
    for (const floor of this.floors) {
      if (!isBelow(floor.start, end) || !isBelow(start, floor.end)) {
        floors.push(floor)
        continue
      }
      if (compareBytes(floor.start, start) < 0) floors.push({ ...floor, end: start })
      const low: Position = compareBytes(floor.start, start) < 0 ? start : floor.start
      if (from !== undefined && compareBytes(from, low) < 0) {
        floors.push({ start: from, end: low, version })
      }
      const high = isEndBelow(floor.end, end) ? floor.end : end
      floors.push({ start: low, end: high, version: Math.max(version, floor.version) })
      if (isEndBelow(end, floor.end)) floors.push({ ...floor, start: end })
      from = high.length === 0 ? undefined : high
    }
    if (from !== undefined && isBelow(from, end)) floors.push({ start: from, end, version })
    floors.sort((left, right) => compareBytes(left.start, right.start))
    this.floors = floors
    this.unite()
  }

  /** Joins neighbours of one version, then the most alike ones until the limits hold. */
  private unite(): void {
    const joined: Array<Floor> = []
    for (const floor of this.floors) {
      const last = joined.at(-1)
      const touches = last !== undefined && compareBytes(last.end, floor.start) === 0
      if (last !== undefined && touches && last.version === floor.version) {
        joined[joined.length - 1] = { ...last, end: floor.end }
      } else joined.push(floor)
    }
    let boundsBytes = 0
    for (const { start, end } of joined) boundsBytes += start.length + end.length
    while (joined.length > 1 && (joined.length > intervalsMax || boundsBytes > boundsBytesMax)) {
      let best = 1
      for (let i = 2; i < joined.length; i++) {
        if (distance(joined, i) < distance(joined, best)) best = i
      }
      const [left, right] = [joined[best - 1] as Floor, joined[best] as Floor]
      boundsBytes -= left.end.length + right.start.length
      const version = Math.max(left.version, right.version)
      joined.splice(best - 1, 2, { start: left.start, end: right.end, version })
    }
    this.floors = joined
  }

  /**
   * All of it as printable text, for another process to go on with. Users keep it: do not change. base64url of
   *
   *     u8 version ‖ u8 length ‖ cluster id ‖ u16 count ‖ count times (u16 length ‖ start ‖ u16 length ‖ end ‖ u64 version) ‖ u32 CRC-32 of all before
   */
  get token(): string {
    const writer = new ByteWriter(256)
    const id = utf8(this.clusterId)
    writer.u8(tokenVersion)
    writer.u8(id.length)
    writer.raw(id)
    writer.u16(this.floors.length)
    for (const { start, end, version } of this.floors) {
      writer.u16(start.length)
      writer.raw(start)
      writer.u16(end.length)
      writer.raw(end)
      writer.u64(version)
    }
    const body = writer.take()
    const checksum = new ByteWriter(checksumBytes)
    checksum.u32(crc32(body))
    return Buffer.concat([body, checksum.take()]).toString("base64url")
  }

  /** The session that a token stands for, or why it stands for none. */
  static parse(token: string): SessionFloors | string {
    const bytes = new Uint8Array(Buffer.from(token, "base64url"))
    const cut = "the session token is not one that Kvorum gave, or it was cut: pass it on whole"
    if (bytes.length <= checksumBytes || Buffer.from(bytes).toString("base64url") !== token) {
      return cut
    }
    const body = bytes.subarray(0, bytes.length - checksumBytes)
    const sum = new ByteReader(bytes.subarray(body.length)).u32()
    if (sum !== crc32(body)) return cut
    try {
      return readFloors(new ByteReader(body))
    } catch (cause) {
      if (!(cause instanceof MalformedBytes)) throw cause
      return cut
    }
  }
}

function readFloors(reader: ByteReader): SessionFloors | string {
  const version = reader.u8()
  if (version !== tokenVersion) {
    return `the session token is of version ${version}, which this Kvorum does not know: begin a new session`
  }
  const session = new SessionFloors(text(reader.raw(reader.u8())))
  const count = reader.u16()
  for (let i = 0; i < count; i++) {
    const start = reader.raw(reader.u16()).slice()
    const end = reader.raw(reader.u16()).slice()
    if (end.length > 0 && compareBytes(start, end) >= 0) throw new MalformedBytes("empty interval")
    session.saw({ start, end }, reader.u64())
  }
  reader.end()
  return session
}

/** How much more is asked of one of two neighbours when they become one. */
function distance(floors: ReadonlyArray<Floor>, right: number): number {
  return Math.abs((floors[right - 1] as Floor).version - (floors[right] as Floor).version)
}

/** A position lies before an end, the empty one being that of the space. */
function isBelow(position: Position, end: Position): boolean {
  return end.length === 0 || compareBytes(position, end) < 0
}

function isEndBelow(left: Position, right: Position): boolean {
  if (left.length === 0) return false
  return right.length === 0 || compareBytes(left, right) < 0
}
