import { describe, expect, test } from "bun:test"
import { emptyBytes, text, utf8 } from "../../src/lib/bytes.ts"
import { hashPosition, namespaceStart } from "../../src/lib/position.ts"
import { Prng } from "../../src/lib/prng.ts"
import { bootstrapDescriptors } from "../../src/server/bootstrap.ts"
import { plainRead, type Reply, type Request } from "../../src/server/requests.ts"
import { defaultSettings, type StoreSettings } from "../../src/server/settings.ts"
import { runStoreJob } from "../../src/server/storeJobs.ts"
import { StoreLoop, type StoreOutput } from "../../src/server/storeLoop.ts"
import { versionOfWall } from "../../src/server/versionClock.ts"
import { type BatchOperation, encodeBatch } from "../../src/wire/batch.ts"
import { commandStatuses, conditions, operations } from "../../src/wire/command.ts"
import { SimulatedDisk } from "../sim/simulatedDisk.ts"
import { command } from "./commands.ts"

const small: StoreSettings = {
  ...defaultSettings,
  retentionBytes: 0,
  retentionMs: 0,
  retainedEntries: 0,
  journal: { segmentBytes: 16 * 1024, tailCacheBytes: 1024 },
  engine: { memtableBytes: 4096 },
}

/** A cluster of one node with one range, whose journal writes are done when the test says so. */
class OneNode {
  readonly disk: SimulatedDisk
  readonly loop: StoreLoop
  readonly replies: Array<Reply> = []
  nowMs = 1000
  /** While true, journal writes stay under way. */
  holdsWrites = false
  private held: StoreOutput["journal"]
  private token = 0

  constructor(disk = new SimulatedDisk(), settings = small) {
    this.disk = disk
    this.loop = StoreLoop.open({
      node: 1,
      disk,
      prng: new Prng(1),
      settings,
      descriptors: bootstrapDescriptors([1], 1),
      clock: this.clock,
    })
    this.pass(1000)
  }

  private get clock() {
    return { monotonicMs: this.nowMs, wallMs: 1_700_000_000_000 + this.nowMs }
  }

  /** Turns until nothing is left to do at this moment. */
  settle(): void {
    for (let i = 0; i < 1000; i++) {
      const output = this.loop.turn(this.clock)
      this.replies.push(...output.replies, ...this.loop.release(this.clock))
      if (output.journal !== undefined) this.held = output.journal
      for (const job of output.jobs) this.loop.jobDone(job, runStoreJob(this.disk, job))
      if (this.held !== undefined && !this.holdsWrites) this.finishWrite()
      else if (!output.more && output.jobs.length === 0) return
    }
    throw new Error("the loop does not come to rest")
  }

  private finishWrite(): void {
    const write = this.held
    if (write === undefined) return
    this.held = undefined
    const file = this.disk.open(write.path)
    file.write(write.bytes, write.offset)
    if (write.sync) file.sync()
    file.close()
    this.loop.journalDurable(write)
  }

  pass(ms: number): void {
    for (let i = 0; i < ms; i += 30) {
      this.nowMs += 30
      this.settle()
    }
  }

  /** The answer to a request, or `undefined` when there is none yet. */
  ask(request: Partial<Request> & { readonly _tag: Request["_tag"] }): Reply | undefined {
    const token = ++this.token
    const position = hashPosition(1, utf8("a"))
    const fields = {
      range: 1,
      deadlineMs: 1000,
      boundsVersion: 1,
      ...plainRead,
      level: "linearizable",
      position,
    }
    this.loop.request({ ...fields, ...request, token } as Request)
    this.settle()
    return this.replies.find((reply) => reply.token === token)
  }

  put(key: string, value: string, sequence: number): Reply | undefined {
    const expiresAt = versionOfWall(this.clock.wallMs) + 60_000_000
    return this.ask({ _tag: "Mutate", command: command(key, { text: value, sequence, expiresAt }) })
  }

  get(key: string): string | undefined {
    const reply = this.ask({ _tag: "Get", position: hashPosition(1, utf8(key)) })
    if (reply?._tag !== "Value") throw new Error(`${reply?._tag}`)
    return reply.value === undefined ? undefined : text(reply.value)
  }
}

const refusalOf = (reply: Reply | undefined) =>
  reply?._tag === "Refused" ? reply.refusal._tag : reply?._tag

const batchPart = (key: string): BatchOperation => ({
  operation: operations.put,
  condition: conditions.none,
  expectedVersion: 0,
  ttl: 0,
  position: hashPosition(1, utf8(key)),
  value: utf8("v"),
  expectedValue: emptyBytes,
})

describe("the store loop", () => {
  test("a mutation is answered only when its journal write is durable", () => {
    const node = new OneNode()
    node.holdsWrites = true
    expect(node.put("a", "1", 1)).toBeUndefined()
    node.pass(300)
    expect(node.replies.some((reply) => reply._tag === "Mutated")).toBe(false)
    node.holdsWrites = false
    node.settle()
    const last = node.replies[node.replies.length - 1]
    expect(last).toMatchObject({ _tag: "Mutated", status: commandStatuses.done })
    expect(node.get("a")).toBe("1")
  })

  test("what was answered survives a power loss, whatever was flushed, and a retry has no second effect", () => {
    const disk = new SimulatedDisk()
    let node = new OneNode(disk)
    const prng = new Prng(7)
    const expected = new Map<string, string>()
    let lastVersion = 0
    for (let i = 1; i <= 400; i++) {
      const key = `k${prng.int(0, 30)}`
      const reply = node.put(key, `${i}`.padStart(60, "x"), i)
      expect(reply).toMatchObject({ _tag: "Mutated", status: commandStatuses.done })
      if (reply?._tag === "Mutated") {
        expect(reply.version).toBeGreaterThan(lastVersion)
        lastVersion = reply.version
        expected.set(key, `${i}`.padStart(60, "x"))
        // Time for the log to be released up to what is flushed.
        if (i % 8 === 0) node.pass(400)
        if (i % 40 === 0) {
          disk.crash(prng)
          node = new OneNode(disk)
          expect(node.put(key, "again", i)).toMatchObject({ version: lastVersion })
          for (const [known, value] of expected) expect(node.get(known)).toBe(value)
        }
      }
    }
    expect(node.loop.storage.engine.flushedThrough).toBeGreaterThan(3)
  })

  test("a journal whose replayed entries are flushed gives its segments back", () => {
    const node = new OneNode()
    for (let i = 1; i <= 600; i++) node.put(`k${i % 9}`, "x".repeat(100), i)
    node.pass(2000)
    expect(node.disk.list("journal").length).toBeLessThan(12)
  })

  test("a request that waits past its deadline is told so: a write that its outcome is unknown", () => {
    const node = new OneNode()
    node.holdsWrites = true
    node.put("a", "1", 1)
    node.pass(1200)
    expect(refusalOf(node.replies[node.replies.length - 1])).toBe("OutcomeUnknown")
    const answered = node.replies.length
    node.holdsWrites = false
    node.pass(300)
    expect(node.replies.length).toBe(answered)
    expect(node.get("a")).toBe("1")
  })

  test("requests from outside are checked before anything else happens", () => {
    const node = new OneNode()
    const position = hashPosition(1, utf8("a"))
    const moved = { _tag: "Get", boundsVersion: 9 } as const
    expect(refusalOf(node.ask(moved))).toBe("RangeMoved")
    expect(refusalOf(node.ask({ _tag: "Get", range: 77 }))).toBe("RangeMoved")
    expect(refusalOf(node.ask({ _tag: "Get", range: 0, position }))).toBe("RangeMoved")
    expect(refusalOf(node.ask({ _tag: "Get", range: 2, position }))).toBe("InvalidRequest")
    const long = hashPosition(1, new Uint8Array(2049).fill(97))
    expect(refusalOf(node.ask({ _tag: "Get", position: long }))).toBe("InvalidRequest")
    const short = namespaceStart(1)
    expect(refusalOf(node.ask({ _tag: "Get", position: short }))).toBe("InvalidRequest")
    const garbage = { _tag: "Mutate", command: new Uint8Array(60).fill(255) } as const
    expect(refusalOf(node.ask(garbage))).toBe("InvalidRequest")
    const large = command("a", { value: new Uint8Array(1024 * 1024 + 1) })
    expect(refusalOf(node.ask({ _tag: "Mutate", command: large }))).toBe("InvalidRequest")
    const batchOf = (...keys: ReadonlyArray<string>) => {
      const parts = keys.map((key) => batchPart(key))
      const value = encodeBatch(parts)
      const { position } = parts[0] as (typeof parts)[number]
      return command("", { operation: operations.batch, position, value })
    }
    const position2 = hashPosition(2, utf8("a"))
    const outside = command("", {
      operation: operations.batch,
      position,
      value: encodeBatch([batchPart("a"), { ...batchPart("a"), position: position2 }]),
    })
    const whole = command("", {
      operation: operations.batch,
      position: position2,
      value: encodeBatch([{ ...batchPart("a"), position: position2 }]),
    })
    expect(refusalOf(node.ask({ _tag: "Mutate", command: outside }))).toBe("InvalidRequest")
    expect(refusalOf(node.ask({ _tag: "Mutate", command: whole }))).toBe("RangeMoved")
    expect(refusalOf(node.ask({ _tag: "Mutate", command: batchOf("a", "a") }))).toBe(
      "InvalidRequest",
    )
    expect(refusalOf(node.ask({ _tag: "Mutate", command: batchOf("a", "b") }))).toBe("Mutated")
    expect(node.put("a", "1", 2)?._tag).toBe("Mutated")
  })

  test("a full disk refuses what takes space: puts, adds and batches", () => {
    const node = new OneNode()
    Object.defineProperty(node.loop.storage, "isFull", { get: () => true })
    const { add, batch, delete: remove } = operations
    const expiresAt = versionOfWall(1_700_000_000_000) + 90_000_000
    const ask = (fields: Parameters<typeof command>[1]) =>
      refusalOf(node.ask({ _tag: "Mutate", command: command("a", { expiresAt, ...fields }) }))
    expect(ask({ text: "1" })).toBe("DiskFull")
    expect(ask({ operation: add, value: new Uint8Array(8) })).toBe("DiskFull")
    expect(ask({ operation: batch, value: encodeBatch([batchPart("a")]) })).toBe("DiskFull")
    expect(ask({ operation: remove })).toBe("Mutated")
  })

  test("too many requests under way in a range are refused as overloaded", () => {
    const node = new OneNode(new SimulatedDisk(), { ...small, requestsPerRange: 3 })
    node.holdsWrites = true
    for (let i = 1; i <= 3; i++) expect(node.put("a", `${i}`, i)).toBeUndefined()
    expect(refusalOf(node.put("a", "4", 4))).toBe("Overloaded")
  })

  test("a scan gives pages in order of position, and says where to go on", () => {
    const node = new OneNode()
    for (let i = 0; i < 50; i++) node.put(`{t}${String(i).padStart(2, "0")}`, `${i}`, i + 1)
    const start = hashPosition(1, utf8("{t}"))
    const upper = new Uint8Array([...start.slice(0, 6), 0xff])
    const found: Array<string> = []
    let lower: Uint8Array | undefined = start
    while (lower !== undefined) {
      const page: Reply | undefined = node.ask({ _tag: "Scan", lower, upper, limit: 7 })
      if (page?._tag !== "Page") throw new Error(`${refusalOf(page)}`)
      for (const entry of page.entries) found.push(text(entry.position.slice(6)))
      lower = page.next
    }
    const all = Array.from({ length: 50 }, (_, i) => `{t}${String(i).padStart(2, "0")}`)
    expect(found).toEqual(all)
  })

  test("data whose journal is gone is refused: a voter without its votes does not come back", () => {
    const disk = new SimulatedDisk()
    const node = new OneNode(disk)
    for (let i = 1; i <= 100; i++) node.put(`k${i}`, "x".repeat(100), i)
    for (const name of disk.list("journal")) disk.remove(`journal/${name}`)
    expect(() => new OneNode(disk)).toThrow("no journal")
    expect(() => new OneNode(disk)).toThrow("no journal")
  })
})
