import { StorageCorruption } from "../disk/disk.ts"
import { noteKey } from "../dynamo/node/keys.ts"
import type { NodeStore } from "../dynamo/node/ports.ts"
import type { JournalGroup } from "../journal/group.ts"
import { ByteReader } from "../lib/byteReader.ts"
import { emptyBytes } from "../lib/bytes.ts"
import { ByteWriter } from "../lib/byteWriter.ts"
import { loadU64, storeU64 } from "../lib/littleEndian.ts"
import type { LogIndex } from "../types.ts"
import type { Storage } from "./storage.ts"

/** The group of the journal that eventual writes are logged in; no range has this id. Stored: do not change. */
export const eventualLog = { range: 2 ** 52, replica: 1 } as const
/** Of entries. The log's own term goes on with the epochs. */
const term = 1
/** Of an entry. */
const kind = 0

/** First byte of an operation in an entry. Stored: do not change. */
const operations = { put: 1, delete: 2, deleteRange: 3, record: 4 } as const
/**
 * Epochs that may have been given out in what an unsure log has lost without a trace: that is less than a segment, and each takes at least 18 bytes of one for its note.
 */
const epochsLostMax = 2 ** 24
const appliedKey = noteKey("applied")

/** Who is told what the log holds, before each operation is put again. */
export interface ReplayHost {
  replayPut(key: Uint8Array, value: Uint8Array | undefined, mark: number): void
  replayDelete(lower: Uint8Array, upper: Uint8Array): void
  /** Instead of `replayPut`, where what is stored under the key cannot be read. */
  replayLost(key: Uint8Array): void
  /** Something of the log is missing. */
  replayBroken(): void
  replayRecord(record: Uint8Array, mark: number): void
  /** About as many bytes as `seal` puts. */
  readonly sealBytes: number
  /** Tables that changed go into the memtable that is about to be sealed. */
  seal(put: (key: Uint8Array, value: Uint8Array) => void): void
}

/**
 * What a node keeps of eventual namespaces: the tree `eventual` of its engine, and a log of its own in its journal (DESIGN section 4, "Order on one node"). Whatever
 * a turn puts goes into the memtable at once, so that the next merge sees it, and becomes one entry of the log at the end of the turn:
 *
 *     entry := (1 ‖ key ‖ value | 2 ‖ key | 3 ‖ lower ‖ upper | 4 ‖ record)*      each byte string with its length as a varint before it
 *
 * A memtable may so be flushed before its last entry is durable: what a crash then takes from the log, the tables have, and the log goes on behind the index that the
 * applied note beside them states. Both are as good, since nothing leaves before either is durable.
 *
 * Damage. Entries that are missing, or an applied note that cannot be read, are passed over: what is put again is then not all that was put (`isHurt`), and whoever holds this
 * store has to begin all slots again. The last epoch given out stands in the log's hard state, as its term, which every batch and every segment repeats.
 *
 * Invariants:
 * - the applied note of a memtable is the index of the last entry whose operations are in it, because sealing ends the entry first;
 * - the mark of an operation is the index of its entry.
 */
export class EventualStore implements NodeStore {
  durableMark: number
  private readonly storage: Storage
  private readonly entryBytes: number
  private readonly entry = new ByteWriter(64 * 1024)
  private host: ReplayHost | undefined
  /** Made with the first entry: a node without eventual data has none. */
  private group: JournalGroup | undefined
  private lastIndex: LogIndex
  /** The last that `endTurn` has returned. */
  private toldMark: number
  private readonly wantSeal: () => void
  /** Some of what was put may be lost, anywhere. */
  isHurt = false
  epoch: number
  private readonly applied: LogIndex
  private mendedThrough = -1

  /** `seal`: of everything that the node's storage holds. */
  constructor(
    storage: Storage,
    options: { readonly entryBytes: number; readonly seal: () => void },
  ) {
    this.storage = storage
    this.entryBytes = options.entryBytes
    this.wantSeal = options.seal
    const applied = this.readApplied()
    this.group = storage.journal.list().find(({ key }) => key.range === eventualLog.range)
    this.fitLog(applied)
    this.applied = applied
    this.lastIndex = Math.max(applied, this.group?.lastIndex ?? 0)
    this.epoch = this.readEpoch()
    this.durableMark = this.lastIndex
    this.toldMark = this.lastIndex
  }

  private readApplied(): LogIndex {
    try {
      const stored = this.storage.engine.get(appliedKey)
      return stored === undefined ? 0 : loadU64(stored, 0)
    } catch (error) {
      if (!(error instanceof StorageCorruption)) throw error
      this.isHurt = true
      return 0
    }
  }

  /** As with ranges the engine wins: a log that ends below what it holds begins anew there. */
  private fitLog(applied: LogIndex): void {
    const { group } = this
    if (group === undefined) {
      this.isHurt ||= applied > 0
      return
    }
    const isCut = group.firstIndex > applied + 1
    const hasHoles = group.firstMissing(Math.max(applied + 1, group.firstIndex)) !== undefined
    if (isCut || hasHoles || group.isUnsure) this.isHurt = true
    if (group.lastIndex < applied) group.resetTo(applied, term)
  }

  private readEpoch(): number {
    const known = this.group?.hardState.term ?? 0
    const isUnsure = this.group?.isUnsure ?? this.isHurt
    return isUnsure ? known + epochsLostMax : known
  }

  /** What may be lost is noted for good: from here on the log counts as whole. Before that, a crash would leave a log that looks so, and no note. */
  mended(): void {
    const { group } = this
    this.isHurt = false
    if (group?.isUnsure !== true) return
    // Nobody votes here, and nobody else has this log. With the doubt ends the reason to skip epochs: the one that was skipped to is durable with that.
    group.settle(this.epoch, { index: group.lastIndex, term })
    group.mended()
  }

  /** Puts again what the log holds beyond the engine. */
  replay(host: ReplayHost): void {
    this.host = host
    this.storage.beside = this
    const { group } = this
    if (this.isHurt) host.replayBroken()
    if (group === undefined) return
    const end = group.lastIndex + 1
    for (let index = Math.max(this.applied + 1, group.firstIndex); index < end; ) {
      const entries = group.entries(index, end, this.entryBytes)
      for (const { data } of entries) this.replayEntry(data, index++)
      if (entries.length > 0) continue
      this.isHurt = true
      host.replayBroken()
      index++
    }
  }

  private replayEntry(data: Uint8Array, mark: LogIndex): void {
    const { storage, host } = this
    const { engine } = storage
    const reader = new ByteReader(data)
    while (reader.remaining > 0) {
      const operation = reader.u8()
      const key = reader.raw(reader.varint())
      switch (operation) {
        case operations.put: {
          const value = reader.raw(reader.varint())
          this.tell(key, value, mark)
          engine.put(key, value)
          break
        }
        case operations.delete:
          this.tell(key, undefined, mark)
          engine.delete(key)
          break
        case operations.deleteRange: {
          const upper = reader.raw(reader.varint())
          host?.replayDelete(key, upper)
          engine.deleteRange(key, upper)
          break
        }
        default:
          host?.replayRecord(key, mark)
      }
    }
  }

  private tell(key: Uint8Array, value: Uint8Array | undefined, mark: LogIndex): void {
    try {
      this.host?.replayPut(key, value, mark)
    } catch (error) {
      if (!(error instanceof StorageCorruption)) throw error
      this.host?.replayLost(key)
    }
  }

  /** The same tables again, of a machine that begins in the place of another. */
  heldBy(host: ReplayHost): void {
    this.host = host
  }

  /** Entries were lost while what they hold is in memory still: it is to be flushed. */
  get wantsFlush(): boolean {
    const { group } = this
    if (group === undefined || group.missingCount === 0 || this.mendedThrough === this.lastIndex) {
      return false
    }
    this.mendedThrough = this.lastIndex
    return true
  }

  // ---- The port

  get(key: Uint8Array, skip = 0): Uint8Array | undefined {
    return this.storage.engine.get(key, undefined, skip)
  }

  put(key: Uint8Array, head: Uint8Array, tail: Uint8Array = emptyBytes): void {
    this.make(key.length + head.length + tail.length)
    const { entry } = this
    entry.u8(operations.put)
    this.bytes(key)
    entry.varint(head.length + tail.length)
    entry.raw(head)
    if (tail.length > 0) entry.raw(tail)
    this.storage.engine.putParts(key, head, tail)
    this.limit()
  }

  delete(key: Uint8Array): void {
    this.make(key.length)
    this.entry.u8(operations.delete)
    this.bytes(key)
    this.storage.engine.delete(key)
    this.limit()
  }

  deleteRange(lower: Uint8Array, upper: Uint8Array): void {
    this.make(lower.length + upper.length)
    this.entry.u8(operations.deleteRange)
    this.bytes(lower)
    this.bytes(upper)
    this.storage.engine.deleteRange(lower, upper)
    this.limit()
  }

  log(record: Uint8Array): void {
    this.entry.u8(operations.record)
    this.bytes(record)
    this.limit()
  }

  scan(
    lower: Uint8Array,
    upper: Uint8Array,
    visit: (key: Uint8Array, value: Uint8Array) => boolean,
  ): void {
    const iterator = this.storage.engine.iterator({ lower, upper })
    try {
      while (iterator.next()) if (!visit(iterator.key, iterator.value)) return
    } finally {
      iterator.close()
    }
  }

  get mark(): number {
    return this.entry.length > 0 ? this.lastIndex + 1 : this.lastIndex
  }

  get isFull(): boolean {
    const { engine } = this.storage
    return this.storage.isFull || !engine.canWrite(1)
  }

  // ---- Turns

  /** Makes room for an operation in the memtable: a full one is sealed, and with it the entry ends. */
  private make(bytes: number): void {
    if (this.storage.engine.needsSeal(bytes + 64)) this.wantSeal()
  }

  private bytes(bytes: Uint8Array): void {
    this.entry.varint(bytes.length)
    this.entry.raw(bytes)
  }

  private limit(): void {
    if (this.entry.length >= this.entryBytes) this.endEntry()
  }

  /** At the end of a turn: gives the journal what was put. Returns the mark that becomes durable with its next batch; 0: nothing was put. */
  endTurn(): number {
    this.endEntry()
    if (this.lastIndex === this.toldMark) return 0
    this.toldMark = this.lastIndex
    return this.lastIndex
  }

  private endEntry(): void {
    if (this.entry.length === 0) return
    if (this.group === undefined) {
      this.group = this.storage.journal.group(eventualLog)
      this.group.setHardState({ term, vote: 0, commit: 0 })
      if (this.lastIndex > 0) this.group.resetTo(this.lastIndex, term)
    }
    if (this.epoch > this.group.hardState.term) {
      this.group.setHardState({ term: this.epoch, vote: 0, commit: 0 })
    }
    this.lastIndex++
    this.group.append([{ index: this.lastIndex, term, kind, data: this.entry.take() }])
  }

  // ---- Sealing (storage.ts)

  get sealBytes(): number {
    return this.group === undefined ? 0 : 64 + (this.host?.sealBytes ?? 0)
  }

  /** The memtable is about to be sealed: it gets what makes it whole. Returns the index up to which the log is in it. */
  seal(): LogIndex {
    this.endEntry()
    if (this.group === undefined) return 0
    const { engine } = this.storage
    this.host?.seal((key, value) => engine.put(key, value))
    const note = new Uint8Array(8)
    storeU64(note, 0, this.lastIndex)
    engine.put(appliedKey, note)
    return this.lastIndex
  }

  flushed(index: LogIndex): void {
    const { group } = this
    if (group !== undefined && index >= group.firstIndex)
      group.release(Math.min(index, group.lastIndex))
  }
}
