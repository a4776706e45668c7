import type { ClockMark } from "../raft/leader.ts"
import type { MonotonicMs, RangeId } from "../types.ts"
import type { PairSum, SleepingPair } from "./beatMessages.ts"

/** Rounds that wait for their echo; of more, the oldest are forgotten, which costs a confirmation and nothing else. */
const marksMax = 64

/** The sum of a set of pairs: a member counts by exclusive or, so that it comes and goes in any order. */
export class Sum {
  count = 0
  private high = 0
  private low = 0

  add(pair: SleepingPair): void {
    this.count++
    this.fold(pair)
  }

  remove(pair: SleepingPair): void {
    this.count--
    this.fold(pair)
  }

  private fold({ range, leader, follower, term, index }: SleepingPair): void {
    let [high, low] = [0x9e3779b9, 0x7f4a7c15]
    for (const value of [range, leader, follower, term, index]) {
      for (const half of [Math.floor(value / 2 ** 32), value % 2 ** 32]) {
        high = mixed(high ^ half, 0x85ebca6b)
        low = mixed(low ^ high ^ half, 0xc2b2ae35)
      }
    }
    this.high = (this.high ^ high) >>> 0
    this.low = (this.low ^ low) >>> 0
  }

  equals({ count, high, low }: PairSum): boolean {
    return count === this.count && high === this.high && low === this.low
  }

  take(): PairSum {
    return { count: this.count, high: this.high, low: this.low }
  }
}

/** The finalizer of MurmurHash3, with the multiplier given. */
function mixed(value: number, factor: number): number {
  let x = Math.imul(value ^ (value >>> 16), factor)
  x = Math.imul(x ^ (x >>> 13), 0x27d4eb2f)
  return x ^ (x >>> 16)
}

/** What this node and another one tell each other of groups that sleep. */
export class PeerBeats {
  // ---- Groups led here that have a follower there

  readonly led = new Sum()
  /** To be told of with the next beat. */
  announced: Array<SleepingPair> = []
  /** The newest round whose echo was equal, and the readings before it was sent. */
  equalRound = 0
  equalMark: ClockMark | undefined
  /** Since when an equal echo is waited for. */
  ledSinceMs: MonotonicMs = 0
  private marks: Array<ClockMark & { readonly round: number }> = []

  // ---- Groups led there that have a follower here

  readonly followed = new Sum()
  /** When a beat came that agreed with the state here. */
  equalAtMs: MonotonicMs = Number.NEGATIVE_INFINITY
  followedSinceMs: MonotonicMs = 0
  /** Where the next page of a list begins. */
  cursor: RangeId = 0

  sent(round: number, { monotonicMs, wallMs }: ClockMark): void {
    if (this.marks.length === marksMax) this.marks.shift()
    this.marks.push({ round, monotonicMs, wallMs })
  }

  /** The echo of a round was equal: what was led here then, and sleeps since, has been confirmed since the round was sent. */
  confirmed(round: number): void {
    const mark = this.marks.find((each) => each.round === round)
    if (mark === undefined) return
    this.marks = this.marks.filter((each) => each.round > round)
    this.equalRound = round
    this.equalMark = mark
  }

  /** The node there has not agreed for so long, though groups led here sleep on its word. */
  isDeaf(nowMs: MonotonicMs, limitMs: number): boolean {
    const since = Math.max(this.ledSinceMs, this.equalMark?.monotonicMs ?? this.ledSinceMs)
    return this.led.count > 0 && nowMs - since >= limitMs
  }

  /** The node there, which leads groups that sleep here, has been silent for so long, or has not agreed. */
  isMute(nowMs: MonotonicMs, limitMs: number): boolean {
    return (
      this.followed.count > 0 && nowMs - Math.max(this.followedSinceMs, this.equalAtMs) >= limitMs
    )
  }
}
