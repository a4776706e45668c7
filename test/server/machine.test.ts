import { describe, expect, test } from "bun:test"
import { compareBytes, emptyBytes, fromHex, text, utf8 } from "../../src/lib/bytes.ts"
import { int64Of, loadInt64 } from "../../src/lib/int64.ts"
import { hashPosition } from "../../src/lib/position.ts"
import { Prng } from "../../src/lib/prng.ts"
import { entryKinds } from "../../src/raft/message.ts"
import { type AppliedEntry, RangeMachine } from "../../src/server/apply.ts"
import { bootstrapDescriptors } from "../../src/server/bootstrap.ts"
import { dataEnd, dataKey } from "../../src/server/engineKeys.ts"
import { encodeEntryData } from "../../src/server/entryData.ts"
import { encodeClear, encodeSplit, encodeTick } from "../../src/server/rangeEntries.ts"
import { decodeRangeState, encodeRangeState, noMerges } from "../../src/server/rangeState.ts"
import { isExpired, recordValue, recordVersion } from "../../src/server/valueRecord.ts"
import type { Version } from "../../src/types.ts"
import { type BatchOperation, encodeBatch } from "../../src/wire/batch.ts"
import {
  CommandView,
  commandStatuses,
  conditions,
  encodeCommand,
  operations,
} from "../../src/wire/command.ts"
import {
  MachineModel,
  type ModelCommand,
  type ModelOperation,
  type ModelResult,
} from "./machineModel.ts"
import { MapValues } from "./mapValues.ts"

const keys = ["a", "b", "c", "d", "e", "f"]
/** All in one slot, so that positions sort as the keys do. */
const positionOf = (key: string) => hashPosition(1, utf8(`{s}${key}`))
const keyOf = (hex: string) => text(fromHex(hex)!.subarray(2 + 6 + 3))
const limits = { results: 10_000, clients: 1000 }
const second = 1_000_000

function encode(command: ModelCommand): Uint8Array {
  const parts = command.operations.map(
    (each): BatchOperation => ({
      operation: operations[each.operation],
      condition: conditions[each.condition],
      expectedVersion: each.expectedVersion,
      ttl: each.ttl,
      position: positionOf(each.key),
      value:
        each.operation === "add"
          ? int64Of(each.delta)
          : utf8(each.operation === "put" ? each.value : ""),
      expectedValue: each.condition === "valueEquals" ? utf8(each.expectedValue) : emptyBytes,
    }),
  )
  const { clientId, sequence, ackedBelow, expiresAt, boundsVersion } = command
  const identity = { clientId, sequence, ackedBelow, expiresAt, boundsVersion }
  const [first] = parts as [BatchOperation]
  const bytes = encodeCommand(
    command.isBatch
      ? {
          ...identity,
          operation: operations.batch,
          condition: conditions.none,
          expectedVersion: 0,
          ttl: 0,
          position: first.position,
          value: encodeBatch(parts),
          expectedValue: emptyBytes,
        }
      : { ...identity, ...first },
  )
  expect(CommandView.problem(bytes)).toBeUndefined()
  return bytes
}

/** A range beside its model, its engine kept as a node keeps it: the state that a crash leaves, and the log since. */
class Subject {
  machine: RangeMachine
  readonly model: MachineModel
  readonly engine: MapValues
  /** What is flushed: the engine's records, and the machine. */
  private flushed: { records: Map<string, Uint8Array>; machine: () => RangeMachine; time: Version }
  private log: Array<{ entry: AppliedEntry; results: ReadonlyArray<ModelResult> }> = []

  constructor(machine: RangeMachine, model: MachineModel, engine: MapValues) {
    this.machine = machine
    this.model = model
    this.engine = engine
    this.flushed = this.flush()
  }

  /** Seals and flushes: a crash goes on from here. */
  flush() {
    const state = encodeRangeState(this.machine.state())
    const sessions = this.machine.sessions.all()
    const { engine } = this
    const machine = () => {
      const restored = new RangeMachine({ state: decodeRangeState(state), engine, limits })
      for (const { clientId, record } of sessions) restored.sessions.restore(clientId, record)
      return restored
    }
    this.log = []
    this.flushed = { records: new Map(engine.records), machine, time: this.machine.rangeTime }
    return this.flushed
  }

  /** Drops what compactions may drop. */
  compact(): void {
    for (const records of [this.flushed.records, this.engine.records]) {
      for (const [key, record] of records) {
        if (isExpired(record, this.flushed.time)) records.delete(key)
      }
    }
  }

  /** Starts again from what is flushed, and applies the log once more: the answers must be the same. */
  crash(): void {
    const { chain } = this.machine
    this.engine.records = new Map(this.flushed.records)
    this.machine = this.flushed.machine()
    for (const { entry, results } of this.log) {
      this.machine.apply(entry)
      expect(this.results()).toEqual([...results])
    }
    expect(this.machine.chain).toBe(chain)
  }

  /** The next entry. */
  apply(kind: number, data: Uint8Array, results: ReadonlyArray<ModelResult>): void {
    const { appliedIndex, appliedTerm } = this.machine
    const entry = { index: appliedIndex + 1, term: appliedTerm, kind, data }
    this.machine.probe(entry)
    this.machine.apply(entry)
    this.log.push({ entry, results })
    expect(this.results()).toEqual([...results])
    this.compare()
  }

  private results(): ReadonlyArray<ModelResult> {
    const { count, statuses, versions, values } = this.machine.outcomes
    return Array.from({ length: count }, (_, i) => {
      const [status] = Object.entries(commandStatuses).find(([, code]) => code === statuses[i])!
      const result = { status: status as ModelResult["status"], version: versions[i]! }
      const value = values[i]
      if (value === undefined) return result
      return {
        ...result,
        value: value.length === 8 ? loadInt64(value) : BigInt(value[0]! | (value[1]! << 8)),
      }
    })
  }

  /** What readers see of this range. */
  private compare(): void {
    const { start, end } = this.machine.descriptor
    const visible = [...this.engine.records]
      .filter(([hex, record]) => {
        const key = fromHex(hex)!
        const inside = compareBytes(key, dataKey(start)) >= 0 && compareBytes(key, dataEnd(end)) < 0
        return inside && !isExpired(record, this.machine.rangeTime)
      })
      .map(
        ([hex, record]) => [keyOf(hex), text(recordValue(record)), recordVersion(record)] as const,
      )
      .sort(([left], [right]) => (left < right ? -1 : 1))
    expect(visible).toEqual([...this.model.visible()])
  }
}

/** One walk through commands, ticks, clears, splits, flushes, compactions and crashes. */
class Walk {
  private readonly prng: Prng
  private readonly subjects: Array<Subject>
  private base = 1000
  private sequence = 0
  private readonly made: Array<ModelCommand> = []
  readonly met = new Map<string, number>()

  constructor(seed: number) {
    this.prng = new Prng(seed)
    const engine = new MapValues()
    const [, descriptor] = bootstrapDescriptors([1], 1)
    const applied = { appliedIndex: 1, appliedTerm: 1, rangeTime: 0, chain: 0 }
    const zero = { ...applied, lastReplica: 1, ...noMerges }
    const state = { descriptor: descriptor!, replica: 1, ...zero }
    const machine = new RangeMachine({ state, engine, limits })
    this.subjects = [new Subject(machine, new MachineModel("", undefined, 1), engine)]
  }

  step(): void {
    const { prng } = this
    const subject = prng.pick(this.subjects)
    this.base += Math.floor(prng.logUniform(1, prng.chance(0.02) ? 40 * second : second))
    const roll = prng.int(0, 99)
    if (roll < 70) this.commands(subject)
    else if (roll < 76) this.tick(subject)
    else if (roll < 78) this.clear(subject)
    else if (roll < 81) this.split(subject)
    // A range that shares its engine with others is flushed and crashes with them.
    else if (roll < 87) for (const each of this.subjects) each.flush()
    else if (roll < 93) for (const each of this.subjects) each.compact()
    else if (this.subjects.length === 1) subject.crash()
  }

  private commands(subject: Subject): void {
    const { prng } = this
    const commands = Array.from({ length: prng.int(1, 4) }, () => {
      if (this.made.length > 0 && prng.chance(0.25)) {
        const retried = prng.pick(this.made.slice(-20))
        return { ...retried, boundsVersion: subject.model.boundsVersion }
      }
      const made = this.command(subject)
      this.made.push(made)
      return made
    })
    const results = subject.model.entry(this.base, commands)
    for (const { status } of results) this.met.set(status, (this.met.get(status) ?? 0) + 1)
    subject.apply(entryKinds.commands, encodeEntryData(this.base, commands.map(encode)), results)
    this.base += commands.length
  }

  private command(subject: Subject): ModelCommand {
    const { prng } = this
    const isBatch = prng.chance(0.3)
    const chosen = isBatch ? keys.filter(() => prng.chance(0.4)) : []
    if (chosen.length === 0) chosen.push(prng.pick(keys))
    this.sequence++
    return {
      clientId: prng.int(1, 3),
      sequence: this.sequence,
      ackedBelow: prng.chance(0.3) ? Math.max(0, this.sequence - prng.int(0, 10)) : 0,
      expiresAt: this.base + (prng.chance(0.05) ? 0 : prng.int(1, 60) * second),
      boundsVersion: subject.model.boundsVersion - (prng.chance(0.03) ? 1 : 0),
      isBatch,
      operations: chosen.map((key) => this.operation(subject, key)),
    }
  }

  private operation({ model }: Subject, key: string): ModelOperation {
    const { prng } = this
    const operation = prng.pick(["put", "put", "delete", "add", "add"] as const)
    const present = model.data.get(key)
    return {
      operation,
      condition: prng.chance(0.6)
        ? "none"
        : prng.pick(["versionEquals", "absent", "valueEquals"] as const),
      key,
      value: prng.pick([
        "",
        "0",
        "-0",
        "07",
        "12",
        "x",
        "9223372036854775807",
        "-9223372036854775808",
      ]),
      delta: prng.pick([1n, -1n, 0n, 5n, 2n ** 63n - 1n, -(2n ** 63n)]),
      expectedValue: prng.chance(0.7) ? (present?.value ?? "") : "12",
      expectedVersion: prng.chance(0.7) ? (present?.version ?? 0) : prng.int(0, 5),
      ttl:
        operation === "delete" || prng.chance(0.5) ? 0 : Math.floor(prng.logUniform(1, 3 * second)),
    }
  }

  private tick(subject: Subject): void {
    subject.model.tick(this.base)
    subject.apply(entryKinds.tick, encodeTick(this.base), [])
  }

  private clear(subject: Subject): void {
    const { boundsVersion } = subject.machine.descriptor
    if (this.prng.chance(0.3)) {
      subject.model.tick(this.base)
      const stale = encodeClear(this.base, { boundsVersion: boundsVersion + 1 })
      subject.apply(entryKinds.clear, stale, [])
      expect(subject.machine.changed).toBe("refused")
      return
    }
    subject.model.clear(this.base)
    subject.apply(entryKinds.clear, encodeClear(this.base, { boundsVersion }), [])
    expect(subject.machine.changed).toBe("clear")
  }

  private split(subject: Subject): void {
    const { boundsVersion, membersVersion, start } = subject.machine.descriptor
    const key = this.prng.pick(keys)
    const at = positionOf(key)
    const order = { boundsVersion, membersVersion, child: 10 + this.subjects.length, at }
    const data = encodeSplit(this.base, order)
    const fits = compareBytes(at, start) > 0 && subject.machine.contains(at)
    if (!fits || this.subjects.length >= 4) {
      if (fits) return
      subject.model.tick(this.base)
      subject.apply(entryKinds.split, data, [])
      expect(subject.machine.changed).toBe("refused")
      return
    }
    const right = subject.model.split(this.base, key)
    subject.apply(entryKinds.split, data, [])
    expect(subject.machine.changed).toBe("split")
    this.subjects.push(new Subject(subject.machine.child!, right, subject.engine))
    for (const each of this.subjects) each.flush()
  }
}

describe("a range's state machine beside a plain model", () => {
  test("pitfalls 32 and 33: every answer, every key and the chain, through retries, restarts, compactions and splits", () => {
    const met = new Map<string, number>()
    for (let seed = 1; seed <= 60; seed++) {
      const walk = new Walk(seed)
      for (let i = 0; i < 250; i++) walk.step()
      for (const [status, count] of walk.met) met.set(status, (met.get(status) ?? 0) + count)
    }
    for (const status of [
      "done",
      "conditionFalse",
      "absent",
      "rangeMoved",
      "expired",
      "notNumber",
    ]) {
      expect(met.get(status)).toBeGreaterThan(100)
    }
  })
})
