import { assert } from "../../src/lib/assert.ts"
import { compareBytes, utf8 } from "../../src/lib/bytes.ts"
import { hashPosition } from "../../src/lib/position.ts"
import type { Prng } from "../../src/lib/prng.ts"
import { defaultNamespace } from "../../src/server/bootstrap.ts"
import type { Position, RangeDescriptor } from "../../src/types.ts"

/** A key of the workload and where it lies. Which range that is may change. */
export interface KeyPlace {
  readonly number: number
  readonly position: Position
  /** Where it was made: among these ranges keys are spread. */
  readonly home: RangeDescriptor
}

/** Unknown outcomes that one key takes; more would make its history costly to check and easy to satisfy. */
const unknownMax = 10
/** Operations that one key takes. */
const operationsMax = 300

/**
 * The keys that clients use: a few at a time, in every home at least one if there are enough. A key whose history has become long or unclear is replaced by
 * a fresh one in the same home.
 */
export class Keys {
  /** Every key ever used. */
  readonly all: Array<KeyPlace> = []
  private readonly active: Array<KeyPlace> = []
  private readonly unknown: Array<number> = []
  private readonly operations: Array<number> = []
  private readonly homes: ReadonlyArray<RangeDescriptor>
  private nextName = 0

  constructor(homes: ReadonlyArray<RangeDescriptor>, count: number) {
    this.homes = homes
    for (let i = 0; i < count; i++) this.active.push(this.make(homes[i]))
  }

  /** A key for the next operation. */
  draw(prng: Prng): KeyPlace {
    const key = prng.pick(this.active)
    this.operations[key.number]!++
    if ((this.operations[key.number] as number) >= operationsMax) this.replace(key)
    return key
  }

  /** Takes note of an operation on the key whose outcome stays unknown. */
  noteUnknown(key: KeyPlace): void {
    this.unknown[key.number]!++
    if ((this.unknown[key.number] as number) >= unknownMax) this.replace(key)
  }

  private replace(key: KeyPlace): void {
    const at = this.active.indexOf(key)
    if (at >= 0) this.active[at] = this.make(key.home)
  }

  /** A fresh key in `home`, or anywhere. */
  private make(home: RangeDescriptor | undefined): KeyPlace {
    for (;;) {
      const position = hashPosition(defaultNamespace, utf8(`k${this.nextName++}`))
      const found = this.homes.findLast(({ start }) => compareBytes(start, position) <= 0)
      assert(found !== undefined, "the ranges cover the namespace")
      if (home !== undefined && home !== found) continue
      const key = { number: this.all.length, position, home: found }
      this.all.push(key)
      this.unknown.push(0)
      this.operations.push(0)
      return key
    }
  }
}
