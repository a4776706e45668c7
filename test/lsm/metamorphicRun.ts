import { assert } from "../../src/lib/assert.ts"
import { compareBytes, toHex } from "../../src/lib/bytes.ts"
import { Prng } from "../../src/lib/prng.ts"
import { WriteBatch } from "../../src/lsm/batch.ts"
import type { EngineIterator, EngineOptions, EngineSnapshot } from "../../src/lsm/engine.ts"
import { Engine } from "../../src/lsm/engine.ts"
import type { FilterRule } from "../../src/lsm/maintenance/filter.ts"
import type { EngineJob } from "../../src/lsm/maintenance/jobs.ts"
import { removeFiles } from "../../src/lsm/maintenance/jobs.ts"
import { entryOverheadBytes } from "../../src/lsm/memtable/memtable.ts"
import { SimulatedDisk } from "../sim/simulatedDisk.ts"
import { carryOut, writeSpill } from "./harness.ts"
import {
  bytesOfKey,
  type Hidden,
  type Move,
  type Pair,
  showPair,
  showValue,
} from "./metamorphicModel.ts"
import type { OptionSet } from "./metamorphicOptions.ts"
import { writeFinishedTables } from "./metamorphicTables.ts"
import type { Bounds, Operation, Step, Write } from "./metamorphicTrace.ts"
import { disownedInterval, expiringTree, hiddenAt, treeIds } from "./metamorphicTrace.ts"

export const trees = treeIds.map((id) => ({ id, name: `tree ${id}` }))

/** An engine answered otherwise than the model. */
export class Mismatch extends Error {
  override readonly name = "Mismatch"
}

interface Generation {
  readonly generation: number
  readonly writes: ReadonlyArray<Write>
}

/** Does a trace to one engine and compares what it gives. */
export class MetamorphicRun {
  readonly disk = new SimulatedDisk()
  private readonly options: EngineOptions
  /** Decides what the trace leaves open: in what parts a value comes, whether a job crosses a thread. */
  private readonly prng: Prng
  private engine: Engine
  private readonly snapshots = new Map<number, EngineSnapshot>()
  private readonly iterators = new Map<number, EngineIterator>()
  /** What a store's log would hold: writes that are not in tables yet. */
  private sealed: Array<Generation> = []
  private active: Array<Write> = []
  private nowMs = 0
  private clock = 0
  private disowned = false
  private hidden: Hidden = () => false
  private checkpoints = 0
  private ingests = 0
  /** Jobs done, by kind. */
  readonly jobs = new Map<string, number>()
  private lastJob = ""

  constructor({ options, filtered }: OptionSet, seed: number) {
    this.options = filtered
      ? { ...options, trees, filters: () => this.filters() }
      : { ...options, trees }
    this.prng = new Prng(seed)
    this.engine = Engine.open(this.disk, "engine", this.options)
  }

  private filters(): ReadonlyArray<FilterRule> {
    const rules: Array<FilterRule> = []
    if (this.disowned) rules.push({ ...disownedInterval, rule: { _tag: "Drop" } })
    rules.push({
      lower: new Uint8Array([expiringTree]),
      upper: new Uint8Array([expiringTree + 1]),
      rule: { _tag: "Expired", offset: 0, atOrBefore: this.clock },
    })
    return rules
  }

  run(trace: ReadonlyArray<Step>): void {
    for (let i = 0; i < trace.length; i++) {
      const step = trace[i]
      try {
        this.step(step)
      } catch (error) {
        throw new Mismatch(`step ${i} ${step.operation._tag}: ${error}`, { cause: error })
      }
    }
    this.finish()
  }

  private step(step: Step): void {
    this.nowMs += 7000
    this.clock = step.clock
    this.disowned = step.disowned
    this.hidden = hiddenAt(step.clock, step.disowned)
    const actual = this.operate(step.operation)
    if (actual !== step.expected) {
      const first = firstDifference(actual, step.expected)
      throw new Mismatch(
        `gave ${first.actual}, expected ${first.expected}: ${show(step.operation)}`,
      )
    }
  }

  private operate(operation: Operation): string {
    switch (operation._tag) {
      case "Put":
      case "Delete":
      case "DeleteRange":
        this.write([operation], false)
        return ""
      case "Batch":
        this.write(operation.writes, true)
        return ""
      case "Get":
        return this.get(operation.key, operation.snapshot)
      case "Scan":
        return this.scan(operation)
      case "Snapshot":
        this.snapshots.set(operation.slot, this.engine.snapshot())
        return ""
      case "Release":
        this.take(this.snapshots, operation.slot).release()
        return ""
      case "OpenIterator":
        return this.openIterator(operation)
      case "Move":
        return this.move(operation.slot, operation.move)
      case "CloseIterator":
        this.take(this.iterators, operation.slot).close()
        return ""
      case "Seal":
        this.seal()
        return ""
      case "Jobs":
        for (let left = operation.count; left > 0 && this.job(); left--);
        return ""
      case "Reopen":
        this.reopen(operation.powerLoss)
        return ""
      case "Replace":
      case "IngestTables":
        this.replace(operation._tag, operation.intervals, operation.pairs)
        return ""
      case "Checkpoint":
        return this.checkpoint()
      case "Measure":
        this.measure(operation.bounds)
        return ""
      case "Expire":
      case "Disown":
        return ""
      default:
        throw operation satisfies never
    }
  }

  private take<A>(from: Map<number, A>, slot: number): A {
    const item = from.get(slot)
    assert(item !== undefined, "a slot is used while it is held")
    from.delete(slot)
    return item
  }

  // ---- Writes

  private write(writes: ReadonlyArray<Write>, asBatch: boolean): void {
    let bytes = 0
    for (const write of writes) {
      if (write._tag === "DeleteRange") bytes += write.lower.length + write.upper.length
      else bytes += write.key.length + (write._tag === "Put" ? write.value.length : 0)
      bytes += entryOverheadBytes
    }
    while (!this.engine.canWrite(bytes)) this.needJob()
    if (this.engine.needsSeal(bytes)) this.seal()
    this.put(writes, asBatch)
    this.active.push(...writes)
  }

  private put(writes: ReadonlyArray<Write>, asBatch: boolean): void {
    const { engine, prng } = this
    if (asBatch) {
      const batch = new WriteBatch()
      for (const write of writes) {
        if (write._tag === "Put") batch.put(write.key, write.value)
        else if (write._tag === "Delete") batch.delete(write.key)
        else batch.deleteRange(write.lower, write.upper)
      }
      engine.write(batch)
      batch.clear()
      return
    }
    for (const write of writes) {
      if (write._tag === "Put") {
        // The engine keeps no reference to what it was given.
        const key = write.key.slice()
        const value = write.value.slice()
        const cut = prng.int(0, value.length)
        engine.putParts(key, value.subarray(0, cut), value.subarray(cut))
        key.fill(0x55)
        value.fill(0xaa)
      } else if (write._tag === "Delete") engine.delete(write.key)
      else engine.deleteRange(write.lower, write.upper)
    }
  }

  private seal(): void {
    while (!this.engine.canSeal) this.needJob()
    const generation = this.engine.seal()
    if (this.active.length > 0) this.sealed.push({ generation, writes: this.active })
    this.active = []
  }

  private flushAll(): void {
    this.seal()
    while (!this.engine.memtablesEmpty) this.needJob()
  }

  private needJob(): void {
    assert(this.job(), "a writer that must wait has a job to wait for")
  }

  private job(): boolean {
    const job = this.engine.nextJob(this.nowMs)
    if (job === undefined) return false
    this.carryOut(job)
    return true
  }

  private carryOut(job: EngineJob): void {
    this.lastJob = job._tag
    this.jobs.set(job._tag, (this.jobs.get(job._tag) ?? 0) + 1)
    carryOut(this.engine, this.disk, job)
    const { flushedThrough } = this.engine
    this.sealed = this.sealed.filter(({ generation }) => generation > flushedThrough)
  }

  // ---- Reads

  private get(key: Uint8Array, slot: number | undefined): string {
    const snapshot = slot === undefined ? undefined : this.snapshots.get(slot)
    const value = this.engine.get(key, snapshot)
    return showValue(value !== undefined && this.hidden(toHex(key), value) ? undefined : value)
  }

  private scan(operation: Extract<Operation, { _tag: "Scan" }>): string {
    const { bounds, reverse, snapshot } = operation
    const iterator = this.engine.iterator({
      ...bounds,
      reverse,
      snapshot: snapshot === undefined ? undefined : this.snapshots.get(snapshot),
    })
    const shown = this.walk(iterator)
    iterator.close()
    return shown
  }

  private walk(iterator: EngineIterator): string {
    const shown: Array<string> = []
    while (iterator.next()) {
      const key = toHex(iterator.key)
      if (!this.hidden(key, iterator.value)) shown.push(showPair(key, iterator.value))
    }
    return shown.join(" ")
  }

  private openIterator(operation: Extract<Operation, { _tag: "OpenIterator" }>): string {
    const { slot, bounds, prefix, snapshot } = operation
    const iterator = this.engine.iterator({
      ...bounds,
      ...(prefix === undefined ? {} : { prefix }),
      snapshot: snapshot === undefined ? undefined : this.snapshots.get(snapshot),
    })
    this.iterators.set(slot, iterator)
    return ""
  }

  private move(slot: number, move: Move): string {
    const iterator = this.iterators.get(slot) as EngineIterator
    const isUpward = move._tag === "First" || move._tag === "Seek" || move._tag === "Next"
    let found = start(iterator, move)
    while (found && this.hidden(toHex(iterator.key), iterator.value)) {
      found = isUpward ? iterator.next() : iterator.previous()
    }
    if (!found) return "end"
    if (this.prng.chance(0.5)) return showPair(toHex(iterator.key), iterator.value)
    const { keyBytes, keyOffset, keyLength, valueBytes, valueOffset, valueLength } = iterator.pair
    return showPair(
      toHex(keyBytes.subarray(keyOffset, keyOffset + keyLength)),
      valueBytes.subarray(valueOffset, valueOffset + valueLength),
    )
  }

  private measure(bounds: Bounds): void {
    const { engine } = this
    const whole = engine.approximateSize({ lower: new Uint8Array(0), upper: undefined })
    const part = engine.approximateSize(bounds)
    assert(part.bytes >= 0 && part.entries >= 0, "a size is not negative")
    assert(part.bytes <= whole.bytes + 1, () => `part ${part.bytes}, whole ${whole.bytes} bytes`)
    assert(part.entries <= whole.entries + 1, () => `part ${part.entries}, whole ${whole.entries}`)
    const key = engine.splitKey(bounds)
    if (key === undefined) return
    const inside =
      compareBytes(key, bounds.lower) > 0 &&
      (bounds.upper === undefined || compareBytes(key, bounds.upper) < 0)
    assert(inside, () => `split at ${toHex(key)}`)
  }

  // ---- The whole

  private reopen(powerLoss: boolean): void {
    const { engine, disk } = this
    const { flushedThrough } = engine
    engine.close()
    if (powerLoss) disk.loseAllUnsynced()
    else disk.kill()
    this.engine = Engine.open(disk, "engine", this.options)
    assert(this.engine.flushedThrough === flushedThrough, "what was flushed stays flushed")
    const lost = this.sealed.flatMap(({ writes }) => writes)
    lost.push(...this.active)
    this.sealed = []
    this.active = []
    for (const write of lost) this.write([write], false)
  }

  private replace(
    tag: "Replace" | "IngestTables",
    intervals: ReadonlyArray<Bounds>,
    pairs: ReadonlyArray<Pair>,
  ): void {
    this.flushAll()
    const { disk, engine } = this
    if (tag === "IngestTables") {
      const directory = `incoming${this.ingests++}`
      const paths = writeFinishedTables(disk, directory, pairs, intervals, this.prng)
      this.carryOut(engine.ingestTables({ intervals, paths }))
      return
    }
    const bytes = pairs.map(([key, value]) => [bytesOfKey(key), value] as const)
    if (pairs.length === 0 && this.prng.chance(0.5)) {
      this.carryOut(engine.replaceInterval({ intervals }))
      return
    }
    const spillChecksum = writeSpill(disk, "spill", bytes)
    this.carryOut(engine.replaceInterval({ intervals, spillPath: "spill", spillChecksum }))
    disk.remove("spill")
  }

  /** Opened on a disk that has lost all that was not synced, so that the backup is known to be one. */
  private checkpoint(): string {
    this.flushAll()
    const target = `checkpoint${this.checkpoints++}`
    this.carryOut(this.engine.checkpointJob(target))
    const copy = this.disk.clone()
    copy.loseAllUnsynced()
    const engine = Engine.open(copy, target, this.options)
    engine.verify()
    const iterator = engine.iterator({ lower: new Uint8Array(0), upper: undefined })
    const shown = this.walk(iterator)
    iterator.close()
    engine.close()
    return shown
  }

  /** Nothing is left behind: files are those that are live, and every byte of them is good. */
  private finish(): void {
    for (const iterator of this.iterators.values()) iterator.close()
    for (const snapshot of this.snapshots.values()) snapshot.release()
    this.flushAll()
    // A scrub goes round for ever.
    while (this.job() && this.lastJob !== "Scrub");
    removeFiles(this.disk, this.engine.obsoleteFiles())
    this.engine.verify()
    const tables = this.disk.list("engine").filter((name) => name.endsWith(".table"))
    const live = this.engine.liveFiles().map((path) => path.slice("engine/".length))
    assert(tables.join() === [...live].sort().join(), () => `files ${tables}, live ${live}`)
    this.engine.close()
  }
}

function start(iterator: EngineIterator, move: Move): boolean {
  switch (move._tag) {
    case "First":
      return iterator.seekFirst()
    case "Last":
      return iterator.seekLast()
    case "Seek":
      return iterator.seek(move.key)
    case "SeekBefore":
      return iterator.seekBefore(move.key)
    case "Next":
      return iterator.next()
    case "Previous":
      return iterator.previous()
    default:
      throw move satisfies never
  }
}

function firstDifference(actual: string, expected: string): { actual: string; expected: string } {
  const left = actual.split(" ")
  const right = expected.split(" ")
  const at = left.findIndex((word, i) => word !== right[i])
  const index = at < 0 ? left.length : at
  const shorten = (word: string | undefined) =>
    word === undefined ? "nothing" : word.slice(0, 120)
  return { actual: shorten(left[index]), expected: shorten(right[index]) }
}

function show(operation: Operation): string {
  return JSON.stringify(operation, (_, value) =>
    value instanceof Uint8Array ? toHex(value) : value,
  )
}
