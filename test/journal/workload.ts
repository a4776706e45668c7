import type { GroupKey, LoggedEntry, LoggedHardState } from "../../src/journal/group.ts"
import { Journal, type JournalOptions, type JournalWrite } from "../../src/journal/journal.ts"
import { prepareSegment, removeSegments } from "../../src/journal/segments.ts"
import type { Prng } from "../../src/lib/prng.ts"
import type { SimulatedDisk } from "../sim/simulatedDisk.ts"
import { contents, directory } from "./driver.ts"

/** One group as it ought to be. */
interface ModelGroup {
  readonly key: GroupKey
  hardState: LoggedHardState
  baseIndex: number
  baseTerm: number
  entries: Array<LoggedEntry>
}

function lastIndex(group: ModelGroup): number {
  return group.baseIndex + group.entries.length
}

function lastTerm(group: ModelGroup): number {
  return group.entries[group.entries.length - 1]?.term ?? group.baseTerm
}

/** All groups as they ought to be: the simplest thing that could be right. */
class Model {
  readonly groups: Array<ModelGroup> = []

  copy(): Model {
    const copy = new Model()
    for (const group of this.groups) copy.groups.push({ ...group, entries: [...group.entries] })
    return copy
  }

  /** The same text as `contents` makes of a journal. */
  text(): string {
    const sorted = [...this.groups].sort(
      (a, b) => a.key.range - b.key.range || a.key.replica - b.key.replica,
    )
    return sorted
      .map(({ key, hardState, baseIndex, baseTerm, entries }) => {
        const log = entries.map(({ index, term, kind, data }) => {
          return `${index}@${term}/${kind}:${Buffer.from(data).toString("hex")}`
        })
        const state = `term=${hardState.term} vote=${hardState.vote} commit=${hardState.commit}`
        return `${key.range}/${key.replica} ${state} base=${baseIndex}@${baseTerm} ${log.join(" ")}`
      })
      .join("\n")
  }
}

/** What recovery gave is none of the states that it could have given. */
export class WrongRecovery extends Error {
  override readonly name = "WrongRecovery"
}

/**
 * Drives a journal and a model of it with operations drawn from a seed: several groups, truncation,
 * release, rewriting, turnover of segments, resets, removal, batches larger than a segment,
 * sealing, and records gathered while a write is under way. Batches cut are remembered with the
 * state that each leaves, so that after a crash the recovered state can be found among them.
 */
export class Workload {
  readonly disk: SimulatedDisk
  private readonly options: JournalOptions
  private readonly prng: Prng
  private journal!: Journal
  private model = new Model()
  /** State after each batch cut; the first `durable` ones must survive. */
  private history: Array<Model> = [new Model()]
  private durable = 1
  private underWay: { write: JournalWrite; batches: number } | undefined
  private nextReplica = 10
  private stamp = 0
  /** Batches made durable, over all crashes. */
  batches = 0
  recoveries = 0

  constructor(disk: SimulatedDisk, options: JournalOptions, prng: Prng) {
    this.disk = disk
    this.options = options
    this.prng = prng
  }

  /** Starts, or starts again after a crash: checks what recovery gives. */
  recover(): void {
    const { journal } = Journal.recover(this.disk, directory, this.options)
    const found = contents(journal)
    let kept = this.history.length - 1
    while (kept >= this.durable - 1 && this.history[kept]?.text() !== found) kept--
    if (kept < this.durable - 1) {
      const durable = this.history[this.durable - 1]?.text()
      throw new WrongRecovery(`recovered:\n${found}\nlast durable batch left:\n${durable}`)
    }
    this.journal = journal
    this.model = (this.history[kept] as Model).copy()
    // What recovery has returned it has made durable.
    this.history = [this.model.copy()]
    this.durable = 1
    this.underWay = undefined
    this.recoveries++
  }

  /** The live journal answers as the model does. */
  check(): void {
    const found = contents(this.journal)
    if (found !== this.model.text()) {
      throw new WrongRecovery(`live:\n${found}\nmodel:\n${this.model.text()}`)
    }
  }

  step(): void {
    const { prng } = this
    const draw = prng.int(0, 99)
    if (draw < 20) this.append()
    else if (draw < 30) this.hardState()
    else if (draw < 40) this.release()
    else if (draw < 42) this.reset()
    else if (draw < 43) this.replaceReplica()
    else if (draw < 48) this.journal.maintain()
    else if (draw < 55) this.prepare()
    else if (draw < 60) removeSegments(this.disk, this.journal.segmentsToDelete())
    else if (draw < 65) this.begin(this.journal.sealIfIdle(), false)
    else if (draw < 82) this.begin(this.journal.cut(), true)
    else this.finish()
  }

  /** Writes all that was gathered. */
  flush(): void {
    for (let i = 0; i < 3; i++) {
      this.finish()
      this.prepare()
      this.begin(this.journal.cut(), true)
    }
    this.finish()
  }

  private prepare(): void {
    for (const job of this.journal.segmentsToPrepare()) {
      prepareSegment(this.disk, job)
      this.journal.segmentReady(job)
    }
  }

  private begin(write: JournalWrite | undefined, hasRecords: boolean): void {
    if (write === undefined) return
    if (hasRecords) this.history.push(this.model.copy())
    this.underWay = { write, batches: this.history.length }
  }

  private finish(): void {
    if (this.underWay === undefined) return
    const { write, batches } = this.underWay
    const file = this.disk.open(write.path)
    file.write(write.bytes, write.offset)
    if (write.sync) {
      file.sync()
      this.durable = batches
      this.batches++
    }
    file.close()
    this.underWay = undefined
    this.journal.durable(write)
  }

  private pick(): ModelGroup {
    const range = this.prng.int(1, 4)
    const known = this.model.groups.find((group) => group.key.range === range)
    if (known !== undefined) return known
    return this.add({ range, replica: this.nextReplica++ })
  }

  private add(key: GroupKey): ModelGroup {
    const hardState = { term: 0, vote: 0, commit: 0 }
    const group: ModelGroup = { key, hardState, baseIndex: 0, baseTerm: 0, entries: [] }
    this.model.groups.push(group)
    // A group exists from its first record on, so it gets one at once.
    const term = this.prng.int(1, 3)
    group.hardState = { term, vote: 0, commit: 0 }
    this.journal.group(key).setHardState(group.hardState)
    return group
  }

  private append(): void {
    const { prng } = this
    const group = this.pick()
    const truncates = group.entries.length > 0 && prng.chance(0.25)
    const first = truncates ? prng.int(group.baseIndex + 1, lastIndex(group)) : lastIndex(group) + 1
    group.entries.length = first - group.baseIndex - 1
    let term = lastTerm(group) + (truncates || prng.chance(0.1) ? 1 : 0)
    const entries: Array<LoggedEntry> = []
    const count = prng.int(1, 4)
    const sizeMax = prng.chance(0.03) ? 6000 : prng.chance(0.2) ? 400 : 40
    for (let i = 0; i < count; i++) {
      if (prng.chance(0.05)) term++
      const data = new Uint8Array(prng.int(0, sizeMax)).fill(++this.stamp)
      entries.push({ index: first + i, term, kind: prng.int(0, 1), data })
    }
    group.entries.push(...entries)
    this.journal.group(group.key).append(entries)
  }

  private hardState(): void {
    const { prng } = this
    const group = this.pick()
    const { term, vote, commit } = group.hardState
    const draw = prng.int(0, 3)
    if (draw < 2) group.hardState = { term, vote, commit: lastIndex(group) }
    else if (draw < 3) group.hardState = { term, vote: vote + 1, commit }
    else group.hardState = { term: term + prng.int(1, 2), vote: 0, commit }
    this.journal.group(group.key).setHardState(group.hardState)
  }

  private release(): void {
    const group = this.pick()
    if (group.entries.length === 0) return
    // Mostly far, so that segments become free; one range is slow, so that its entries get
    // rewritten.
    const reach = group.key.range === 1 && this.prng.chance(0.8) ? 1 : group.entries.length
    const count = this.prng.int(Math.ceil(reach / 2), reach)
    group.baseTerm = (group.entries[count - 1] as LoggedEntry).term
    group.baseIndex += count
    group.entries.splice(0, count)
    this.journal.group(group.key).release(group.baseIndex)
  }

  private reset(): void {
    const group = this.pick()
    group.baseIndex = Math.max(0, lastIndex(group) + this.prng.int(-2, 5))
    group.baseTerm = lastTerm(group) + this.prng.int(0, 1)
    group.entries = []
    this.journal.group(group.key).resetTo(group.baseIndex, group.baseTerm)
  }

  private replaceReplica(): void {
    const group = this.pick()
    this.journal.group(group.key).destroy()
    this.model.groups.splice(this.model.groups.indexOf(group), 1)
    if (this.prng.chance(0.7)) this.add({ ...group.key, replica: this.nextReplica++ })
  }
}
