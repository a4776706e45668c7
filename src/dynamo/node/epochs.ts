import { loadU64, storeU64 } from "../../lib/littleEndian.ts"
import { noteKey } from "./keys.ts"
import type { NodeStore } from "./ports.ts"

const key = noteKey("epoch")

/**
 * Epochs of this node's actors, from 1, each given out once: durable with what is minted in it, since it is put before. The last one is noted twice, among what is put and
 * beside the log (`NodeStore.epoch`): a dot must not be used again because the place was damaged where the epoch stood.
 */
export class Epochs {
  private readonly store: NodeStore

  constructor(store: NodeStore) {
    this.store = store
  }

  /** The last one that was given out; 0: none. */
  get last(): number {
    const last = this.store.get(key)
    return Math.max(last === undefined ? 0 : loadU64(last, 0), this.store.epoch)
  }

  next(): number {
    const epoch = this.last + 1
    this.store.epoch = epoch
    const value = new Uint8Array(8)
    storeU64(value, 0, epoch)
    this.store.put(key, value)
    return epoch
  }
}
