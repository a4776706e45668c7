import { compareBytes } from "../../lib/bytes.ts"
import type { BoundsVersion, MonotonicMs, Position } from "../../types.ts"
import { CommandView } from "../../wire/command.ts"
import type { DataRequest } from "../requests.ts"
import { type HotKey, HotKeys } from "./hotKeys.ts"

/** On average one request of so many is looked at. */
const sampleEvery = 16
/** The positions looked at last: enough to tell a half from a quarter. */
const samplesMax = 256
/** With fewer nothing is said of where the load lies. */
const samplesMin = 64
/** Each part of a cut has at least this share of the load, or the cut is none. */
const cutShareMin = 0.25
/** A key with so much of a range's load is named. */
const hotShareMin = 0.2
/** A third of each new measure counts. */
const smoothing = 0.3

const view = new CommandView()

/**
 * What is asked of one replica: how many requests a second, where their keys lie, and which keys come most. A request costs a counter; one in sixteen, at random, has its position
 * kept. A replica that nobody asks anything of keeps no positions.
 */
export class RangeLoad {
  private count = 0
  private untilSample = 1
  private random: number
  private rate = 0
  private countedAtMs: MonotonicMs | undefined
  private samples: Array<Position> = []
  private next = 0
  private hotKeys: HotKeys | undefined
  private boundsVersion: BoundsVersion = 0

  constructor(seed: number) {
    this.random = (seed * 2 + 1) >>> 0
  }

  note(request: DataRequest): void {
    this.count++
    if (--this.untilSample > 0) return
    this.random = (Math.imul(this.random, 1664525) + 1013904223) >>> 0
    this.untilSample = 1 + ((this.random >>> 16) % (2 * sampleEvery - 1))
    this.keep(positionOf(request).slice())
  }

  private keep(position: Position): void {
    this.samples[this.next] = position
    this.next = (this.next + 1) % samplesMax
    this.hotKeys ??= new HotKeys()
    this.hotKeys.add(position)
  }

  /** Called every second or so. What was known of a range says little of what other bounds leave of it. */
  tick(nowMs: MonotonicMs, boundsVersion: BoundsVersion): void {
    if (boundsVersion !== this.boundsVersion) this.forget()
    this.boundsVersion = boundsVersion
    const sinceMs = this.countedAtMs ?? nowMs
    this.countedAtMs = nowMs
    if (nowMs <= sinceMs) return
    const measured = (this.count * 1000) / (nowMs - sinceMs)
    this.count = 0
    this.rate += (measured - this.rate) * smoothing
    if (this.rate >= 1) return
    this.rate = 0
    if (this.samples.length > 0) this.forgetKeys()
  }

  private forget(): void {
    this.rate = 0
    this.count = 0
    this.forgetKeys()
  }

  private forgetKeys(): void {
    this.samples = []
    this.next = 0
    this.hotKeys = undefined
  }

  get requestsPerSecond(): number {
    return this.rate
  }

  /** Keys with a large part of the load, the hottest first. */
  hot(): ReadonlyArray<HotKey> {
    return this.samples.length < samplesMin ? [] : (this.hotKeys?.above(hotShareMin) ?? [])
  }

  /** A position with about half of the load on either side; `undefined` when there is none, because a few keys have most of it, or too little was seen. */
  cut(): Position | undefined {
    const total = this.samples.length
    if (total < samplesMin) return undefined
    const sorted = [...this.samples].sort(compareBytes)
    const middle = sorted[total >>> 1] as Position
    // The load of the middle key goes all to one side: to the right if it begins the right part, else to the left.
    const before = sorted.findIndex((each) => compareBytes(each, middle) === 0)
    const after = sorted.findIndex((each) => compareBytes(each, middle) > 0)
    const upTo = after < 0 ? total : after
    const isBetterAfter = Math.abs(total / 2 - upTo) < Math.abs(total / 2 - before)
    const at = isBetterAfter ? upTo : before
    if (Math.min(at, total - at) < cutShareMin * total) return undefined
    return sorted[at]
  }
}

function positionOf(request: DataRequest): Position {
  if (request._tag === "Get") return request.position
  if (request._tag === "Scan") return request.lower
  view.at(request.command, 0)
  return view.position
}
