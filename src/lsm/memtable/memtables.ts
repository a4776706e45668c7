import { assert } from "../../lib/assert.ts"
import type { Interval } from "../manifest/version.ts"
import type { EngineSettings } from "../options.ts"
import { ArenaPool } from "./arenaPool.ts"
import { Memtable } from "./memtable.ts"
import type { RangeTombstone } from "./rangeTombstone.ts"

/** What a flush needs of a memtable. */
export interface SealedMemtable {
  readonly generation: number
  readonly arena: SharedArrayBuffer
  /** Ascending and disjoint. */
  readonly tombstones: ReadonlyArray<RangeTombstone>
}

/**
 * The memtables of an engine: the active one, which takes writes, and before it those that are sealed and wait to be flushed, oldest first. Their generations count up
 * by one. When `maxSealedMemtables` wait, no more can be sealed, and writers wait for a flush.
 */
export class Memtables {
  /** Newest first; the first one is active. A new array at each change: readers hold the old ones. */
  list: ReadonlyArray<Memtable>
  private readonly arenas: ArenaPool
  private readonly memtableBytes: number
  private readonly sealedMax: number

  constructor(settings: EngineSettings, firstGeneration: number) {
    this.memtableBytes = settings.memtableBytes
    this.sealedMax = settings.maxSealedMemtables
    this.arenas = new ArenaPool({
      arenaBytes: settings.arenaBytes,
      keepCount: settings.maxSealedMemtables + 1,
      readyCount: settings.readyArenas,
    })
    this.list = [new Memtable(this.arenas.take(), firstGeneration)]
  }

  get active(): Memtable {
    return this.list[0]
  }

  /** Nothing is in any of them. */
  get areEmpty(): boolean {
    return this.list.length === 1 && this.active.isEmpty
  }

  /** There is room for one more sealed one. */
  get canSeal(): boolean {
    return this.list.length <= this.sealedMax
  }

  /** Whether the active one has no room for `bytes` more. An empty one takes whatever comes. */
  isOver(bytes: number): boolean {
    const { active } = this
    return !active.isEmpty && active.usedBytes + bytes > this.memtableBytes
  }

  /** Ends the active one; returns the generation of all that was put so far. An empty one is not sealed, and the generation before it is returned. */
  seal(): number {
    const { generation, isEmpty } = this.active
    if (isEmpty) return generation - 1
    assert(this.canSeal, "a memtable is sealed only while there is room for it")
    this.list = [new Memtable(this.arenas.take(), generation + 1), ...this.list]
    return generation
  }

  /** The one to be flushed next, as it crosses to a worker; `undefined` when none is sealed. */
  oldestSealed(sequence: number): SealedMemtable | undefined {
    if (this.list.length === 1) return undefined
    const { generation, arena, tombstones } = this.list[this.list.length - 1]
    const pieces = tombstones?.visibleAt(sequence) ?? []
    return { generation, arena, tombstones: pieces.map(plainTombstone) }
  }

  /** The oldest one is in tables now. */
  flushed(generation: number): void {
    const flushed = this.list[this.list.length - 1]
    assert(flushed.generation === generation, "the oldest memtable was flushed")
    this.list = this.list.slice(0, -1)
    this.drop(flushed)
  }

  /** A reader keeps all of them as they are now, and drops each in the end. */
  hold(): ReadonlyArray<Memtable> {
    for (const memtable of this.list) memtable.holders++
    return this.list
  }

  /** One holder fewer: the last one's going frees the arena. */
  drop(memtable: Memtable): void {
    memtable.holders--
    if (memtable.holders > 0) return
    memtable.release()
    this.arenas.give(memtable.arena)
  }

  /** About what lies in an interval. */
  approximateSize(interval: Interval): { bytes: number; entries: number } {
    let [bytes, entries] = [0, 0]
    for (const memtable of this.list) {
      const inMemory = memtable.approximateSize(interval.lower, interval.upper)
      bytes += inMemory.bytes
      entries += inMemory.entries
    }
    return { bytes, entries }
  }

  /** A key in the middle of the interval, by the one that holds most of it; `undefined` when none holds more than `bytes`. */
  middleKey(interval: Interval, bytes: number): Uint8Array | undefined {
    let most = bytes
    let largest: Memtable | undefined
    for (const memtable of this.list) {
      const inMemory = memtable.approximateSize(interval.lower, interval.upper)
      if (inMemory.bytes <= most) continue
      most = inMemory.bytes
      largest = memtable
    }
    return largest?.middleKey(interval.lower, interval.upper)
  }
}

/** Without what only the memtable needs: it crosses to the worker. */
function plainTombstone({ lower, upper, sequence }: RangeTombstone): RangeTombstone {
  return { lower, upper, sequence }
}
