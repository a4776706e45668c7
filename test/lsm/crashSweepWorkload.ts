import { assert } from "../../src/lib/assert.ts"
import { compareBytes, concatBytes, toHex } from "../../src/lib/bytes.ts"
import type { Prng } from "../../src/lib/prng.ts"
import { WriteBatch } from "../../src/lsm/batch.ts"
import type { EngineOptions } from "../../src/lsm/engine.ts"
import { Engine } from "../../src/lsm/engine.ts"
import type { EngineJob } from "../../src/lsm/maintenance/jobs.ts"
import { removeFiles, runJob, runManifestWrite } from "../../src/lsm/maintenance/jobs.ts"
import type { SimulatedDisk } from "../sim/simulatedDisk.ts"
import { contentOf, randomValue, writeSpill } from "./harness.ts"
import { bytesOfKey, type Pair, SortedModel, showPair } from "./metamorphicModel.ts"
import { writeFinishedTables } from "./metamorphicTables.ts"
import { type Bounds, randomTreeKey, treeIds, type Write } from "./metamorphicTrace.ts"

/** What an engine holds after some edit of its manifest. */
export class DurableState {
  readonly generation: number
  readonly model: SortedModel
  private text: string | undefined

  constructor(generation: number, model: SortedModel) {
    this.generation = generation
    this.model = model
  }

  get digest(): string {
    this.text ??= this.model
      .between("", undefined)
      .map(([key, value]) => showPair(key, value))
      .join(" ")
    return this.text
  }
}

export interface Backup {
  readonly target: string
  readonly digest: string
  isDone: boolean
}

export const sweptOptions: EngineOptions = {
  memtableBytes: 500,
  blockBytes: 100,
  tableBytes: 300,
  compactionBytes: 1500,
  baseBytes: 1000,
  levelRatioMax: 3,
  level0Trigger: 2,
  indexPageBytes: 100,
  manifestBytes: 6000,
  trees: treeIds.map((id) => ({ id, name: `tree ${id}` })),
}

export function digestOf(engine: Engine): string {
  return contentOf(engine)
    .map(([key, value]) => showPair(toHex(key), value))
    .join(" ")
}

/** Drives an engine as a store does, and knows what must be durable. */
export class EngineWorkload {
  readonly states: Array<DurableState> = []
  /** Index into `states` of the last edit known to be durable; the last state may be under way. */
  installed = 0
  readonly backups: Array<Backup> = []
  private readonly disk: SimulatedDisk
  private readonly prng: Prng
  private engine: Engine
  /** Writes of each memtable, by generation. */
  private generations = new Map<number, ReadonlyArray<Write>>()
  private active: Array<Write> = []
  private nowMs = 0
  private folders = 0

  /** The folder's name makes what it makes beside the engine differ from what an earlier life left. */
  constructor(disk: SimulatedDisk, prng: Prng, from: DurableState | undefined) {
    this.disk = disk
    this.prng = prng
    this.states.push(from ?? new DurableState(0, new SortedModel()))
    this.engine = Engine.open(disk, "engine", sweptOptions)
  }

  private get durable(): DurableState {
    return this.states[this.states.length - 1]
  }

  step(): void {
    this.nowMs += 60_000
    const draw = this.prng.int(0, 999)
    if (draw < 600) this.write(1)
    else if (draw < 700) this.write(this.prng.int(0, 6))
    else if (draw < 930) this.job()
    else if (draw < 965) this.seal()
    else if (draw < 976) this.replace("spill")
    else if (draw < 985) this.replace("tables")
    else if (draw < 989) this.checkpoint()
    else this.reopen()
  }

  private makeWrite(): Write {
    const { prng } = this
    const tree = prng.pick(treeIds)
    const key = randomTreeKey(prng, tree)
    const draw = prng.int(0, 99)
    if (draw < 70) return { _tag: "Put", key, value: randomValue(prng) }
    if (draw < 90) return { _tag: "Delete", key }
    const other = prng.chance(0.7)
      ? concatBytes(key, new Uint8Array([1]))
      : randomTreeKey(prng, tree)
    const isInOrder = compareBytes(key, other) <= 0
    return { _tag: "DeleteRange", lower: isInOrder ? key : other, upper: isInOrder ? other : key }
  }

  /** As one batch, so that a crash leaves all of it or nothing. */
  private write(count: number): void {
    const batch = new WriteBatch()
    const writes = Array.from({ length: count }, () => this.makeWrite())
    for (const write of writes) {
      if (write._tag === "Put") batch.put(write.key, write.value)
      else if (write._tag === "Delete") batch.delete(write.key)
      else batch.deleteRange(write.lower, write.upper)
    }
    const { sizeBytes } = batch
    while (!this.engine.canWrite(sizeBytes))
      assert(this.job(), "a writer that waits has a job to wait for")
    if (this.engine.needsSeal(sizeBytes)) this.seal()
    this.engine.write(batch)
    this.active.push(...writes)
  }

  private seal(): void {
    while (!this.engine.canSeal) this.job()
    if (this.active.length === 0) return
    const generation = this.engine.seal()
    // Writes that changed nothing, as an empty range, seal nothing: they are of the one before.
    const before = this.generations.get(generation) ?? []
    this.generations.set(generation, [...before, ...this.active])
    this.active = []
  }

  private job(): boolean {
    const job = this.engine.nextJob(this.nowMs)
    if (job === undefined) return false
    this.carryOut(job, () => {
      if (job._tag !== "Flush") return this.durable
      const model = this.durable.model.clone()
      for (const write of this.generations.get(job.generation) ?? []) apply(model, write)
      return new DurableState(job.generation, model)
    })
    return true
  }

  private carryOut(job: EngineJob, nextState: () => DurableState): void {
    const write = this.engine.complete(job, runJob(this.disk, job))
    this.states.push(nextState())
    runManifestWrite(this.disk, write)
    this.installed = this.states.length - 1
    this.engine.installed(write)
    removeFiles(this.disk, this.engine.obsoleteFiles())
  }

  private flushAll(): void {
    this.seal()
    while (!this.engine.memtablesEmpty) this.job()
  }

  /** Behind the barrier, as a snapshot is installed. Other keys are written meanwhile. */
  private replace(from: "spill" | "tables"): void {
    this.flushAll()
    const { disk, engine, prng } = this
    const interval: Bounds = {
      lower: new Uint8Array([0x6b]),
      upper: prng.chance(0.5) ? new Uint8Array([0x6c]) : randomTreeKey(prng, 0x6b),
    }
    const { lower } = interval
    const upper = interval.upper as Uint8Array
    if (compareBytes(lower, upper) >= 0) return
    const fresh = new SortedModel()
    for (let i = prng.int(0, 30); i > 0; i--) {
      fresh.put(toHex(randomTreeKey(prng, 0x6b)), randomValue(prng))
    }
    const pairs = fresh.between(toHex(lower), toHex(upper))
    const job =
      from === "spill"
        ? this.replaceBySpill(interval, pairs)
        : engine.ingestTables({
            intervals: [interval],
            paths: writeFinishedTables(disk, this.folder("incoming"), pairs, [interval], prng),
          })
    const outside: Write = { _tag: "Put", key: new Uint8Array([1]), value: randomValue(prng) }
    engine.put(outside.key, outside.value)
    this.active.push(outside)
    this.carryOut(job, () => {
      const model = this.durable.model.clone()
      model.deleteRange(toHex(lower), toHex(upper))
      for (const [key, value] of pairs) model.put(key, value)
      return new DurableState(this.durable.generation, model)
    })
  }

  private replaceBySpill(interval: Bounds, pairs: ReadonlyArray<Pair>): EngineJob {
    const bytes = pairs.map(([key, value]) => [bytesOfKey(key), value] as const)
    const spillChecksum = writeSpill(this.disk, "spill", bytes)
    return this.engine.replaceInterval({ intervals: [interval], spillPath: "spill", spillChecksum })
  }

  /** A folder that no earlier life has made. */
  private folder(name: string): string {
    do this.folders++
    while (this.disk.exists(`${name}${this.folders}`))
    return `${name}${this.folders}`
  }

  private checkpoint(): void {
    this.flushAll()
    const backup = { target: this.folder("backup"), digest: this.durable.digest, isDone: false }
    this.backups.push(backup)
    this.carryOut(this.engine.checkpointJob(backup.target), () => this.durable)
    backup.isDone = true
  }

  /** The process ends and starts again: memtables are gone, nothing else. */
  private reopen(): void {
    this.engine.close()
    this.engine = Engine.open(this.disk, "engine", sweptOptions)
    this.generations = new Map()
    this.active = []
    assert(digestOf(this.engine) === this.durable.digest, "a reopened engine is as it was")
  }
}

export function apply(model: SortedModel, write: Write): void {
  if (write._tag === "Put") model.put(toHex(write.key), write.value)
  else if (write._tag === "Delete") model.delete(toHex(write.key))
  else model.deleteRange(toHex(write.lower), toHex(write.upper))
}
