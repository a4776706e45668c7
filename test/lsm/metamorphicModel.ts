import { compareBytes, fromHex, toHex } from "../../src/lib/bytes.ts"

/** Keys in hex, which sorts as the bytes do. */
export type Pair = readonly [key: string, value: Uint8Array]

/** What readers leave out, as expired or as belonging to nobody: an engine may have dropped it, or not yet. */
export type Hidden = (key: string, value: Uint8Array) => boolean

/** The simplest thing that could be right: a sorted array of keys and a map. */
export class SortedModel {
  private readonly keys: Array<string>
  private readonly values: Map<string, Uint8Array>

  constructor(keys: Array<string> = [], values = new Map<string, Uint8Array>()) {
    this.keys = keys
    this.values = values
  }

  clone(): SortedModel {
    return new SortedModel([...this.keys], new Map(this.values))
  }

  get size(): number {
    return this.keys.length
  }

  /** Index of the first key at or after `key`. */
  indexOf(key: string): number {
    let low = 0
    let high = this.keys.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((this.keys[middle] as string) < key) low = middle + 1
      else high = middle
    }
    return low
  }

  keyAt(index: number): string | undefined {
    return this.keys[index]
  }

  get(key: string): Uint8Array | undefined {
    return this.values.get(key)
  }

  put(key: string, value: Uint8Array): void {
    if (!this.values.has(key)) this.keys.splice(this.indexOf(key), 0, key)
    this.values.set(key, value)
  }

  delete(key: string): void {
    if (this.values.delete(key)) this.keys.splice(this.indexOf(key), 1)
  }

  deleteRange(lower: string, upper: string | undefined): void {
    const from = this.indexOf(lower)
    const to = upper === undefined ? this.keys.length : Math.max(from, this.indexOf(upper))
    for (const key of this.keys.splice(from, to - from)) this.values.delete(key)
  }

  between(lower: string, upper: string | undefined): Array<Pair> {
    const result: Array<Pair> = []
    for (let i = this.indexOf(lower); i < this.keys.length; i++) {
      const key = this.keys[i] as string
      if (upper !== undefined && key >= upper) break
      result.push([key, this.values.get(key) as Uint8Array])
    }
    return result
  }
}

/** One step of an iterator. */
export type Move =
  | { readonly _tag: "First" | "Last" | "Next" | "Previous" }
  | { readonly _tag: "Seek" | "SeekBefore"; readonly key: Uint8Array }

/**
 * What an iterator over a model gives. It stands on a pair, before the first, after the last, or, as made, nowhere: then a step up leads to the
 * first and a step down to the last.
 */
export class ModelIterator {
  private readonly model: SortedModel
  private readonly lower: string
  private readonly upper: string | undefined
  private place: "nowhere" | "before" | "on" | "after" = "nowhere"
  private at = ""

  constructor(model: SortedModel, lower: Uint8Array, upper: Uint8Array | undefined) {
    this.model = model
    this.lower = toHex(lower)
    this.upper = upper === undefined ? undefined : toHex(upper)
  }

  /** The pair on which it then stands, in text; "end" when there is none. */
  move(move: Move, hidden: Hidden): string {
    switch (move._tag) {
      case "First":
        return this.upFrom(this.lower, hidden)
      case "Seek":
        return this.upFrom(maximum(this.lower, toHex(move.key)), hidden)
      case "Next":
        if (this.place === "after") return "end"
        return this.upFrom(this.place === "on" ? `${this.at}00` : this.lower, hidden)
      case "Last":
        return this.downFrom(this.upper, hidden)
      case "SeekBefore":
        return this.downFrom(minimum(this.upper, toHex(move.key)), hidden)
      case "Previous":
        if (this.place === "before") return "end"
        return this.downFrom(this.place === "on" ? this.at : this.upper, hidden)
      default:
        throw move satisfies never
    }
  }

  private upFrom(key: string, hidden: Hidden): string {
    for (let i = this.model.indexOf(key); ; i++) {
      const found = this.model.keyAt(i)
      if (found === undefined || (this.upper !== undefined && found >= this.upper)) break
      if (this.stand(found, hidden)) return this.shown()
    }
    this.place = "after"
    return "end"
  }

  private downFrom(key: string | undefined, hidden: Hidden): string {
    const from = key === undefined ? this.model.size : this.model.indexOf(key)
    for (let i = from - 1; i >= 0; i--) {
      const found = this.model.keyAt(i) as string
      if (found < this.lower) break
      if (this.stand(found, hidden)) return this.shown()
    }
    this.place = "before"
    return "end"
  }

  private stand(key: string, hidden: Hidden): boolean {
    if (hidden(key, this.model.get(key) as Uint8Array)) return false
    this.at = key
    this.place = "on"
    return true
  }

  private shown(): string {
    return showPair(this.at, this.model.get(this.at) as Uint8Array)
  }
}

function maximum(left: string, right: string): string {
  return left > right ? left : right
}

function minimum(left: string | undefined, right: string): string {
  return left === undefined || right < left ? right : left
}

export function showPair(key: string, value: Uint8Array): string {
  return `${key}=${showValue(value)}`
}

export function showValue(value: Uint8Array | undefined): string {
  return value === undefined ? "absent" : toHex(value)
}

export function bytesOfKey(key: string): Uint8Array {
  return fromHex(key) as Uint8Array
}

export function isBefore(left: Uint8Array, right: Uint8Array | undefined): boolean {
  return right === undefined || compareBytes(left, right) < 0
}
