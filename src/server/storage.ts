import { type Disk, StorageCorruption } from "../disk/disk.ts"
import { Journal } from "../journal/journal.ts"
import { isJournal } from "../journal/segments.ts"
import { assert } from "../lib/assert.ts"
import { Engine } from "../lsm/engine.ts"
import type { LogIndex, Lsn, RangeId } from "../types.ts"
import { RangeMachine } from "./apply.ts"
import {
  allLocalInterval,
  clientOfSessionKey,
  dataEnd,
  dataKey,
  isStateKey,
  localInterval,
  sessionKey,
  stateKey,
} from "./engineKeys.ts"
import { decodeRangeState, encodeRangeState, type RangeState } from "./rangeState.ts"
import type { SessionTable } from "./sessions.ts"
import type { StoreSettings } from "./settings.ts"
import { spillDirectory } from "./spill.ts"
import type { StoreJob, StoreJobResult } from "./storeJobs.ts"

/** A replica as sealing sees it. */
export interface Sealable {
  readonly range: RangeId
  readonly machine: RangeMachine
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

interface Seal {
  readonly generation: number
  readonly covered: ReadonlyArray<{ readonly replica: Sealable; readonly index: LogIndex }>
}

/**
 * Journal and engine as one (DESIGN section 3, "Journal and engine together"). Strong data has no log but the Raft entries in the
 * journal: the state key of a range is sealed in the same memtable as the data that it covers, so that whatever part of the data a crash leaves, its
 * state key tells exactly where to go on.
 *
 * Files are changed only by jobs (storeJobs.ts) and by the journal's own writes; the jobs are done in the order given out.
 *
 * Invariants:
 * - state keys, sessions and data of one memtable speak of the same applied index, because sealing writes the former and swaps the
 *   memtable in one synchronous step;
 * - one engine job is under way at a time, from its start to its manifest edit.
 */
export class Storage {
  readonly journal: Journal
  readonly engine: Engine
  private readonly settings: StoreSettings
  private readonly parts: StorageParts
  private readonly issued: Array<(result: StoreJobResult) => void> = []
  private jobs: Array<StoreJob> = []
  private engineBusy = false
  private seals: Array<Seal> = []
  private lsnAtSeal: Lsn
  private ingests: Array<() => void> = []

  private constructor(options: {
    journal: Journal
    engine: Engine
    settings: StoreSettings
    parts: StorageParts
  }) {
    this.journal = options.journal
    this.engine = options.engine
    this.settings = options.settings
    this.parts = options.parts
    this.lsnAtSeal = options.journal.appendedLsn
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
    const engine = (parts.Engine ?? Engine).open(disk, "engine", settings.engine)
    disk.makeDirectory(spillDirectory)
    for (const name of disk.list(spillDirectory)) disk.remove(`${spillDirectory}/${name}`)
    return new Storage({ journal, engine, settings, parts })
  }

  /** Closes all files. What is not flushed is in the journal. No job may be running. */
  close(): void {
    this.engine.close()
    this.journal.close()
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
        } else if (isStateKey(iterator.key)) {
          machines.push(this.newMachine(decodeRangeState(iterator.value)))
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
    if (this.journal.appendedLsn - this.lsnAtSeal >= this.settings.journalBytesPerSeal) return true
    let bytes = this.engine.memtableUsedBytes
    for (const replica of replicas) if (replica.dirty) bytes += sealBytes(replica)
    return bytes >= this.settings.engine.memtableBytes
  }

  /** Writes state keys and sessions of what changed, and seals the memtable. Requires `engine.canSeal`. */
  seal(replicas: Iterable<Sealable>): number {
    const covered: Array<{ replica: Sealable; index: LogIndex }> = []
    for (const replica of replicas) {
      if (!replica.dirty) continue
      replica.dirty = false
      this.putState(replica.machine)
      covered.push({ replica, index: replica.machine.appliedIndex })
    }
    const generation = this.engine.seal()
    this.seals.push({ generation, covered })
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

  /** Replaces all that the engine holds of a range by a received snapshot. Requires the barrier: see SnapshotExchange. */
  ingest(
    machine: RangeMachine,
    spill: { readonly path: string; readonly checksum: number },
    done: () => void,
  ): void {
    const { start, end } = machine.descriptor
    this.ingests.push(() => {
      const job = this.engine.replaceInterval({
        intervals: [
          localInterval(machine.descriptor.id),
          { lower: dataKey(start), upper: dataEnd(end) },
        ],
        spillPath: spill.path,
        spillChecksum: spill.checksum,
      })
      this.runEngineJob(job, () => {
        this.issue({ _tag: "Remove", paths: [spill.path] })
        done()
      })
    })
  }

  /** Gives out a job; `done` is called when it is carried out. */
  issue(job: StoreJob, done: (result: StoreJobResult) => void = () => {}): void {
    this.jobs.push(job)
    this.issued.push(done)
  }

  /** A job given out earlier, the oldest that is not done yet, was carried out. */
  jobDone(result: StoreJobResult): void {
    const done = this.issued.shift()
    assert(done !== undefined, "a job that is done was given out")
    done(result)
  }

  /** Starts what work on files is due; returns the jobs to carry out, in order. */
  takeJobs(): ReadonlyArray<StoreJob> {
    for (const job of this.journal.segmentsToPrepare()) {
      this.issue({ _tag: "Segment", job }, () => this.journal.segmentReady(job))
    }
    const obsolete = this.journal.segmentsToDelete()
    if (obsolete.length > 0) this.issue({ _tag: "RemoveSegments", paths: obsolete })
    if (!this.engineBusy) this.startEngineJob()
    if (this.jobs.length === 0) return []
    const jobs = this.jobs
    this.jobs = []
    return jobs
  }

  private startEngineJob(): void {
    const ingest = this.ingests.shift()
    if (ingest !== undefined) return ingest()
    const job = this.engine.nextJob()
    if (job !== undefined) this.runEngineJob(job)
  }

  private runEngineJob(job: Extract<StoreJob, { _tag: "Engine" }>["job"], done?: () => void): void {
    this.engineBusy = true
    this.issue({ _tag: "Engine", job }, (result) => {
      assert(result._tag === "Engine", "an engine job has an engine result")
      const write = this.engine.complete(job, result.result)
      this.issue({ _tag: "Manifest", write }, () => {
        this.engine.installed(write)
        this.engineBusy = false
        this.noteFlushed()
        const paths = this.engine.obsoleteFiles()
        if (paths.length > 0) this.issue({ _tag: "Remove", paths })
        done?.()
      })
    })
  }

  private noteFlushed(): void {
    while (this.seals.length > 0) {
      const [seal] = this.seals as [Seal]
      if (seal.generation > this.engine.flushedThrough) return
      this.seals.shift()
      for (const { replica, index } of seal.covered) {
        if (index > replica.flushedIndex) replica.flushedIndex = index
      }
    }
  }
}

/** An upper estimate of what sealing a replica writes. */
function sealBytes(replica: Sealable): number {
  return 512 + replica.machine.sessions.dirtyBytes
}
