import type { Owner } from "../../../src/dynamo/node/owner.ts"
import type { NodeStore } from "../../../src/dynamo/node/ports.ts"
import { assert } from "../../../src/lib/assert.ts"
import { compareBytes, concatBytes, emptyBytes } from "../../../src/lib/bytes.ts"

type Entry =
  | { readonly _tag: "Put"; readonly key: Uint8Array; readonly value: Uint8Array | undefined }
  | { readonly _tag: "Range"; readonly lower: Uint8Array; readonly upper: Uint8Array }
  | { readonly _tag: "Record"; readonly record: Uint8Array }

/** A node's bytes in memory, with the log that they follow from. Everything of a turn has one mark. */
export class LoggedStore implements NodeStore {
  durableMark = 0
  epoch = 0
  isFull = false
  private keys: Array<Uint8Array> = []
  private values: Array<Uint8Array> = []
  private readonly log_: Array<{ readonly mark: number; readonly entry: Entry }> = []
  private turn = 0
  private isTurnUsed = false
  private isVisiting = false

  get mark(): number {
    return this.isTurnUsed ? this.turn + 1 : this.turn
  }

  get(key: Uint8Array, skip = 0): Uint8Array | undefined {
    const at = this.find(key)
    return this.isAt(at, key) ? this.values[at].subarray(skip) : undefined
  }

  put(key: Uint8Array, head: Uint8Array, tail: Uint8Array = emptyBytes): void {
    this.apply({ _tag: "Put", key: key.slice(), value: concatBytes(head, tail) })
  }

  delete(key: Uint8Array): void {
    this.apply({ _tag: "Put", key: key.slice(), value: undefined })
  }

  deleteRange(lower: Uint8Array, upper: Uint8Array): void {
    this.apply({ _tag: "Range", lower: lower.slice(), upper: upper.slice() })
  }

  log(record: Uint8Array): void {
    this.apply({ _tag: "Record", record: record.slice() })
  }

  scan(
    lower: Uint8Array,
    upper: Uint8Array,
    visit: (key: Uint8Array, value: Uint8Array) => boolean,
  ): void {
    this.isVisiting = true
    for (let at = this.find(lower); at < this.keys.length; at++) {
      if (compareBytes(this.keys[at], upper) >= 0) break
      if (!visit(this.keys[at], this.values[at])) break
    }
    this.isVisiting = false
  }

  endTurn(): void {
    this.turn = this.mark
    this.isTurnUsed = false
  }

  /** What was put by now is durable. */
  sync(): void {
    this.endTurn()
    this.durableMark = this.turn
  }

  /** The store of the next life: what was not durable is gone. `owner` follows from the log, as in the server. */
  restart(ownerOf: (store: LoggedStore) => Owner): { store: LoggedStore; owner: Owner } {
    const store = new LoggedStore()
    const owner = ownerOf(store)
    for (const { mark, entry } of this.log_) {
      if (mark > this.durableMark) break
      if (entry._tag === "Put") owner.replayPut(entry.key, entry.value, mark)
      else if (entry._tag === "Range") owner.replayDelete(entry.lower, entry.upper)
      else owner.replayRecord(entry.record, mark)
      store.turn = mark - 1
      store.apply(entry)
    }
    store.turn = this.durableMark
    store.isTurnUsed = false
    store.durableMark = this.durableMark
    return { store, owner }
  }

  private apply(entry: Entry): void {
    assert(!this.isVisiting, "nothing is put during a scan")
    this.isTurnUsed = true
    this.log_.push({ mark: this.mark, entry })
    if (entry._tag === "Range") {
      const from = this.find(entry.lower)
      const count = this.find(entry.upper) - from
      this.keys.splice(from, count)
      this.values.splice(from, count)
    } else if (entry._tag === "Put") this.set(entry.key, entry.value)
  }

  private set(key: Uint8Array, value: Uint8Array | undefined): void {
    const at = this.find(key)
    const isHere = this.isAt(at, key)
    if (value === undefined) {
      if (!isHere) return
      this.keys.splice(at, 1)
      this.values.splice(at, 1)
    } else if (isHere) this.values[at] = value
    else {
      this.keys.splice(at, 0, key)
      this.values.splice(at, 0, value)
    }
  }

  private isAt(at: number, key: Uint8Array): boolean {
    return at < this.keys.length && compareBytes(this.keys[at], key) === 0
  }

  /** The place of the first key that is not before this one. */
  private find(key: Uint8Array): number {
    let low = 0
    let high = this.keys.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (compareBytes(this.keys[middle], key) < 0) low = middle + 1
      else high = middle
    }
    return low
  }
}
