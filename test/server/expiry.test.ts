import { describe, expect, test } from "bun:test"
import { emptyBytes, fromHex, text, utf8 } from "../../src/lib/bytes.ts"
import { hashPosition, namespaceStart } from "../../src/lib/position.ts"
import { Prng } from "../../src/lib/prng.ts"
import { Engine } from "../../src/lsm/engine.ts"
import { entryKinds } from "../../src/raft/message.ts"
import { type AppliedEntry, RangeMachine } from "../../src/server/apply.ts"
import { bootstrapDescriptors } from "../../src/server/bootstrap.ts"
import { expiryRules } from "../../src/server/engineFilters.ts"
import { dataEnd, dataKey, storeTrees } from "../../src/server/engineKeys.ts"
import { encodeEntryData } from "../../src/server/entryData.ts"
import { encodeTick } from "../../src/server/rangeEntries.ts"
import { noMerges, type RangeState } from "../../src/server/rangeState.ts"
import { type ReadContext, serveRead } from "../../src/server/reading.ts"
import type { Replica } from "../../src/server/replica.ts"
import { type GetRequest, plainRead, type ScanRequest } from "../../src/server/requests.ts"
import { defaultSettings, type StoreSettings } from "../../src/server/settings.ts"
import { type Sealable, Storage } from "../../src/server/storage.ts"
import { attemptStoreJob } from "../../src/server/storeJobs.ts"
import {
  expiringHeaderBytes,
  isExpired,
  recordExpiry,
  recordValue,
  recordVersion,
  valueHeaderBytes,
  writeExpiringHeader,
  writeValueHeader,
} from "../../src/server/valueRecord.ts"
import type { Consistency, Version } from "../../src/types.ts"
import { type CommandStatus, conditions, operations } from "../../src/wire/command.ts"
import { carryOut, flushAll } from "../lsm/harness.ts"
import { SimulatedDisk } from "../sim/simulatedDisk.ts"
import { command } from "./commands.ts"
import { MapValues } from "./mapValues.ts"

const [, descriptor] = bootstrapDescriptors([1], 1)
const applied = { appliedIndex: 1, appliedTerm: 1, rangeTime: 0, chain: 0 }
const zero = { ...applied, lastReplica: 1, ...noMerges }
const firstState: RangeState = { descriptor: descriptor!, replica: 1, ...zero }
const limits = { results: 10_000, clients: 100 }

describe("a record", () => {
  test("with an expiry has it after its flags, and is absent from then on", () => {
    const plain = new Uint8Array(valueHeaderBytes + 12)
    writeValueHeader(plain, 2 ** 50)
    // Bytes of a value that stand where an expiry would.
    plain.fill(1, valueHeaderBytes)
    expect(recordExpiry(plain)).toBe(0)
    expect(recordValue(plain).length).toBe(12)
    const expiring = new Uint8Array(expiringHeaderBytes + 2)
    writeExpiringHeader(expiring, 2 ** 50, 2 ** 51 + 1)
    expect([recordVersion(expiring), recordExpiry(expiring)]).toEqual([2 ** 50, 2 ** 51 + 1])
    expect(recordValue(expiring).length).toBe(2)
    expect([isExpired(expiring, 2 ** 51), isExpired(expiring, 2 ** 51 + 1)]).toEqual([false, true])
  })
})

/** A range over a real engine, with what a read of it comes to. */
function readable() {
  const engine = Engine.open(new SimulatedDisk(), "engine", {
    memtableBytes: 1 << 20,
    trees: storeTrees,
  })
  const machine = new RangeMachine({ state: firstState, engine, limits })
  let sequence = 0
  const apply = (kind: number, data: Uint8Array) =>
    machine.apply({ index: machine.appliedIndex + 1, term: 1, kind, data })
  const put = (key: string, base: Version, ttl: number) => {
    sequence++
    apply(entryKinds.commands, encodeEntryData(base, [command(key, { text: key, ttl, sequence })]))
  }
  const tick = (base: Version) => apply(entryKinds.tick, encodeTick(base))
  const replica = { isLeader: true, range: 1, raft: { term: 1 }, machine } as unknown as Replica
  const context = (clock: Version, settings: Partial<StoreSettings> = {}): ReadContext => ({
    engine,
    node: 1,
    replica,
    rangeTime: Math.max(clock, machine.rangeTime),
    clock,
    settings: { ...defaultSettings, ...settings },
  })
  const base = { token: 1, range: 1, deadlineMs: 1000, boundsVersion: 1, ...plainRead }
  const get = (key: string, level: Consistency, clock: Version) => {
    const request: GetRequest = {
      _tag: "Get",
      ...base,
      level,
      position: hashPosition(1, utf8(key)),
    }
    const reply = serveRead(context(clock), request)
    if (reply._tag === "Unripe") return reply.expiry
    if (reply._tag !== "Value") throw new Error(reply._tag)
    return reply.value === undefined ? "absent" : text(reply.value)
  }
  const scan = (level: Consistency, clock: Version, settings: Partial<StoreSettings> = {}) => {
    const bounds = { lower: namespaceStart(1), upper: namespaceStart(2), limit: 1000 }
    const request: ScanRequest = { _tag: "Scan", ...base, level, ...bounds }
    return serveRead(context(clock, settings), request)
  }
  return { machine, engine, put, tick, get, scan }
}

describe("reads and expiry", () => {
  test("a linearizable read goes by range time, and asks for a tick where the clock is past the expiry and range time is not", () => {
    const { put, tick, get } = readable()
    put("a", 1000, 500)
    expect(get("a", "linearizable", 1499)).toBe("a")
    expect(get("a", "linearizable", 1500)).toBe(1500)
    tick(1500)
    expect(get("a", "linearizable", 1500)).toBe("absent")
    // A leader whose clock is behind does not bring it back.
    expect(get("a", "linearizable", 10)).toBe("absent")
  })

  test("a bounded read goes by range time alone, a local one by its node's clock too", () => {
    const { put, tick, get } = readable()
    put("a", 1000, 500)
    expect([get("a", "bounded", 2000), get("a", "local", 2000)]).toEqual(["a", "absent"])
    expect([get("a", "bounded", 1499), get("a", "local", 1499)]).toEqual(["a", "a"])
    tick(1500)
    expect([get("a", "bounded", 0), get("a", "local", 0)]).toEqual(["absent", "absent"])
  })

  test("what has expired is on no page, and a page ends rather than pass over any number of it", () => {
    const { put, tick, scan } = readable()
    for (let i = 0; i < 50; i++) put(`gone${i}`, 1000 + i, 500)
    for (let i = 0; i < 5; i++) put(`kept${i}`, 1100 + i, 0)
    expect(scan("linearizable", 1600)._tag).toBe("Unripe")
    tick(1600)
    const page = scan("linearizable", 1600)
    const keys = page._tag === "Page" ? page.entries.map(({ value }) => text(value)).sort() : []
    expect(keys).toEqual(["kept0", "kept1", "kept2", "kept3", "kept4"])
    const short = scan("linearizable", 1600, { scanPageEntries: 10 })
    if (short._tag !== "Page") throw new Error(short._tag)
    expect(short.entries.length).toBeLessThan(5)
    expect(short.next).toBeDefined()
  })
})

describe("commands and expiry", () => {
  test("command j sees its own stamp: conditions, deletes and adds find absent what has expired by then", () => {
    const { machine, put } = readable()
    const outcomes = (base: Version, ...commands: ReadonlyArray<Uint8Array>) => {
      const data = encodeEntryData(base, commands)
      machine.apply({ index: machine.appliedIndex + 1, term: 1, kind: entryKinds.commands, data })
      const { count, statuses } = machine.outcomes
      return statuses.slice(0, count)
    }
    put("a", 1000, 102)
    const { absent: isAbsent } = conditions
    const whenAbsent = (sequence: number) =>
      command("a", { condition: isAbsent, clientId: 9, sequence })
    const remove = (sequence: number) =>
      command("a", { operation: operations.delete, clientId: 9, sequence })
    expect(outcomes(1100, whenAbsent(1), whenAbsent(2), whenAbsent(3))).toEqual([1, 1, 0])
    put("a", 2000, 102)
    expect(outcomes(2100, remove(4), remove(5))).toEqual([0, 2])
    put("a", 3000, 102)
    expect(outcomes(3102, remove(6))).toEqual([2])
  })
})

describe("compactions and expiry", () => {
  test("rules name ranges whose state is flushed, each with its own time, in order", () => {
    const { machine, engine } = readable()
    const other = new RangeMachine({
      state: {
        ...firstState,
        descriptor: { ...descriptor!, id: 7, start: namespaceStart(2), end: emptyBytes },
      },
      engine,
      limits,
    })
    expect(expiryRules([other, machine])).toEqual([])
    machine.flushedTime = 50
    other.flushedTime = 40
    const rules = expiryRules([other, machine])
    expect(rules.map(({ rule }) => rule._tag === "Expired" && rule.atOrBefore)).toEqual([50, 40])
    expect(rules[1]!.lower).toEqual(dataKey(namespaceStart(2)))
    expect(rules[1]!.upper).toEqual(dataEnd(emptyBytes))
  })

  test("values that never expire are kept, whatever their bytes", () => {
    const disk = new SimulatedDisk()
    const small = { memtableBytes: 4096, blockBytes: 256, trees: storeTrees }
    let machine: RangeMachine | undefined
    const filters = () => expiryRules(machine === undefined ? [] : [machine])
    const engine = Engine.open(disk, "engine", { ...small, filters })
    machine = new RangeMachine({ state: firstState, engine, limits })
    const looksExpired = new Uint8Array(20)
    looksExpired[0] = 1
    const fields = { value: looksExpired, ackedBelow: 0 }
    const put = (sequence: number, ttl: number, keys: number) => {
      const bytes = command(`k${sequence % keys}`, { ...fields, sequence, ttl })
      const data = encodeEntryData(1000 + sequence, [bytes])
      const index = machine!.appliedIndex + 1
      if (engine.needsSeal(data.length)) flushAll(engine, disk)
      machine!.apply({ index, term: 1, kind: entryKinds.commands, data })
    }
    for (let i = 1; i <= 2000; i++) put(i, i % 2 === 0 ? 0 : 1, 200)
    machine.flushedTime = machine.rangeTime
    for (let i = 2001; i <= 2600; i++) put(i, i % 2 === 0 ? 0 : 1, 100)
    flushAll(engine, disk)
    for (let job = engine.nextJob(0); job !== undefined; job = engine.nextJob(0))
      carryOut(engine, disk, job)
    const lower = dataKey(namespaceStart(1))
    let expired = 0
    let lasting = 0
    const iterator = engine.iterator({ lower, upper: dataEnd(namespaceStart(2)) })
    while (iterator.next()) {
      if (recordExpiry(iterator.value) === 0) lasting++
      else expired++
    }
    iterator.close()
    expect(lasting).toBe(100)
    expect(expired).toBeLessThan(80)
  })

  test("what compactions drop changes no answer, not even where a node starts again and applies its log once more", () => {
    let dropped = 0
    for (let seed = 1; seed <= 25; seed++) dropped += new Restarts(seed).run(400)
    expect(dropped).toBeGreaterThan(100)
  })
})

const tiny: StoreSettings = {
  ...defaultSettings,
  journal: { segmentBytes: 64 * 1024, tailCacheBytes: 1024 },
  engine: { memtableBytes: 2048, blockBytes: 128, manifestBytes: 2048 },
  space: { reserveBytes: 0, lowFreeBytes: 0 },
}

/** A range over a node's storage, whose log is kept beside it: it crashes, starts again from what is flushed, and must give the same answers again. */
class Restarts {
  private readonly prng: Prng
  /** The same range in an engine that drops nothing. */
  private readonly kept = new MapValues()
  private readonly shadow = new RangeMachine({ state: firstState, engine: this.kept, limits })
  private readonly disk = new SimulatedDisk()
  private storage: Storage
  private sealable: Sealable
  private readonly log: Array<{
    entry: AppliedEntry
    statuses: ReadonlyArray<CommandStatus>
    versions: ReadonlyArray<Version>
  }> = []
  private base = 1000
  private nowMs = 0
  /** Expired records that it still has, and that compactions have dropped. */
  private dropped = 0

  constructor(seed: number) {
    this.prng = new Prng(seed)
    this.storage = Storage.open(this.disk, tiny)
    this.sealable = this.begin(this.storage.newMachine(firstState))
  }

  private begin(machine: RangeMachine): Sealable {
    const sealable = { range: 1, machine, isEmpty: false, dirty: true, flushedIndex: 0 }
    this.storage.expireIn(() => [machine])
    return sealable
  }

  run(entries: number): number {
    for (let i = 0; i < entries; i++) {
      this.entry()
      this.jobs(this.prng.int(0, 4))
      if (this.prng.chance(0.02)) this.restart()
    }
    this.restart()
    return this.dropped
  }

  private entry(): void {
    const { prng } = this
    const { machine } = this.sealable
    this.base += Math.floor(prng.logUniform(1, 300))
    const commands = Array.from({ length: prng.int(1, 3) }, (_, j) => this.command(j))
    const data = encodeEntryData(this.base, commands)
    const index = machine.appliedIndex + 1
    const entry = { index, term: 1, kind: entryKinds.commands, data }
    this.base += commands.length
    this.shadow.apply(entry)
    const { count, statuses, versions } = this.shadow.outcomes
    this.apply(entry)
    expect(machine.outcomes.statuses.slice(0, count)).toEqual(statuses.slice(0, count))
    this.log.push({ entry, statuses: statuses.slice(0, count), versions: versions.slice(0, count) })
  }

  private command(place: number): Uint8Array {
    const { prng } = this
    const key = `k${prng.int(0, 30)}`
    const sequence = this.log.length * 4 + place + 1
    const fields = {
      sequence,
      ackedBelow: Math.max(0, sequence - 20),
      expiresAt: this.base + 1_000_000,
    }
    const condition = prng.pick([conditions.none, conditions.absent, conditions.absent])
    if (prng.chance(0.2)) return command(key, { ...fields, operation: operations.delete })
    const ttl = prng.chance(0.2) ? 0 : Math.floor(prng.logUniform(1, 4000))
    return command(key, { ...fields, condition, ttl, text: "v".repeat(30) })
  }

  private apply(entry: AppliedEntry): void {
    const { storage, sealable } = this
    while (!storage.engine.canWrite(entry.data.length)) this.jobs(1)
    if (storage.engine.needsSeal(entry.data.length)) storage.seal([sealable])
    sealable.dirty = true
    sealable.machine.apply(entry)
  }

  /** Work on files, so much of it as the workers came to. */
  private jobs(count: number): void {
    for (let i = 0; i < count; i++) {
      this.nowMs += 1000
      for (const job of this.storage.takeJobs(this.nowMs, this.nowMs)) {
        this.storage.jobDone(job, attemptStoreJob(this.disk, job))
      }
    }
  }

  private countDropped(): void {
    const { engine } = this.storage
    let dropped = 0
    for (const [key, record] of this.kept.records) {
      if (!isExpired(record, this.sealable.machine.rangeTime)) continue
      if (engine.get(fromHex(key)!) === undefined) dropped++
    }
    this.dropped = Math.max(this.dropped, dropped)
  }

  private restart(): void {
    const { chain, rangeTime } = this.sealable.machine
    this.countDropped()
    this.disk.loseAllUnsynced()
    this.storage = Storage.open(this.disk, tiny)
    const [machine] = this.storage.loadMachines()
    this.sealable = this.begin(machine ?? this.storage.newMachine(firstState))
    for (const { entry, statuses, versions } of this.log.slice(
      this.sealable.machine.appliedIndex - 1,
    )) {
      this.apply(entry)
      const { outcomes } = this.sealable.machine
      expect(outcomes.statuses.slice(0, outcomes.count)).toEqual([...statuses])
      expect(outcomes.versions.slice(0, outcomes.count)).toEqual([...versions])
    }
    expect(this.sealable.machine.chain).toBe(chain)
    expect(this.sealable.machine.rangeTime).toBe(rangeTime)
  }
}
