import { compareBytes, concatBytes, prefixEnd, toHex, utf8 } from "../../src/lib/bytes.ts"
import { Prng } from "../../src/lib/prng.ts"
import {
  type Hidden,
  ModelIterator,
  type Move,
  type Pair,
  SortedModel,
  showPair,
  showValue,
} from "./metamorphicModel.ts"

export type Write =
  | { readonly _tag: "Put"; readonly key: Uint8Array; readonly value: Uint8Array }
  | { readonly _tag: "Delete"; readonly key: Uint8Array }
  | { readonly _tag: "DeleteRange"; readonly lower: Uint8Array; readonly upper: Uint8Array }

export interface Bounds {
  readonly lower: Uint8Array
  readonly upper: Uint8Array | undefined
}

/** What is done to an engine; a slot names a snapshot or an iterator that is held. */
export type Operation =
  | Write
  | { readonly _tag: "Batch"; readonly writes: ReadonlyArray<Write> }
  | { readonly _tag: "Get"; readonly key: Uint8Array; readonly snapshot: number | undefined }
  | {
      readonly _tag: "Scan"
      readonly bounds: Bounds
      readonly reverse: boolean
      readonly snapshot: number | undefined
    }
  | { readonly _tag: "Snapshot" | "Release" | "CloseIterator"; readonly slot: number }
  | {
      readonly _tag: "OpenIterator"
      readonly slot: number
      readonly bounds: Bounds
      readonly prefix: Uint8Array | undefined
      readonly snapshot: number | undefined
    }
  | { readonly _tag: "Move"; readonly slot: number; readonly move: Move }
  | { readonly _tag: "Seal" | "Checkpoint" }
  | { readonly _tag: "Jobs"; readonly count: number }
  | { readonly _tag: "Reopen"; readonly powerLoss: boolean }
  | {
      readonly _tag: "Replace"
      readonly intervals: ReadonlyArray<Bounds>
      readonly pairs: ReadonlyArray<Pair>
    }
  | {
      readonly _tag: "IngestTables"
      readonly intervals: ReadonlyArray<Bounds>
      readonly pairs: ReadonlyArray<Pair>
    }
  | { readonly _tag: "Measure"; readonly bounds: Bounds }
  | { readonly _tag: "Expire"; readonly clock: number }
  | { readonly _tag: "Disown" }

export interface Step {
  readonly operation: Operation
  /** What it must give, in text; empty where it gives nothing. */
  readonly expected: string
  /** Clock of the reader: values of `expiringTree` with an expiry up to it are hidden. */
  readonly clock: number
  readonly disowned: boolean
}

/** First bytes of keys, each of a tree of its own. */
export const treeIds: ReadonlyArray<number> = [0x01, 0x6b, 0xfe]
/** Its values begin with an expiry, u64 little-endian, 0 = never. */
export const expiringTree = 0xfe
/** From `Disown` on nobody reads these keys. */
export const disownedInterval = {
  lower: new Uint8Array([0x01, 0x70]),
  upper: new Uint8Array([0x01, 0x78]),
}

const disownedLower = toHex(disownedInterval.lower)
const disownedUpper = toHex(disownedInterval.upper)

export function hiddenAt(clock: number, disowned: boolean): Hidden {
  return (key, value) => {
    if (disowned && key >= disownedLower && key < disownedUpper) return true
    if (!key.startsWith("fe") || value.length < 8) return false
    const expiry = value[0] + value[1] * 256 + value[2] * 65536
    return expiry > 0 && expiry <= clock
  }
}

/**
 * Operations drawn from a seed, with what each must give: the same for every engine, however it is set up. Every fourth seed does without what
 * empties a whole cache (range deletes, ingests), so that what single writes leave in one comes to light.
 */
export function makeTrace(seed: number, count: number): ReadonlyArray<Step> {
  const maker = new TraceMaker(new Prng(seed), seed % 4 === 3)
  while (maker.steps.length < count) maker.draw()
  return maker.steps
}

class TraceMaker {
  readonly steps: Array<Step> = []
  private readonly prng: Prng
  private readonly model = new SortedModel()
  private readonly snapshots = new Map<number, SortedModel>()
  private readonly iterators = new Map<number, { iterator: ModelIterator; snapshot: number }>()
  private clock = 0
  private disowned = false
  private nextSlot = 1
  private stamp = 0

  private readonly calm: boolean

  constructor(prng: Prng, calm: boolean) {
    this.prng = prng
    this.calm = calm
  }

  draw(): void {
    const { prng } = this
    let draw = prng.int(0, 9999)
    // Reads in place of iterators, which cost as much, and of ingests.
    if (this.calm && draw >= 5980 && draw < 8520) draw = 5000
    if (this.calm && draw >= 9560 && draw < 9790) draw = 5000
    if (draw < 4000) this.write()
    else if (draw < 4700) this.batch()
    else if (draw < 5600) this.get()
    else if (draw < 5800) this.scan()
    else if (draw < 5980) this.snapshot()
    else if (draw < 6120) this.release()
    else if (draw < 6420) this.openIterator()
    else if (draw < 8300) this.move()
    else if (draw < 8520) this.closeIterator()
    else if (draw < 8720) this.add({ _tag: "Seal" })
    else if (draw < 9500) this.add({ _tag: "Jobs", count: prng.pick([1, 1, 2, 5, 100]) })
    else if (draw < 9560) this.reopen()
    else if (draw < 9660) this.replace("Replace")
    else if (draw < 9760) this.replace("IngestTables")
    else if (draw < 9790) this.checkpoint()
    else if (draw < 9970) this.add({ _tag: "Measure", bounds: this.bounds() })
    else if (draw < 9998) this.expire()
    else this.disown()
  }

  private add(operation: Operation, expected = ""): void {
    const { clock, disowned } = this
    this.steps.push({ operation, expected, clock, disowned })
  }

  private hidden(): Hidden {
    return hiddenAt(this.clock, this.disowned)
  }

  // ---- Writes

  /** Of few keys often, where caches are to be found out. */
  private key(): Uint8Array {
    const { prng } = this
    if (!this.calm || prng.chance(0.5)) return randomTreeKey(prng)
    return concatBytes(new Uint8Array([prng.pick(treeIds)]), utf8(`key:${prng.int(0, 5)}`))
  }

  private makeWrite(): Write {
    const { prng } = this
    const draw = prng.int(0, this.calm ? 91 : 99)
    if (draw < 70) {
      const key = this.key()
      return { _tag: "Put", key, value: this.value(key) }
    }
    if (draw < 92) return { _tag: "Delete", key: this.key() }
    // Inside one tree, mostly short, and now and then empty.
    const tree = prng.pick(treeIds)
    let lower = randomTreeKey(prng, tree)
    let upper =
      draw < 98 ? concatBytes(lower, new Uint8Array([prng.int(0, 255)])) : randomTreeKey(prng, tree)
    if (draw >= 99) upper = new Uint8Array([tree + 1])
    if (compareBytes(lower, upper) > 0) [lower, upper] = [upper, lower]
    return { _tag: "DeleteRange", lower, upper }
  }

  private value(key: Uint8Array): Uint8Array {
    const { prng } = this
    const length = prng.chance(0.02) ? prng.int(200, 1500) : prng.int(0, 40)
    const value = new Uint8Array(length)
    // Half compressible, and every one different, so that an old one is never taken for a new one.
    for (let i = 0; i < length; i++) value[i] = i % 2 === 0 ? prng.int(0, 255) : 0x20
    const stamp = utf8(`${this.stamp++};`)
    if (key[0] !== expiringTree) return concatBytes(stamp, value)
    if (prng.chance(0.1)) return stamp.slice(0, 7)
    const expiry = new Uint8Array(8)
    const at = prng.chance(0.5) ? 0 : this.clock + prng.int(1, 60)
    expiry.set([at & 255, (at >>> 8) & 255, at >>> 16])
    return concatBytes(expiry, stamp, value)
  }

  private apply(write: Write): void {
    if (write._tag === "Put") this.model.put(toHex(write.key), write.value)
    else if (write._tag === "Delete") this.model.delete(toHex(write.key))
    else this.model.deleteRange(toHex(write.lower), toHex(write.upper))
  }

  private write(): void {
    const write = this.makeWrite()
    this.apply(write)
    this.add(write)
  }

  private batch(): void {
    const writes = Array.from({ length: this.prng.int(0, 8) }, () => this.makeWrite())
    for (const write of writes) this.apply(write)
    this.add({ _tag: "Batch", writes })
  }

  // ---- Reads

  private anySnapshot(): number | undefined {
    const { prng, snapshots } = this
    return snapshots.size > 0 && prng.chance(0.4) ? prng.pick([...snapshots.keys()]) : undefined
  }

  private at(snapshot: number | undefined): SortedModel {
    return snapshot === undefined ? this.model : (this.snapshots.get(snapshot) as SortedModel)
  }

  private bounds(): Bounds {
    const { prng } = this
    const lower = prng.chance(0.3) ? new Uint8Array(0) : randomTreeKey(prng)
    const upper = prng.chance(0.3) ? undefined : randomTreeKey(prng)
    if (upper !== undefined && compareBytes(lower, upper) > 0) return { lower: upper, upper: lower }
    return { lower, upper }
  }

  private get(): void {
    const snapshot = this.anySnapshot()
    const key = this.key()
    const value = this.at(snapshot).get(toHex(key))
    const isHidden = value !== undefined && this.hidden()(toHex(key), value)
    this.add({ _tag: "Get", key, snapshot }, showValue(isHidden ? undefined : value))
  }

  private scan(): void {
    const snapshot = this.anySnapshot()
    const { lower, upper } = this.bounds()
    const hidden = this.hidden()
    const pairs = this.at(snapshot)
      .between(toHex(lower), upper && toHex(upper))
      .filter(([key, value]) => !hidden(key, value))
    const reverse = this.prng.chance(0.5)
    if (reverse) pairs.reverse()
    const expected = pairs.map(([key, value]) => showPair(key, value)).join(" ")
    this.add({ _tag: "Scan", bounds: { lower, upper }, reverse, snapshot }, expected)
  }

  private snapshot(): void {
    if (this.snapshots.size >= 4) return
    const slot = this.nextSlot++
    this.snapshots.set(slot, this.model.clone())
    this.add({ _tag: "Snapshot", slot })
  }

  private release(): void {
    if (this.snapshots.size === 0) return
    const slot = this.prng.pick([...this.snapshots.keys()])
    // A snapshot outlives its iterators.
    for (const [other, { snapshot }] of this.iterators) if (snapshot === slot) this.closeSlot(other)
    this.snapshots.delete(slot)
    this.add({ _tag: "Release", slot })
  }

  private openIterator(): void {
    if (this.iterators.size >= 4) return
    const { prng } = this
    const slot = this.nextSlot++
    const snapshot = this.anySnapshot()
    const bounds = this.bounds()
    let prefix: Uint8Array | undefined
    if (prng.chance(0.3)) {
      const key = randomTreeKey(prng)
      prefix = key.slice(0, prng.int(0, Math.min(3, key.length)))
    }
    const within = intersection(bounds, prefix)
    // What is written later does not show.
    const model = snapshot === undefined ? this.model.clone() : this.at(snapshot)
    const iterator = new ModelIterator(model, within.lower, within.upper)
    this.iterators.set(slot, { iterator, snapshot: snapshot ?? 0 })
    this.add({ _tag: "OpenIterator", slot, bounds, prefix, snapshot })
  }

  private move(): void {
    if (this.iterators.size === 0) return
    const { prng } = this
    const slot = prng.pick([...this.iterators.keys()])
    const { iterator } = this.iterators.get(slot) as { iterator: ModelIterator }
    let tag = prng.pick(["Next", "Previous"] as const)
    // Mostly on in one direction for a while.
    for (let left = prng.pick([1, 1, 3, 12]); left > 0; left--) {
      if (prng.chance(0.2)) tag = prng.pick(["Next", "Previous"] as const)
      let move: Move = { _tag: tag }
      if (prng.chance(0.25)) {
        const key = prng.chance(0.1) ? prng.pick(oddKeys) : randomTreeKey(prng)
        move = prng.pick([
          { _tag: "First" },
          { _tag: "Last" },
          { _tag: "Seek", key },
          { _tag: "SeekBefore", key },
        ] as const)
      }
      this.add({ _tag: "Move", slot, move }, iterator.move(move, this.hidden()))
    }
  }

  private closeIterator(): void {
    if (this.iterators.size > 0) this.closeSlot(this.prng.pick([...this.iterators.keys()]))
  }

  private closeSlot(slot: number): void {
    this.iterators.delete(slot)
    this.add({ _tag: "CloseIterator", slot })
  }

  // ---- The whole

  private reopen(): void {
    for (const slot of [...this.iterators.keys()]) this.closeSlot(slot)
    for (const slot of this.snapshots.keys()) this.add({ _tag: "Release", slot })
    this.snapshots.clear()
    this.add({ _tag: "Reopen", powerLoss: this.prng.chance(0.5) })
  }

  private replace(tag: "Replace" | "IngestTables"): void {
    const { prng } = this
    // An interval of one tree, or the whole of it.
    const tree = prng.pick(treeIds)
    const first = [randomTreeKey(prng, tree), randomTreeKey(prng, tree)].sort(compareBytes)
    const [lower, upper] = first as [Uint8Array, Uint8Array]
    const end = new Uint8Array([tree + 1])
    const intervals: Array<Bounds> = [
      prng.chance(0.2) ? { lower: new Uint8Array([tree]), upper: end } : { lower, upper },
    ]
    const [only] = intervals as [Bounds]
    if (compareBytes(only.lower, only.upper as Uint8Array) >= 0) return
    if (only.upper === upper && prng.chance(0.3)) {
      const next = concatBytes(upper, new Uint8Array([0]))
      intervals.push({ lower: next, upper: end })
    }
    const fresh = new SortedModel()
    for (let left = prng.int(0, 30); left > 0; left--) {
      const key = randomTreeKey(prng, tree)
      fresh.put(toHex(key), this.value(key))
    }
    const pairs = intervals.flatMap((interval) =>
      fresh.between(toHex(interval.lower), toHex(interval.upper as Uint8Array)),
    )
    for (const interval of intervals) {
      this.model.deleteRange(toHex(interval.lower), toHex(interval.upper as Uint8Array))
    }
    for (const [key, value] of pairs) this.model.put(key, value)
    this.add({ _tag: tag, intervals, pairs })
  }

  private checkpoint(): void {
    const hidden = this.hidden()
    const pairs = this.model.between("", undefined)
    const shown = pairs.filter(([key, value]) => !hidden(key, value))
    const expected = shown.map(([key, value]) => showPair(key, value)).join(" ")
    this.add({ _tag: "Checkpoint" }, expected)
  }

  private expire(): void {
    this.clock += this.prng.int(1, 20)
    this.add({ _tag: "Expire", clock: this.clock })
  }

  private disown(): void {
    this.disowned = true
    this.add({ _tag: "Disown" })
  }
}

export function intersection(bounds: Bounds, prefix: Uint8Array | undefined): Bounds {
  if (prefix === undefined) return bounds
  const end = prefixEnd(prefix)
  const lower = compareBytes(bounds.lower, prefix) > 0 ? bounds.lower : prefix
  if (end === undefined) return { lower, upper: bounds.upper }
  const isTighter = bounds.upper !== undefined && compareBytes(bounds.upper, end) < 0
  return { lower, upper: isTighter ? bounds.upper : end }
}

/** Seeks to what lies outside of every tree too. */
const oddKeys: ReadonlyArray<Uint8Array> = [
  new Uint8Array(0),
  new Uint8Array([0]),
  new Uint8Array([0x02]),
  new Uint8Array([0xff, 0xff]),
  new Uint8Array([0xff]),
]

/** Short keys that collide, share prefixes, hold 0x00 and 0xff, extend one another, and lie between the bytes of a tree. */
export function randomTreeKey(prng: Prng, tree = prng.pick(treeIds)): Uint8Array {
  const style = prng.int(0, 9)
  const first = new Uint8Array([tree])
  if (style < 5) return concatBytes(first, utf8(`key:${prng.int(0, 60)}`))
  if (style < 8) {
    const rest = new Uint8Array(prng.int(0, 4))
    for (let i = 0; i < rest.length; i++) {
      rest[i] = prng.pick([0, 1, 0x6b, 0x70, 0x7f, 0x80, 0xfe, 0xff])
    }
    return concatBytes(first, rest)
  }
  if (style < 9) {
    return concatBytes(first, utf8(`key:${"long".repeat(prng.int(1, 12))}${prng.int(0, 3)}`))
  }
  return concatBytes(first, new Uint8Array(prng.int(1, 12)).fill(0xff))
}
