import { toHex } from "../../src/lib/bytes.ts"
import type { KeyValues } from "../../src/server/apply.ts"

/** An engine that is a map of hex keys. */
export class MapValues implements KeyValues {
  records = new Map<string, Uint8Array>()
  get(key: Uint8Array): Uint8Array | undefined {
    return this.records.get(toHex(key))
  }
  putParts(key: Uint8Array, head: Uint8Array, tail: Uint8Array): void {
    this.records.set(toHex(key), Uint8Array.of(...head, ...tail))
  }
  delete(key: Uint8Array): void {
    this.records.delete(toHex(key))
  }
  deleteRange(lower: Uint8Array, upper: Uint8Array): void {
    const [from, to] = [toHex(lower), toHex(upper)]
    for (const key of this.records.keys()) {
      if (key >= from && key < to) this.records.delete(key)
    }
  }
}
