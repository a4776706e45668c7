import { closeSync, fdatasync, fdatasyncSync, openSync, writeSync } from "node:fs"
import { DiskError } from "../disk/disk.ts"
import type { DirectBatch } from "../journal/direct.ts"
import type { Journal, JournalWrite } from "../journal/journal.ts"
import type { Lsn } from "../types.ts"

/** Unsynced bytes are synced in the background from here on, so that no sync that somebody waits for is long. */
const syncEveryBytes = 4 * 1024 * 1024

/** Batches whose callers wait for a sync are written by one call, up to so many bytes. */
const gatherBytes = 64 * 1024

interface SyncWaiter {
  readonly lsn: Lsn
  readonly resolve: () => void
  readonly reject: (error: Error) => void
}

/**
 * The file of the journal that is being written, for a store whose batches are written at once and synced when somebody waits. Syncs run in a thread of the
 * runtime, one at a time, for all that was written when they began; or inline. A failed write or sync is final: it is never tried again.
 */
export class JournalFile {
  private readonly journal: Journal
  private readonly absolutePath: (path: string) => string
  private readonly onSynced: () => void
  private readonly onFailure: (error: Error) => void
  private path = ""
  private descriptor = -1
  /**
   * For syncs in this thread. The kernel tells each descriptor of a failed write-back once: over the same one, a sync in the background that has failed, and
   * whose callback has not run yet, would hide the failure from the next.
   */
  private inlineDescriptor = -1
  /** A batch of records that is written but not synced. */
  private pending: JournalWrite | undefined
  /** Batches that wait to be written, end to end, and where in the file they go. */
  private readonly gathered = new Uint8Array(gatherBytes)
  private gatheredBytes = 0
  private gatheredOffset = 0
  private unsyncedBytes = 0
  private syncing = false
  private wanted = false
  private failure: Error | undefined
  private closed = false
  private readonly waiters: Array<SyncWaiter> = []
  private readonly closeAfterSync: Array<number> = []
  private latenciesMs: Array<number> = []

  constructor(options: {
    readonly journal: Journal
    readonly absolutePath: (path: string) => string
    /** More is durable than was. */
    readonly onSynced: () => void
    /** Nothing more can be written. Called once. */
    readonly onFailure: (error: Error) => void
  }) {
    this.journal = options.journal
    this.absolutePath = options.absolutePath
    this.onSynced = options.onSynced
    this.onFailure = options.onFailure
  }

  /** Whether records that `writeRecords` wrote are not durable yet. */
  get hasPending(): boolean {
    return this.pending !== undefined
  }

  /** How long the syncs in the background took since the last call. */
  takeLatenciesMs(): Array<number> {
    const taken = this.latenciesMs
    this.latenciesMs = []
    return taken
  }

  write(direct: DirectBatch): void {
    this.writeGathered()
    this.writeAll(direct.path, direct.bytes, direct.lengthBytes, direct.offset)
    this.unsyncedBytes += direct.lengthBytes
    if (this.unsyncedBytes >= syncEveryBytes) this.syncSoon()
  }

  /** Writes the batch before the next sync begins, or with the next `write`: for callers that wait for the sync. */
  gather(direct: DirectBatch): void {
    const { bytes, lengthBytes, offset, path } = direct
    const isNext = offset === this.gatheredOffset + this.gatheredBytes && path === this.path
    if (!isNext || this.gatheredBytes + lengthBytes > gatherBytes) this.writeGathered()
    if (path !== this.path || lengthBytes > gatherBytes) return this.write(direct)
    if (this.gatheredBytes === 0) this.gatheredOffset = offset
    const { gathered, gatheredBytes } = this
    for (let i = 0; i < lengthBytes; i++) gathered[gatheredBytes + i] = bytes[i] as number
    this.gatheredBytes = gatheredBytes + lengthBytes
  }

  private writeGathered(): void {
    const { gatheredBytes } = this
    if (gatheredBytes === 0) return
    this.gatheredBytes = 0
    this.writeAll(this.path, this.gathered, gatheredBytes, this.gatheredOffset)
    this.unsyncedBytes += gatheredBytes
  }

  /** What the journal has cut besides direct batches; it is told when that is durable. */
  writeRecords(write: JournalWrite): void {
    this.writeGathered()
    this.writeAll(write.path, write.bytes, write.bytes.length, write.offset)
    if (!write.sync) return this.journal.durable(write)
    this.pending = write
    this.syncSoon()
  }

  /** A write may be short; the rest follows. */
  private writeAll(path: string, bytes: Uint8Array, lengthBytes: number, offset: number): void {
    try {
      if (path !== this.path) this.open(path)
      let done = 0
      while (done < lengthBytes) {
        const left = lengthBytes - done
        const count = writeSync(this.descriptor, bytes, done, left, offset + done)
        // It would be so for ever.
        if (count === 0) throw new Error("the file system takes no bytes")
        done += count
      }
    } catch (cause) {
      // The journal's memory is ahead of its file now.
      throw this.failed(cause)
    }
  }

  private open(path: string): void {
    this.closeDescriptor()
    this.descriptor = openSync(this.absolutePath(path), "r+")
    this.inlineDescriptor = openSync(this.absolutePath(path), "r+")
    this.path = path
  }

  /** A descriptor that a sync in another thread still uses is closed when that is done. */
  private closeDescriptor(): void {
    if (this.descriptor < 0) return
    if (this.syncing) this.closeAfterSync.push(this.descriptor)
    else closeSync(this.descriptor)
    this.descriptor = -1
    if (this.inlineDescriptor >= 0) closeSync(this.inlineDescriptor)
    this.inlineDescriptor = -1
  }

  /** Syncs all that was written, in this thread. */
  syncNow(): void {
    this.writeGathered()
    const lsn = this.journal.appendedLsn
    if (lsn === this.journal.durableLsn || this.descriptor < 0) return
    this.unsyncedBytes = 0
    try {
      fdatasyncSync(this.inlineDescriptor)
    } catch (cause) {
      throw this.failed(cause)
    }
    this.synced(lsn, this.pending)
  }

  /** Resolves when all that was written so far is durable. All that wait share one sync. */
  durable(): Promise<void> {
    const lsn = this.journal.appendedLsn
    const durable = new Promise<void>((resolve, reject) => {
      this.waiters.push({ lsn, resolve, reject })
    })
    this.syncSoon()
    return durable
  }

  /** One sync in the background, begun at the end of this round of the event loop, for all that was written until then. */
  syncSoon(): void {
    if (this.wanted) return
    this.wanted = true
    if (!this.syncing) setImmediate(this.beginSync)
  }

  private readonly beginSync = (): void => {
    if (this.syncing || this.failure !== undefined || this.closed) return
    this.wanted = false
    if (this.descriptor < 0) return
    try {
      this.writeGathered()
    } catch {
      // Whoever waits has been told.
      return
    }
    this.syncing = true
    this.unsyncedBytes = 0
    const lsn = this.journal.appendedLsn
    const write = this.pending
    const beganMs = performance.now()
    fdatasync(this.descriptor, (error) => {
      this.syncing = false
      for (const descriptor of this.closeAfterSync.splice(0)) closeSync(descriptor)
      if (this.failure !== undefined) return
      if (error !== null) return void this.failed(error)
      this.latenciesMs.push(performance.now() - beganMs)
      this.synced(lsn, write)
      if (this.wanted) setImmediate(this.beginSync)
    })
  }

  private synced(lsn: Lsn, write: JournalWrite | undefined): void {
    const { journal, waiters } = this
    journal.synced(lsn)
    if (write !== undefined && write === this.pending) {
      this.pending = undefined
      journal.durable(write)
    }
    let done = 0
    while (done < waiters.length && (waiters[done] as SyncWaiter).lsn <= lsn) done++
    if (done > 0) for (const waiter of waiters.splice(0, done)) waiter.resolve()
    if (waiters.length > 0) this.syncSoon()
    this.onSynced()
  }

  private failed(cause: unknown): Error {
    if (this.failure !== undefined) return this.failure
    const error = new DiskError({ reason: "io", path: this.path, cause })
    this.stop(error)
    this.onFailure(error)
    return error
  }

  /** The store can't go on: whoever waits for a sync is told so. */
  stop(error: Error): void {
    this.failure ??= error
    for (const waiter of this.waiters.splice(0)) waiter.reject(error)
  }

  close(): void {
    if (this.closed) return
    this.closed = true
    this.closeDescriptor()
    for (const waiter of this.waiters.splice(0)) waiter.reject(new Error("closed"))
  }
}
