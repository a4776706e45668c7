import type { JournalWrite } from "../../src/journal/journal.ts"
import { assert } from "../../src/lib/assert.ts"
import { compareBytes, concatBytes, toHex } from "../../src/lib/bytes.ts"
import { Prng } from "../../src/lib/prng.ts"
import { WriteBatch } from "../../src/lsm/batch.ts"
import { type LocalSettings, LocalStorage } from "../../src/server/localStorage.ts"
import { runStoreJob } from "../../src/server/storeJobs.ts"
import { smallOptions } from "../journal/driver.ts"
import type { SimulatedDisk } from "../sim/simulatedDisk.ts"
import { dies, fixedLosses, lose, RecordedDisk } from "./crashSweepDisk.ts"
import { apply, sweptOptions } from "./crashSweepWorkload.ts"
import { contentOf, randomValue } from "./harness.ts"
import { SortedModel, showPair } from "./metamorphicModel.ts"
import { randomTreeKey, treeIds, type Write } from "./metamorphicTrace.ts"

const settings: LocalSettings = {
  journal: smallOptions,
  engine: sweptOptions,
  space: { reserveBytes: 0, lowFreeBytes: 0 },
  journalScrub: { bytesPerSecond: 0, sliceBytes: 1000 },
}

export interface StoreSweepResult {
  readonly points: number
  readonly opens: number
  readonly crashedOpens: number
}

/**
 * Journal and engine as one store, crashed at every operation that it makes on the disk: what it then holds is what some number of its batches
 * left, in their order and each whole; and that number is at least that of the batches whose write was durable when the crash struck.
 */
export function runStoreCrashSweep(options: {
  readonly seed: number
  readonly steps: number
  readonly randomLosses: number
}): StoreSweepResult {
  const sweep = new StoreSweep(options)
  sweep.run()
  return sweep
}

/** What the store holds after so many batches, from the last one known to be durable on. */
class Log {
  durable = 0
  private first = 0
  private readonly models: Array<SortedModel> = [new SortedModel()]

  get last(): SortedModel {
    return this.models[this.models.length - 1]
  }

  get count(): number {
    return this.first + this.models.length - 1
  }

  push(model: SortedModel): void {
    this.models.push(model)
  }

  at(index: number): SortedModel | undefined {
    return this.models[index - this.first]
  }

  /** Nothing before batch `index` is asked for again. */
  madeDurable(index: number): void {
    this.durable = index
    this.models.splice(0, index - this.first)
    this.first = index
  }

  /** The state as of batch `index`, all of it durable. */
  from(index: number): Log {
    const log = new Log()
    log.durable = index
    log.first = index
    log.models[0] = this.at(index) as SortedModel
    return log
  }
}

class StoreWorkload {
  private readonly disk: SimulatedDisk
  private readonly prng: Prng
  private storage: LocalStorage
  private nowMs = 0
  readonly log: Log

  constructor(disk: SimulatedDisk, prng: Prng, log: Log) {
    this.disk = disk
    this.prng = prng
    this.log = log
    this.storage = LocalStorage.open(disk, settings, 0)
  }

  step(): void {
    this.nowMs += 50
    const draw = this.prng.int(0, 99)
    if (draw < 70) this.write()
    else if (draw < 82) this.sync()
    else if (draw < 95) this.pump()
    else if (draw < 97) this.storage.seal()
    else this.reopen()
  }

  private write(): void {
    const { prng, storage, log } = this
    const batch = new WriteBatch()
    const writes: Array<Write> = []
    for (let left = prng.int(1, 5); left > 0; left--) {
      const key = randomTreeKey(prng, prng.pick(treeIds))
      const draw = prng.int(0, 9)
      if (draw < 7) writes.push({ _tag: "Put", key, value: randomValue(prng) })
      else if (draw < 9) writes.push({ _tag: "Delete", key })
      else {
        const upper = concatBytes(key, new Uint8Array([prng.int(0, 255)]))
        if (compareBytes(key, upper) < 0) writes.push({ _tag: "DeleteRange", lower: key, upper })
      }
    }
    for (const write of writes) {
      if (write._tag === "Put") batch.put(write.key, write.value)
      else if (write._tag === "Delete") batch.delete(write.key)
      else batch.deleteRange(write.lower, write.upper)
    }
    const { sizeBytes } = batch
    for (let tries = 0; !storage.hasMemtableRoom(sizeBytes); tries++) {
      assert(tries < 100, "jobs make room for a writer")
      this.pump()
    }
    for (let tries = 0; !storage.journal.hasRoom(sizeBytes); tries++) {
      assert(tries < 100, "the journal goes on to a next segment")
      this.sync()
      const opened = storage.openSegment(sizeBytes)
      if (opened === undefined) this.pump()
      else this.writeRecords(opened)
    }
    const direct = storage.cut(batch.bytes())
    const model = log.last.clone()
    for (const write of writes) apply(model, write)
    log.push(model)
    assert(storage.appliedIndex === log.count, "batches are counted by the journal")
    const file = this.disk.open(direct.path)
    file.write(direct.bytes.subarray(0, direct.lengthBytes), direct.offset)
    file.close()
    this.path = direct.path
    storage.apply(batch)
  }

  private path: string | undefined

  /** Now every batch is acknowledged: none of them may be lost any more. */
  private sync(): void {
    if (this.path === undefined) return
    const { storage, log } = this
    const lsn = storage.journal.appendedLsn
    const index = storage.appliedIndex
    const file = this.disk.open(this.path)
    file.sync()
    file.close()
    storage.synced(lsn)
    log.madeDurable(index)
  }

  private writeRecords(write: JournalWrite): void {
    const file = this.disk.open(write.path)
    file.write(write.bytes, write.offset)
    if (write.sync) file.sync()
    file.close()
    this.storage.journal.durable(write)
    this.path = write.path
  }

  private pump(): void {
    const { storage, disk } = this
    this.nowMs += 600
    for (const job of storage.takeJobs(this.nowMs, this.nowMs))
      storage.jobDone(job, runStoreJob(disk, job))
    this.sync()
    const write = storage.journal.cut()
    if (write !== undefined) this.writeRecords(write)
  }

  /** The process dies and starts again: nothing that was written is lost with it. */
  private reopen(): void {
    this.storage.close()
    this.disk.kill()
    this.path = undefined
    this.storage = LocalStorage.open(this.disk, settings, 0)
    assert(this.storage.appliedIndex === this.log.count, "a process that dies loses nothing")
    assert(contentText(this.storage) === textOf(this.log.last), "it is as it was")
    // Recovery has made durable what it found.
    this.log.madeDurable(this.log.count)
  }
}

function textOf(model: SortedModel): string {
  return model
    .between("", undefined)
    .map(([key, value]) => showPair(key, value))
    .join(" ")
}

/** All but the store's own tree. */
function contentText(storage: LocalStorage): string {
  return contentOf(storage.engine, { lower: new Uint8Array([1]) })
    .map(([key, value]) => showPair(toHex(key), value))
    .join(" ")
}

class StoreSweep {
  points = 0
  opens = 0
  crashedOpens = 0
  private readonly options: { seed: number; steps: number; randomLosses: number }
  private readonly disk = new RecordedDisk()
  private readonly losses: Prng
  private log = new Log()

  constructor(options: { seed: number; steps: number; randomLosses: number }) {
    this.options = options
    this.losses = new Prng(options.seed).fork()
  }

  run(): void {
    const { disk, options } = this
    disk.atPoint = () => this.point()
    const workload = new StoreWorkload(disk, new Prng(options.seed), this.log)
    for (let i = 0; i < options.steps; i++) workload.step()
    disk.point()
  }

  private point(): void {
    this.points++
    const { losses, options } = this
    for (let loss = 0; loss < fixedLosses + options.randomLosses; loss++) {
      const where = `store, seed ${options.seed} operation ${this.disk.operations} loss ${loss}`
      try {
        this.crash(this.disk.clone(), loss)
      } catch (error) {
        throw new Error(`${where}: ${error}`, { cause: error })
      }
    }
    losses.uint32()
  }

  private crash(copy: SimulatedDisk, loss: number): void {
    const { losses } = this
    lose(copy, losses, loss)
    if (losses.chance(0.3)) {
      copy.crashAfter(copy.operations + losses.int(1, 20))
      if (dies(() => LocalStorage.open(copy, settings, 0))) this.crashedOpens++
      lose(copy, losses, losses.int(0, fixedLosses))
    }
    const index = this.recover(copy, this.log)
    if (!losses.chance(0.05)) return
    // What recovery made must carry further work, and another loss.
    const log = this.log.from(index)
    copy.kill()
    const later = new StoreWorkload(copy, losses.fork(), log)
    for (let i = 0; i < 40; i++) later.step()
    lose(copy, losses, losses.int(0, 4))
    this.recover(copy, log)
  }

  private recover(disk: SimulatedDisk, log: Log): number {
    this.opens++
    const storage = LocalStorage.open(disk, settings, 0)
    const index = storage.appliedIndex
    assert(index >= log.durable, () => `batch ${index} is the last, ${log.durable} was durable`)
    assert(index <= log.count, () => `batch ${index} was never written, ${log.count} was the last`)
    const isRight = contentText(storage) === textOf(log.at(index) as SortedModel)
    assert(isRight, () => `what is held is not what ${index} batches left`)
    storage.close()
    return index
  }
}
