import type { JournalWrite } from "../../src/journal/journal.ts"
import { utf8 } from "../../src/lib/bytes.ts"
import type { Prng } from "../../src/lib/prng.ts"
import { WriteBatch } from "../../src/lsm/batch.ts"
import { type LocalSettings, LocalStorage } from "../../src/server/localStorage.ts"
import { attemptStoreJob, type Lane, laneOf, type StoreJob } from "../../src/server/storeJobs.ts"
import type { SimulatedDisk } from "../sim/simulatedDisk.ts"

export const tinySettings: LocalSettings = {
  journal: { segmentBytes: 4096, tailCacheBytes: 0 },
  engine: { memtableBytes: 2048 },
  space: { reserveBytes: 0, lowFreeBytes: 0 },
  journalScrub: { bytesPerSecond: 0, sliceBytes: 1024 },
}

/** Drives a `LocalStorage` over a simulated disk, step by step, as the test says. */
export class LocalDriver {
  readonly disk: SimulatedDisk
  readonly storage: LocalStorage
  nowMs = 0
  private readonly lanes: Record<Lane, Array<StoreJob>> = { engine: [], journal: [] }
  private pending: JournalWrite | undefined

  constructor(disk: SimulatedDisk, settings: LocalSettings = tinySettings) {
    this.disk = disk
    this.storage = LocalStorage.open(disk, settings, 0)
  }

  /** Writes a batch; false when there is no room now. */
  write(batch: WriteBatch): boolean {
    const { storage } = this
    if (!storage.hasMemtableRoom(batch.sizeBytes)) return false
    if (!storage.journal.hasRoom(batch.sizeBytes) && !this.openSegment(batch)) return false
    const direct = storage.cut(batch.bytes())
    this.writeBytes(direct.path, direct.bytes.subarray(0, direct.lengthBytes), direct.offset)
    storage.apply(batch)
    return true
  }

  private openSegment(batch: WriteBatch): boolean {
    this.sync()
    const write = this.storage.openSegment(batch.sizeBytes)
    if (write === undefined) return false
    this.writeBytes(write.path, write.bytes, write.offset)
    this.pending = write
    this.sync()
    return true
  }

  private writeBytes(path: string, bytes: Uint8Array, offset: number): void {
    const file = this.disk.open(path)
    file.write(bytes, offset)
    file.close()
    this.path = path
  }
  private path = ""

  /** Syncs all that was written. */
  sync(): void {
    if (this.path === "") return
    const lsn = this.storage.journal.appendedLsn
    const file = this.disk.open(this.path)
    file.sync()
    file.close()
    this.storage.synced(lsn)
    if (this.pending !== undefined) this.storage.journal.durable(this.pending)
    this.pending = undefined
  }

  /** Hands out jobs, and writes what the journal has gathered. */
  pump(): void {
    this.nowMs += 50
    for (const job of this.storage.takeJobs(this.nowMs, this.nowMs))
      this.lanes[laneOf(job)].push(job)
    if (this.pending !== undefined) return
    const write = this.storage.journal.cut()
    if (write === undefined) return
    this.writeBytes(write.path, write.bytes, write.offset)
    this.pending = write
  }

  /** Carries out the oldest job of a lane. */
  runJob(lane: Lane): boolean {
    const job = this.lanes[lane].shift()
    if (job === undefined) return false
    this.storage.jobDone(job, attemptStoreJob(this.disk, job))
    return true
  }

  /** The thread of a lane ends: its job is abandoned where it is the engine's. */
  loseJob(lane: Lane): void {
    const [job] = this.lanes[lane]
    if (job?._tag !== "Engine") return
    this.lanes[lane].shift()
    const failure = { _tag: "Abandoned" } as const
    this.storage.jobDone(job, { _tag: "Failed", failure })
  }

  /** Does what there is to do until nothing is left, or for 10 s: on a full disk what finds no space is tried for ever. */
  settle(): void {
    const untilMs = this.nowMs + 10_000
    for (let idle = 0; idle < 20 && this.nowMs < untilMs; ) {
      this.pump()
      const ran = this.runJob("engine") || this.runJob("journal")
      if (this.pending !== undefined) this.sync()
      idle = ran ? 0 : idle + 1
    }
  }

  get(key: string): number | undefined {
    const value = this.storage.engine.get(keyOf(key))
    return value === undefined ? undefined : (value[0] as number) + (value[1] as number) * 256
  }
}

/** Callers' keys are of tree 2. */
export function keyOf(name: string): Uint8Array {
  const text = utf8(name)
  const key = new Uint8Array(1 + text.length)
  key[0] = 2
  key.set(text, 1)
  return key
}

/** A batch that says its own number: at `last`, and at some keys of a few. */
export function numbered(prng: Prng, number: number): WriteBatch {
  const batch = new WriteBatch()
  const value = new Uint8Array(prng.int(2, 120))
  value[0] = number
  value[1] = number >>> 8
  batch.put(keyOf("last"), value)
  for (let i = prng.int(0, 3); i > 0; i--) batch.put(keyOf(`k${prng.int(0, 20)}`), value)
  if (prng.chance(0.2)) batch.delete(keyOf(`k${prng.int(0, 20)}`))
  return batch
}
