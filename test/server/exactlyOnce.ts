import { expect } from "bun:test"
import { text, utf8 } from "../../src/lib/bytes.ts"
import { int64Of, loadInt64 } from "../../src/lib/int64.ts"
import { hashPosition } from "../../src/lib/position.ts"
import { Prng } from "../../src/lib/prng.ts"
import type { Replica } from "../../src/server/replica.ts"
import { plainRead, type Reply } from "../../src/server/requests.ts"
import { defaultSettings, type StoreSettings } from "../../src/server/settings.ts"
import { versionOfWall } from "../../src/server/versionClock.ts"
import { commandStatuses, operations } from "../../src/wire/command.ts"
import { SimulatedDisk } from "../sim/simulatedDisk.ts"
import { command } from "./commands.ts"
import { LoopNode } from "./loopNode.ts"

const nodeIds = [1, 2, 3]
const counters = ["a", "b", "c", "d"]
const clients = 4
const underWayPerClient = 10
const wallOriginMs = 1_700_000_000_000
const boundsVersionOffset = 12

/** Little is kept for those who lag, and memtables are small: a node that was away gets a snapshot, and flushes are frequent. */
const settings: StoreSettings = {
  ...defaultSettings,
  retentionBytes: 0,
  retentionMs: 0,
  retainedEntries: 8,
  retentionTicks: 2,
  sessions: { results: 128, clients: 16 },
  snapshotFrameBytes: 512,
  journal: { segmentBytes: 16 * 1024, tailCacheBytes: 1024 },
  engine: { memtableBytes: 4096, blockBytes: 256, manifestBytes: 2048 },
  journalScrub: { bytesPerSecond: 0, sliceBytes: 1024 },
}

/** One add, from its first attempt until its client has seen an answer. */
interface Add {
  readonly client: number
  readonly sequence: number
  readonly counter: string
  readonly bytes: Uint8Array
  /** What the first answer said, seen by the client or not. */
  sum: bigint | undefined
  sentAtMs: number
}

export interface ExactlyOnceReport {
  readonly adds: number
  readonly attempts: number
  readonly repliesLost: number
  readonly crashes: number
  readonly snapshotFrames: number
  readonly splits: number
  readonly total: bigint
}

/**
 * Clients add 1 to counters on three nodes that crash, miss entries and get snapshots, and whose ranges split, while a good part of all answers and messages
 * is lost. A client tries again with the same bytes until it sees an answer. Every answer to an add must be the same, and all sums of a counter different, up to
 * the number of adds made to it.
 */
export class ExactlyOnce {
  private readonly prng: Prng
  private readonly nodes = new Map<number, LoopNode>()
  private readonly down = new Map<
    number,
    { readonly disk: SimulatedDisk; readonly untilMs: number }
  >()
  private nowMs = 1000
  private token = 0
  private readonly underWay = new Map<number, Add>()
  private readonly open = new Set<Add>()
  private readonly nextSequences = new Map<number, number>()
  private readonly sums = new Map<string, Set<bigint>>()
  private made = 0
  private attempts = 0
  private repliesLost = 0
  private crashes = 0
  private snapshotFrames = 0
  private splits = 0
  private nextChild = 100
  private readonly wantsSplits: boolean

  constructor(seed: number, options: { readonly splits: boolean }) {
    this.prng = new Prng(seed)
    this.wantsSplits = options.splits
    for (const id of nodeIds) this.start(id, new SimulatedDisk())
  }

  private start(id: number, disk: SimulatedDisk): void {
    this.nodes.set(id, new LoopNode({ disk, settings, nowMs: this.nowMs, id, nodes: nodeIds }))
  }

  run(adds: number): ExactlyOnceReport {
    while (this.made < adds || this.open.size > 0) {
      for (let client = 1; client <= clients; client++) this.make(client, adds)
      this.retry()
      this.disturb(this.made < adds)
      this.pass()
      if (this.nowMs > 3_600_000) throw new Error(`${this.open.size} adds were never answered`)
    }
    this.heal()
    let total = 0n
    for (const counter of counters) {
      const value = this.read(counter)
      const sums = this.sums.get(counter) ?? new Set()
      // As many distinct sums as adds, and the last of them is what is there: each took effect once.
      expect(BigInt(sums.size)).toBe(value)
      total += value
    }
    const { attempts, repliesLost, crashes, snapshotFrames, splits } = this
    return { adds: this.made, attempts, repliesLost, crashes, snapshotFrames, splits, total }
  }

  private make(client: number, adds: number): void {
    let own = [...this.open].filter((add) => add.client === client)
    while (own.length < underWayPerClient && this.made < adds) {
      const sequence = this.nextSequences.get(client) ?? 1
      this.nextSequences.set(client, sequence + 1)
      const ackedBelow = Math.min(sequence, ...own.map((add) => add.sequence))
      const counter = this.prng.pick(counters)
      const bytes = command(counter, {
        operation: operations.add,
        value: int64Of(1n),
        clientId: client,
        sequence,
        ackedBelow,
        expiresAt: versionOfWall(wallOriginMs + this.nowMs) + 110_000_000,
      })
      const add = { client, sequence, counter, bytes, sum: undefined, sentAtMs: -1000 }
      this.open.add(add)
      own = [...own, add]
      this.made++
    }
  }

  /** Sends what has no answer yet, from time to time anew: an answer may have been lost, or there was none. */
  private retry(): void {
    for (const add of this.open) {
      if (this.nowMs - add.sentAtMs < 60) continue
      const leader = this.leaderOf(add.counter)
      if (leader === undefined) continue
      const { node, replica } = leader
      const bytes = add.bytes.slice()
      const { boundsVersion } = replica.machine.descriptor
      new DataView(bytes.buffer).setUint32(boundsVersionOffset, boundsVersion, true)
      const token = ++this.token
      this.underWay.set(token, add)
      node.loop.request({
        _tag: "Mutate",
        range: replica.range,
        deadlineMs: 500,
        token,
        command: bytes,
      })
      add.sentAtMs = this.nowMs
      this.attempts++
    }
  }

  private leaderOf(key: string): { node: LoopNode; replica: Replica } | undefined {
    const position = hashPosition(1, utf8(key))
    for (const node of this.nodes.values()) {
      for (const replica of node.loop.replicas.values()) {
        if (replica.isLeader && replica.machine.contains(position)) return { node, replica }
      }
    }
    return undefined
  }

  private disturb(isBusy: boolean): void {
    const { prng } = this
    for (const [id, { disk, untilMs }] of [...this.down]) {
      if (untilMs > this.nowMs) continue
      this.down.delete(id)
      this.start(id, disk)
    }
    if (!isBusy) return
    if (this.down.size === 0 && prng.chance(0.03)) this.crash(prng.pick(nodeIds))
    if (this.wantsSplits && this.splits < 3 && prng.chance(0.02)) this.split()
  }

  private crash(id: number): void {
    const { disk } = this.nodes.get(id) as LoopNode
    if (this.prng.chance(0.3)) disk.kill()
    else disk.crash(this.prng)
    this.nodes.delete(id)
    this.crashes++
    const away = this.prng.chance(0.7) ? 20 : this.prng.int(500, 3000)
    this.down.set(id, { disk, untilMs: this.nowMs + away })
  }

  private split(): void {
    const counter = this.prng.pick(counters)
    const leader = this.leaderOf(counter)
    if (leader === undefined) return
    const { id: range, boundsVersion, start } = leader.replica.machine.descriptor
    const at = hashPosition(1, utf8(counter))
    if (Buffer.compare(at, start) <= 0) return
    const child = this.nextChild++
    const order = { _tag: "Split", range, boundsVersion, at, child, deadlineMs: 2000 } as const
    leader.node.loop.request({ ...order, token: ++this.token })
  }

  private pass(): void {
    this.nowMs += 10
    for (const node of this.nodes.values()) {
      node.turn(10)
      node.someWork(this.prng)
      for (const reply of node.replies.splice(0)) this.answer(reply)
      for (const { to, message } of node.sends.splice(0)) {
        if (message._tag === "SnapshotFrame") this.snapshotFrames++
        if (!this.prng.chance(0.01)) this.nodes.get(to)?.loop.receive(node.id, message)
      }
    }
  }

  private answer(reply: Reply): void {
    if (reply._tag === "Changed") this.splits++
    const add = this.underWay.get(reply.token)
    this.underWay.delete(reply.token)
    if (add === undefined || reply._tag !== "Mutated") return
    const { rangeMoved, overloaded, done } = commandStatuses
    if (reply.status === rangeMoved || reply.status === overloaded) return
    // A later copy of what was answered is refused once its client has moved on.
    if (reply.status !== done && !this.open.has(add)) return
    expect(reply.status).toBe(done)
    const sum = loadInt64(reply.value as Uint8Array)
    if (add.sum === undefined) this.noteSum(add, sum)
    expect(sum).toBe(add.sum as bigint)
    if (this.prng.chance(0.4)) this.repliesLost++
    else this.open.delete(add)
  }

  private noteSum(add: Add, sum: bigint): void {
    add.sum = sum
    const sums = this.sums.get(add.counter) ?? new Set()
    this.sums.set(add.counter, sums)
    expect(sums.has(sum)).toBe(false)
    sums.add(sum)
  }

  /** All nodes come back, and all that is under way ends. */
  private heal(): void {
    for (let i = 0; i < 400 || this.down.size > 0; i++) {
      this.disturb(false)
      this.pass()
    }
  }

  private read(counter: string): bigint {
    for (let i = 0; i < 200; i++) {
      const leader = this.leaderOf(counter)
      if (leader !== undefined) {
        const { node, replica } = leader
        const { boundsVersion } = replica.machine.descriptor
        const token = ++this.token
        const position = hashPosition(1, utf8(counter))
        const get = {
          _tag: "Get",
          level: "linearizable",
          boundsVersion,
          position,
          ...plainRead,
        } as const
        node.loop.request({ ...get, range: replica.range, deadlineMs: 1000, token })
        const reply = this.replyTo(node, token)
        if (reply?._tag === "Value") return BigInt(text(reply.value ?? utf8("0")))
      }
      this.pass()
    }
    throw new Error(`${counter} cannot be read`)
  }

  private replyTo(node: LoopNode, token: number): Reply | undefined {
    for (let i = 0; i < 100; i++) {
      const reply = node.replies.find((each) => each.token === token)
      if (reply !== undefined) return reply
      this.nowMs += 10
      for (const each of this.nodes.values()) {
        each.turn(10)
        each.rest()
        for (const { to, message } of each.sends.splice(0)) {
          this.nodes.get(to)?.loop.receive(each.id, message)
        }
      }
    }
    return undefined
  }
}
