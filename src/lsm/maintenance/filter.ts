import { assert } from "../../lib/assert.ts"
import { compareBytes, emptyBytes } from "../../lib/bytes.ts"
import type { Cursor } from "../read/cursor.ts"
import { compareKey } from "../read/cursor.ts"
import { kinds } from "../table/format.ts"

/**
 * What compactions may drop of the keys of [lower, upper); plain data, so that a worker thread can
 * judge by it. Whoever gives a rule answers for it: dropping must change neither an answer nor a
 * tree, now or later.
 */
export interface FilterRule {
  readonly lower: Uint8Array
  readonly upper: Uint8Array | undefined
  readonly rule: FilterTest
}

export type FilterTest =
  /** Nothing asks for these keys any more. */
  | { readonly _tag: "Drop" }
  /**
   * Values that have expired: a u64, little-endian, stands at `offset` in the value; 0 = never. A
   * value that is too short for it never expires, nor does one in which the flag is not set, if a
   * flag tells whether the number stands there.
   */
  | ExpiredTest

export interface ExpiredTest {
  readonly _tag: "Expired"
  readonly offset: number
  readonly flag?: { readonly offset: number; readonly mask: number }
  readonly atOrBefore: number
}

/**
 * Shows a put that a rule drops as a delete of the same sequence, which is then kept or dropped like
 * any delete. So an older value below does not come back.
 */
export class FilterCursor implements Cursor {
  reverse = false
  keyBytes: Uint8Array = emptyBytes
  keyOffset = 0
  keyLength = 0
  sequence = 0
  kind = 0
  valueBytes: Uint8Array = emptyBytes
  valueOffset = 0
  valueLength = 0
  private readonly source: Cursor
  private readonly rules: ReadonlyArray<FilterRule>
  /** The first rule that does not end before the present key. */
  private at = 0

  /** `rules` are disjoint and in order; the source goes forward. */
  constructor(source: Cursor, rules: ReadonlyArray<FilterRule>) {
    for (let i = 1; i < rules.length; i++) {
      const { upper } = rules[i - 1] as FilterRule
      const { lower } = rules[i] as FilterRule
      const isApart = upper !== undefined && compareBytes(upper, lower) <= 0
      assert(isApart, "filter rules are disjoint and in order")
    }
    this.source = source
    this.rules = rules
  }

  get valid(): boolean {
    return this.source.valid
  }

  seek(key: Uint8Array | undefined): void {
    this.source.seek(key)
    this.at = 0
    this.show()
  }

  advance(): void {
    this.source.advance()
    this.show()
  }

  private show(): void {
    const source = this.source
    if (!source.valid) return
    this.keyBytes = source.keyBytes
    this.keyOffset = source.keyOffset
    this.keyLength = source.keyLength
    this.sequence = source.sequence
    if (source.kind === kinds.put && this.isDropped()) {
      this.kind = kinds.delete
      this.valueBytes = emptyBytes
      this.valueOffset = 0
      this.valueLength = 0
      return
    }
    this.kind = source.kind
    this.valueBytes = source.valueBytes
    this.valueOffset = source.valueOffset
    this.valueLength = source.valueLength
  }

  private isDropped(): boolean {
    const { rules, source } = this
    while (this.at < rules.length) {
      const { lower, upper, rule } = rules[this.at] as FilterRule
      if (upper !== undefined && compareKey(source, upper) >= 0) {
        this.at++
        continue
      }
      if (compareKey(source, lower) < 0) return false
      return rule._tag === "Drop" || isExpired(source, rule)
    }
    return false
  }
}

function isExpired(cursor: Cursor, rule: ExpiredTest): boolean {
  const { offset, flag, atOrBefore } = rule
  if (cursor.valueLength < offset + 8) return false
  const { valueBytes } = cursor
  if (flag !== undefined) {
    const flags = valueBytes[cursor.valueOffset + flag.offset] as number
    if ((flags & flag.mask) === 0) return false
  }
  let expiry = 0
  for (let i = 7; i >= 0; i--) {
    expiry = expiry * 256 + (valueBytes[cursor.valueOffset + offset + i] as number)
  }
  return expiry !== 0 && expiry <= atOrBefore
}
