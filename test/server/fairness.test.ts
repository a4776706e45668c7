import { describe, expect, test } from "bun:test"
import { utf8 } from "../../src/lib/bytes.ts"
import { hashPosition } from "../../src/lib/position.ts"
import { Prng } from "../../src/lib/prng.ts"
import { bootstrapDescriptors } from "../../src/server/bootstrap.ts"
import { plainRead, type Reply, type Request } from "../../src/server/requests.ts"
import { defaultSettings } from "../../src/server/settings.ts"
import { attemptStoreJob } from "../../src/server/storeJobs.ts"
import { StoreLoop } from "../../src/server/storeLoop.ts"
import { versionOfWall } from "../../src/server/versionClock.ts"
import { SimulatedDisk } from "../sim/simulatedDisk.ts"
import { command } from "./commands.ts"

const hot = [1, 2]
const others = [3, 4]
const perRange = 64
const budgetBytes = 3000
const content = "v".repeat(500)

type Kind = "put" | "get"

interface Asked {
  readonly range: number
  readonly kind: Kind
  readonly turn: number
}

/** A node with four ranges, of which two are asked for far more in each turn than a turn may do. */
class HotNode {
  /** Turns that each request of the other ranges took. */
  readonly turnsTaken: Record<Kind, Array<number>> = { put: [], get: [] }
  readonly refused: Array<number> = []
  hotAnswers = 0
  /** Of all ranges in one turn. */
  mostAnswers = 0
  private answers = 0
  private readonly disk = new SimulatedDisk()
  private readonly loop: StoreLoop
  private readonly keys = new Map<number, string>()
  private readonly asked = new Map<number, Asked>()
  private nowMs = 1000
  private turn = 0
  private token = 0

  constructor() {
    this.loop = StoreLoop.open({
      node: 1,
      disk: this.disk,
      prng: new Prng(1),
      settings: {
        ...defaultSettings,
        sleepTicks: 0,
        requestsPerRange: perRange,
        applyBytesPerTurn: budgetBytes,
        readBytesPerTurn: budgetBytes,
        entryBytes: 1000,
        journal: { ...defaultSettings.journal, segmentBytes: 4 * 1024 * 1024 },
        space: { reserveBytes: 0, lowFreeBytes: 0 },
      },
      descriptors: bootstrapDescriptors([1]),
      clock: this.clock,
    })
    for (const range of [...hot, ...others]) this.keys.set(range, this.keyOf(range))
    for (let i = 0; i < 3000; i++) this.pass()
  }

  private get clock() {
    return { monotonicMs: this.nowMs, wallMs: 1_700_000_000_000 + this.nowMs }
  }

  private keyOf(range: number): string {
    for (let i = 0; ; i++) {
      const position = hashPosition(1, utf8(`k${i}`))
      if (this.loop.replicas.get(range)?.machine.contains(position)) return `k${i}`
    }
  }

  ask(range: number, kind: Kind): void {
    const token = ++this.token
    this.asked.set(token, { range, kind, turn: this.turn })
    this.loop.request(kind === "put" ? this.put(range, token) : this.get(range, token))
  }

  private put(range: number, token: number): Request {
    const expiresAt = versionOfWall(this.clock.wallMs) + 60_000_000
    const ackedBelow = Math.max(1, token - 2000)
    const key = this.keys.get(range) as string
    const bytes = command(key, { sequence: token, ackedBelow, expiresAt, text: content })
    return { _tag: "Mutate", range, deadlineMs: 60_000, token, command: bytes }
  }

  private get(range: number, token: number): Request {
    const { boundsVersion } = this.loop.replicas.get(range)?.machine.descriptor ?? {}
    const position = hashPosition(1, utf8(this.keys.get(range) as string))
    const place = { range, boundsVersion: boundsVersion as number, position, deadlineMs: 60_000 }
    return { _tag: "Get", token, ...place, ...plainRead, level: "linearizable" }
  }

  pass(): void {
    this.nowMs++
    this.turn++
    this.answers = 0
    const output = this.loop.turn(this.clock)
    for (const reply of [...output.replies, ...this.loop.release(this.clock)]) this.note(reply)
    for (const job of output.jobs) this.loop.jobDone(job, attemptStoreJob(this.disk, job))
    if (output.journal === undefined) return
    const file = this.disk.open(output.journal.path)
    file.write(output.journal.bytes, output.journal.offset)
    file.sync()
    file.close()
    this.loop.journalDurable(output.journal)
  }

  private note(reply: Reply): void {
    const { range, kind, turn } = this.asked.get(reply.token) as Asked
    this.asked.delete(reply.token)
    const isRefused = reply._tag === "Refused"
    if (!isRefused) this.mostAnswers = Math.max(this.mostAnswers, ++this.answers)
    if (hot.includes(range) && !isRefused) this.hotAnswers++
    if (hot.includes(range)) return
    if (isRefused) this.refused.push(range)
    else this.turnsTaken[kind].push(this.turn - turn)
  }
}

/** The other ranges have one request out at a time while the hot ones are asked for `kinds` beyond its limit, turn by turn. */
function besideHot(kinds: ReadonlyArray<Kind>): HotNode {
  const node = new HotNode()
  for (const range of [...hot, ...others]) node.ask(range, "put")
  for (let i = 0; i < 20; i++) node.pass()
  node.turnsTaken.put.length = 0
  node.hotAnswers = 0
  for (let turn = 0; turn < 300; turn++) {
    for (const range of hot) {
      for (const kind of kinds) for (let i = 0; i < perRange; i++) node.ask(range, kind)
    }
    if (turn % 20 === 10)
      for (const range of others) node.ask(range, turn % 40 < 20 ? "put" : "get")
    node.pass()
  }
  return node
}

describe("ranges that are asked for more than a turn may do", () => {
  for (const kinds of [["put"], ["get"], ["put", "get"]] as ReadonlyArray<ReadonlyArray<Kind>>) {
    test(`by ${kinds.join(" and ")} leave the others their share of each turn`, () => {
      const node = besideHot(kinds)
      expect(node.refused).toEqual([])
      // All were answered, within a few turns each, while the hot ranges went on.
      expect(node.turnsTaken.put.length).toBe(8 * others.length)
      expect(node.turnsTaken.get.length).toBe(7 * others.length)
      // A put is proposed, written, then applied when its range is first in a turn, as each is once in so many turns as there are ranges.
      expect(Math.max(...node.turnsTaken.put)).toBeLessThanOrEqual(3 + hot.length + others.length)
      expect(Math.max(...node.turnsTaken.get)).toBeLessThanOrEqual(3)
      // Both budgets together.
      expect(node.mostAnswers).toBeLessThanOrEqual((2 * budgetBytes) / content.length)
      expect(node.hotAnswers).toBeGreaterThan(300)
    })
  }
})
