import { type Disk, StorageCorruption } from "../disk/disk.ts"
import { Journal } from "../journal/journal.ts"
import { isJournal } from "../journal/segments.ts"
import { assert } from "../lib/assert.ts"
import { ByteWriter } from "../lib/byteWriter.ts"
import { crc32 } from "../lib/checksum.ts"
import { Engine } from "../lsm/engine.ts"
import type {
  LogIndex,
  Lsn,
  MonotonicMs,
  RangeDescriptor,
  RangeId,
  Version,
  WallMs,
} from "../types.ts"
import { RangeMachine } from "./apply.ts"
import { dataIntervals } from "./dataIntervals.ts"
import { expiryRules } from "./engineFilters.ts"
import {
  allLocalInterval,
  clientOfSessionKey,
  eventualTree,
  isStateKey,
  isTombstoneKey,
  localInterval,
  localIntervalWithTombstone,
  rangeOfLocalKey,
  sessionKey,
  stateKey,
  storeTrees,
  tombstoneKey,
} from "./engineKeys.ts"
import { FileJobs } from "./fileJobs.ts"
import type { Absorbed } from "./merge/state.ts"
import { decodeRangeState, encodeRangeState, type RangeState } from "./rangeState.ts"
import type { SessionTable } from "./sessions.ts"
import type { StoreSettings } from "./settings.ts"
import { spillDirectory, writePair } from "./spill.ts"
import type { StoreJob, StoreJobResult } from "./storeJobs.ts"
import { decodeTombstone, encodeTombstone, type Tombstone, tombstoneOf } from "./tombstone.ts"
import { fullnessOf, WriteRate } from "./writeRate.ts"

/** A replica as sealing sees it. */
export interface Sealable {
  readonly range: RangeId
  readonly machine: RangeMachine
  /** It has no state yet, and so no state key. */
  readonly isEmpty: boolean
  dirty: boolean
  flushedIndex: LogIndex
}

/** Classes that a simulator may replace. */
export interface StorageParts {
  readonly Journal?: typeof Journal
  readonly Engine?: typeof Engine
  readonly RangeMachine?: typeof RangeMachine
  readonly SessionTable?: typeof SessionTable
}

/** What goes into every memtable before it is sealed, beside the ranges' state. */
export interface SealedBeside {
  /** About as many bytes as `seal` puts. */
  readonly sealBytes: number
  /** Puts it; returns how far its log is in the memtable. */
  seal(): LogIndex
  flushed(index: LogIndex): void
}

interface Seal {
  readonly besideIndex: LogIndex
  readonly generation: number
  readonly bytes: number
  readonly covered: ReadonlyArray<Covered>
}

/** A replica as it was when its state was sealed. */
interface Covered {
  readonly replica: Sealable
  readonly index: LogIndex
  readonly machine: RangeMachine
  readonly time: Version
}

/**
 * Journal and engine as one (DESIGN section 3, "Journal and engine together"). Strong data has no log but the Raft entries in the
 * journal: the state key of a range is sealed in the same memtable as the data that it covers, so that whatever part of the data a crash leaves, its
 * state key tells exactly where to go on.
 *
 * Files are changed only by jobs (storeJobs.ts) and by the journal's own writes; the jobs of a lane are done in the order given out.
 *
 * A full disk stops nothing but puts (diskSpace.ts): segments are prepared ahead, so that the journal's writes never meet it, and where none is ready they
 * wait; jobs are tried again.
 *
 * Invariants:
 * - state keys, sessions and data of one memtable speak of the same applied index, because sealing writes the former and swaps the
 *   memtable in one synchronous step;
 * - a split changes two state keys in one turn: parent and child are dirty together, so one seal writes both;
 * - one engine job is under way at a time, from its start to its manifest edit (engineLane.ts).
 */
export class Storage {
  readonly journal: Journal
  readonly engine: Engine
  /** The eventual half (eventualStore.ts). */
  beside: SealedBeside | undefined
  /** Of every range of which this node once removed a replica. */
  readonly tombstones = new Map<RangeId, Tombstone>()
  private readonly settings: StoreSettings
  private readonly parts: StorageParts
  private readonly files: FileJobs
  private readonly damage: DamageReports
  private readonly live: { machines: () => Iterable<RangeMachine> }
  private readonly rate = new WriteRate(drainAtFirst)
  private nowMs: MonotonicMs = 0
  private seals: Array<Seal> = []
  /** Who waits for everything that was put so far to be in tables; `generation`: with which that is, once it is sealed. */
  private flushWaits: Array<{ generation: number | undefined; readonly done: () => void }> = []
  /** The memtable is to be sealed whatever it holds. */
  flushWanted = false
  /** Of replicas that sleep: what they add to the next seal. */
  private sleepingBytes = 0
  private lsnAtSeal: Lsn

  private constructor(options: {
    journal: Journal
    engine: Engine
    settings: StoreSettings
    parts: StorageParts
    disk: Disk
    damage: DamageReports
    live: { machines: () => Iterable<RangeMachine> }
  }) {
    this.damage = options.damage
    this.live = options.live
    this.journal = options.journal
    this.engine = options.engine
    this.settings = options.settings
    this.parts = options.parts
    this.lsnAtSeal = options.journal.appendedLsn
    this.files = new FileJobs({ ...options, installed: () => this.noteFlushed() })
  }

  /** Recovers both. Throws `StorageCorruption` or `DiskError`. */
  static open(disk: Disk, settings: StoreSettings, parts: StorageParts = {}): Storage {
    // Looked at before anything is made. The journal comes first, so that no crash leaves an engine without one.
    if (disk.exists("engine/CURRENT") && !isJournal(disk, "journal")) {
      // Without its journal a voter has forgotten its votes: it must not come back as its former self.
      throw new StorageCorruption({
        path: "journal",
        offset: 0,
        expected: "the journal of the engine beside it",
        actual: "no journal",
      })
    }
    const { journal } = (parts.Journal ?? Journal).recover(disk, "journal", settings.journal)
    const damage = new DamageReports()
    const live: { machines: () => Iterable<RangeMachine> } = { machines: () => [] }
    const engine = (parts.Engine ?? Engine).open(disk, "engine", {
      ...settings.engine,
      trees: storeTrees,
      expendable: [eventualTree],
      filters: () => expiryRules(live.machines()),
      onCorruption: ({ message }) => damage.add(message),
    })
    disk.makeDirectory(spillDirectory)
    for (const name of disk.list(spillDirectory)) disk.remove(`${spillDirectory}/${name}`)
    return new Storage({ journal, engine, settings, parts, disk, damage, live })
  }

  /** Closes all files. What is not flushed is in the journal. No job may be running. */
  close(): void {
    this.engine.close()
    this.journal.close()
  }

  /** From now on compactions drop what has expired in these ranges: those that live on this node. */
  expireIn(machines: () => Iterable<RangeMachine>): void {
    this.live.machines = machines
  }

  /** Every range whose state key is in the engine, with its sessions. */
  loadMachines(): ReadonlyArray<RangeMachine> {
    return this.load(allLocalInterval())
  }

  /** One range, as an installed snapshot left it. */
  loadMachine(range: RangeId): RangeMachine {
    const [machine] = this.load(localInterval(range))
    assert(machine !== undefined, () => `range ${range} has a state key`)
    return machine
  }

  /** A range that begins here. */
  newMachine(state: RangeState): RangeMachine {
    const { SessionTable } = this.parts
    return new (this.parts.RangeMachine ?? RangeMachine)({
      state,
      engine: this.engine,
      limits: this.settings.sessions,
      ...(SessionTable === undefined ? {} : { sessions: SessionTable }),
    })
  }

  private load(interval: { lower: Uint8Array; upper: Uint8Array }): ReadonlyArray<RangeMachine> {
    const machines: Array<RangeMachine> = []
    const iterator = this.engine.iterator(interval)
    try {
      while (iterator.next()) {
        const clientId = clientOfSessionKey(iterator.key)
        if (clientId !== undefined) {
          // A range's state key sorts before its sessions.
          machines[machines.length - 1]?.sessions.restore(clientId, iterator.value)
        } else if (isTombstoneKey(iterator.key)) {
          this.tombstones.set(rangeOfLocalKey(iterator.key), decodeTombstone(iterator.value))
        } else if (isStateKey(iterator.key)) {
          const machine = this.newMachine(decodeRangeState(iterator.value))
          machine.flushedTime = machine.rangeTime
          machines.push(machine)
        }
      }
    } finally {
      iterator.close()
    }
    return machines
  }

  /** True when the active memtable has had its fill, or pins too much of the journal. */
  wantsSeal(replicas: Iterable<Sealable>): boolean {
    if (!this.engine.canSeal) return false
    if (this.files.takeSealWish() || this.flushWanted) return true
    if (this.journal.appendedLsn - this.lsnAtSeal >= this.settings.journalBytesPerSeal) return true
    let bytes = this.engine.memtableUsedBytes
    bytes += this.sleepingBytes + (this.beside?.sealBytes ?? 0)
    for (const replica of replicas) if (replica.dirty) bytes += sealBytes(replica)
    return bytes >= this.settings.engine.memtableBytes
  }

  /** The replica does not change from here on until it `wakes`: what it adds to a seal need not be reckoned in every turn. */
  sleeps(replica: Sealable): void {
    if (replica.dirty) this.sleepingBytes += sealBytes(replica)
  }

  wakes(replica: Sealable): void {
    if (replica.dirty) this.sleepingBytes -= sealBytes(replica)
  }

  /** Writes state keys and sessions of what changed, and seals the memtable. Requires `engine.canSeal`. */
  seal(replicas: Iterable<Sealable>): number {
    const covered: Array<Covered> = []
    this.sleepingBytes = 0
    for (const replica of replicas) {
      if (!replica.dirty || replica.isEmpty) continue
      replica.dirty = false
      this.putState(replica.machine)
      const { machine } = replica
      covered.push({ replica, index: machine.appliedIndex, machine, time: machine.rangeTime })
    }
    const besideIndex = this.beside?.seal() ?? 0
    const bytes = this.engine.memtableUsedBytes
    this.flushWanted = false
    const generation = this.engine.seal()
    this.seals.push({ generation, bytes, covered, besideIndex })
    for (const wait of this.flushWaits) wait.generation ??= generation
    this.lsnAtSeal = this.journal.appendedLsn
    return generation
  }

  private putState(machine: RangeMachine): void {
    const range = machine.descriptor.id
    for (const { clientId, record } of machine.sessions.takeDirty()) {
      if (record === undefined) this.engine.delete(sessionKey(range, clientId))
      else this.engine.put(sessionKey(range, clientId), record)
    }
    this.engine.put(stateKey(range), encodeRangeState(machine.state()))
  }

  /**
   * Replaces all that the engine holds of a range by a received snapshot. `held`: the interval of the state that it replaces, which may reach further, if
   * there was one. `absorbed`: ranges that the snapshot's range has taken in, and of which this node holds replicas; they go in the same edit. Requires the barrier:
   * see SnapshotExchange.
   */
  ingest(
    machine: RangeMachine,
    spill: { readonly path: string; readonly checksum: number },
    options: {
      readonly held: RangeDescriptor | undefined
      readonly absorbed: ReadonlyArray<RangeDescriptor>
      readonly done: () => void
    },
  ): void {
    const { descriptor } = machine
    const { held, absorbed } = options
    const ids = [descriptor, ...absorbed].map(({ id }) => id)
    const intervals = [
      ...ids.sort((left, right) => left - right).map(localInterval),
      ...dataIntervals([descriptor, ...(held === undefined ? [] : [held]), ...absorbed]),
    ]
    const { path: spillPath, checksum: spillChecksum } = spill
    const make = () => this.engine.replaceInterval({ intervals, spillPath, spillChecksum })
    this.files.want(make, () => {
      this.issue({ _tag: "Remove", paths: [spillPath] })
      options.done()
    })
  }

  /**
   * Hides all that the engine holds of a replica and leaves its tombstone, in one edit. `held`: the interval of its state, if it has one. Requires the
   * barrier: all that was written of the range is flushed.
   */
  bury(
    range: RangeId,
    tombstone: Tombstone,
    options: { readonly held: RangeDescriptor | undefined; readonly done: () => void },
  ): void {
    const writer = new ByteWriter(256)
    writePair(writer, tombstoneKey(range), encodeTombstone(tombstone))
    const bytes = writer.take()
    const spillPath = `${spillDirectory}/${range}-${tombstone.replica}.tombstone`
    const spillChecksum = crc32(bytes)
    const { held } = options
    const data = held === undefined ? [] : dataIntervals([held])
    const intervals = [localIntervalWithTombstone(range), ...data]
    const make = () => this.engine.replaceInterval({ intervals, spillPath, spillChecksum })
    const write = () =>
      this.issue({ _tag: "Spill", path: spillPath, offset: 0, bytes }, (result) => {
        // A full disk: once more, when the jobs given out before have had their turn.
        if (result._tag === "Failed") return write()
        this.files.want(make, () => {
          this.issue({ _tag: "Remove", paths: [spillPath] })
          this.tombstones.set(range, tombstone)
          options.done()
        })
      })
    write()
  }

  /**
   * A range was merged into another one of this node, whose state is about to be sealed with this: what the engine holds of it but its data goes, and its tombstone
   * stays. `flushed` is called once that is in tables; until then a crash brings the range back, and its log is needed.
   */
  absorb(absorbed: Absorbed, flushed: () => void): void {
    const { id } = absorbed.source
    const { lower, upper } = localInterval(id)
    this.engine.deleteRange(lower, upper)
    this.leaveTombstone(id, tombstoneOf(absorbed))
    this.flushWaits.push({ generation: undefined, done: flushed })
  }

  /** Puts it into the memtable, beside the state that makes it true. */
  leaveTombstone(range: RangeId, tombstone: Tombstone): void {
    this.engine.put(tombstoneKey(range), encodeTombstone(tombstone))
    this.tombstones.set(range, tombstone)
  }

  /** Gives out a job; `done` is called when it is carried out. */
  issue(job: StoreJob, done?: (result: StoreJobResult) => void): void {
    this.files.issue(job, done)
  }

  /** A job given out earlier was carried out, or failed in a way that does not stop the node. */
  jobDone(job: StoreJob, result: StoreJobResult): void {
    this.files.jobDone(job, result)
  }

  /** Notes something about damage that the operator is told once. */
  note(message: string): void {
    this.damage.add(message)
  }

  /** Notes damage to stored bytes, each place once. */
  report(error: StorageCorruption): void {
    this.damage.add(error.message)
  }

  /** What was noted since the last call. */
  takeReports(): ReadonlyArray<string> {
    for (const { path, offset, expected, actual } of this.files.takeFindings()) {
      this.report(new StorageCorruption({ path, offset, expected, actual }))
      this.journal.damagedAt(path, offset)
    }
    for (const error of this.journal.takeDamages()) this.report(error)
    return this.damage.take()
  }

  /** How full the stages are that a write goes through, from 0 to 1, where writes must stop. */
  get fullness(): number {
    const { engine } = this.settings
    return fullnessOf({
      sealed: this.seals.length,
      activeBytes: this.engine.memtableUsedBytes,
      memtableBytes: engine.memtableBytes,
      memtables: 1 + (engine.maxSealedMemtables ?? 3),
      pressure: this.engine.pressure.state,
    })
  }

  /** Milliseconds for which nothing more should be proposed after so many bytes. */
  delayMs(nowMs: MonotonicMs, bytes: number): number {
    return this.rate.delayMs(nowMs, bytes, this.fullness)
  }

  /** Whether puts are refused because the disk is full. */
  get isFull(): boolean {
    return this.files.isFull
  }

  /** Starts what work on files is due; returns the jobs to carry out, in order in each lane. */
  takeJobs(nowMs: MonotonicMs, wallMs: WallMs): ReadonlyArray<StoreJob> {
    this.nowMs = nowMs
    return this.files.takeJobs(nowMs, wallMs)
  }

  /** Calls `done` when all that was put by now is in tables. */
  whenFlushed(done: () => void): void {
    this.flushWaits.push({ generation: undefined, done })
    this.flushWanted = true
  }

  /** Lets go of damaged tables of the engine. */
  letGo(paths: ReadonlyArray<string>, done: () => void): void {
    this.files.want(() => this.engine.letGoJob(paths), done)
  }

  private noteFlushed(): void {
    this.releaseFlushed()
    const { flushedThrough } = this.engine
    const isReady = ({ generation = Number.POSITIVE_INFINITY }) => generation <= flushedThrough
    const ready = this.flushWaits.filter(isReady)
    if (ready.length === 0) return
    this.flushWaits = this.flushWaits.filter((wait) => !isReady(wait))
    for (const { done } of ready) done()
  }

  private releaseFlushed(): void {
    while (this.seals.length > 0) {
      const [seal] = this.seals as [Seal]
      if (seal.generation > this.engine.flushedThrough) return
      this.seals.shift()
      this.rate.flushed(this.nowMs, seal.bytes, this.seals.length > 0)
      this.beside?.flushed(seal.besideIndex)
      for (const { replica, index, machine, time } of seal.covered) {
        if (index > replica.flushedIndex) replica.flushedIndex = index
        machine.flushed(index, time)
      }
    }
  }
}

/** Bytes a second that flushes are taken to make room for, until they were seen to. */
const drainAtFirst = 32 * 1024 * 1024

/** Lines about damage for the operator, each given out once. */
class DamageReports {
  private readonly known = new Set<string>()
  private fresh: Array<string> = []

  add(message: string): void {
    if (this.known.has(message)) return
    this.known.add(message)
    this.fresh.push(message)
  }

  take(): ReadonlyArray<string> {
    const { fresh } = this
    if (fresh.length > 0) this.fresh = []
    return fresh
  }
}

/** An upper estimate of what sealing a replica writes. */
function sealBytes(replica: Sealable): number {
  return 512 + replica.machine.sessions.dirtyBytes
}
