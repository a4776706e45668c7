import { expect } from "bun:test"
import { emptyBytes, text, utf8 } from "../../src/lib/bytes.ts"
import { hashPosition } from "../../src/lib/position.ts"
import { Prng } from "../../src/lib/prng.ts"
import { type AppliedEntry, RangeMachine } from "../../src/server/apply.ts"
import { contains, overlap } from "../../src/server/descriptors.ts"
import { dataEnd, dataKey, dataPrefixBytes } from "../../src/server/engineKeys.ts"
import type { PeerMessage } from "../../src/server/peerMessage.ts"
import type { Replica } from "../../src/server/replica.ts"
import { plainRead, type RangeRequest, type Reply } from "../../src/server/requests.ts"
import { defaultSettings, type StoreSettings } from "../../src/server/settings.ts"
import type { StoreParts } from "../../src/server/storeLoop.ts"
import { versionOfWall } from "../../src/server/versionClock.ts"
import type { RangeDescriptor, ReplicaPlace } from "../../src/types.ts"
import { type Command, conditions } from "../../src/wire/command.ts"
import { SimulatedDisk } from "../sim/simulatedDisk.ts"
import { command } from "./commands.ts"
import { LoopNode, outcomeOf } from "./loopNode.ts"

const wallOriginMs = 1_700_000_000_000

/** Small enough for a hundred keys to meet flushes, snapshots of several frames, and logs that end. */
export const smallSettings: StoreSettings = {
  ...defaultSettings,
  retentionBytes: 0,
  retentionMs: 0,
  retainedEntries: 0,
  snapshotFrameBytes: 2048,
  snapshotGiveUpMs: 2000,
  journal: { segmentBytes: 32_768, tailCacheBytes: 4096 },
  engine: { memtableBytes: 8192, blockBytes: 256, manifestBytes: 8192 },
  space: { reserveBytes: 0, lowFreeBytes: 0 },
  journalScrub: { bytesPerSecond: 0, sliceBytes: 1024 },
}

/** Nothing is flushed, so all that a restart finds is in the journal. */
export const unflushed = {
  retainedEntries: 1000,
  journal: { segmentBytes: 1 << 20, tailCacheBytes: 1 << 20 },
  engine: { memtableBytes: 1 << 20, blockBytes: 256, manifestBytes: 8192 },
}

/** What every replica's chain was after every entry, to be the same on all, also after a crash. */
export class ChainBook {
  private readonly chains = new Map<string, number>()
  entries = 0

  /** A state machine that writes itself down here; `applied` hears of each entry. */
  partsOf(applied: (machine: RangeMachine, entry: AppliedEntry) => void): StoreParts {
    const book = this
    class Recorded extends RangeMachine {
      override apply(entry: AppliedEntry, source?: RangeMachine): void {
        super.apply(entry, source)
        applied(this, entry)
        book.note(this)
        if (this.child !== undefined) book.note(this.child)
      }
    }
    return { RangeMachine: Recorded }
  }

  note({ descriptor, appliedIndex, chain, replica }: RangeMachine): void {
    const place = `range ${descriptor.id} at ${appliedIndex}`
    const known = this.chains.get(place)
    this.entries++
    if (known === undefined) this.chains.set(place, chain)
    else if (known !== chain) throw new Error(`${place}: replica ${replica} has another chain`)
  }
}

type Unsent<A> = A extends unknown ? Omit<A, "token" | "deadlineMs"> : never

/** Several store loops in one process, with a network that can be cut, and what was acknowledged to clients. */
export class LoopCluster {
  readonly nodes = new Map<number, LoopNode>()
  readonly disks = new Map<number, SimulatedDisk>()
  readonly founders: ReadonlyArray<number>
  readonly prng: Prng
  readonly settings: StoreSettings
  readonly book = new ChainBook()
  /** Values that a client was told of. */
  readonly acknowledged = new Map<string, string>()
  /** Messages that are lost: true = lost. */
  loses: (from: number, to: number, message: PeerMessage) => boolean = () => false
  private readonly applied: (node: number, machine: RangeMachine, entry: AppliedEntry) => void
  private sequence = 0
  private nowMs = 1000
  private wallAheadMs = 0

  constructor(options: {
    founders?: ReadonlyArray<number>
    settings?: Partial<StoreSettings>
    seed?: number
    /** Hears of each entry that a node applies. */
    applied?: (node: number, machine: RangeMachine, entry: AppliedEntry) => void
  }) {
    this.applied = options.applied ?? (() => {})
    this.founders = options.founders ?? [1, 2, 3]
    this.prng = new Prng(options.seed ?? 1)
    this.settings = { ...smallSettings, ...options.settings }
    for (const id of this.founders) this.start(id)
  }

  /** Starts a node over its disk, or a new one. */
  start(id: number): LoopNode {
    const disk = this.disks.get(id) ?? new SimulatedDisk()
    this.disks.set(id, disk)
    const { settings, nowMs, wallAheadMs, founders } = this
    const bootstrap = founders.includes(id)
    const parts = this.book.partsOf((machine, entry) => this.applied(id, machine, entry))
    const times = { nowMs, wallAheadMs }
    const node = new LoopNode({ disk, settings, ...times, id, nodes: founders, bootstrap, parts })
    this.nodes.set(id, node)
    return node
  }

  /** The power goes; what was not synced may be lost. */
  crash(id: number): void {
    this.node(id).loop.storage.close()
    this.nodes.delete(id)
    this.disks.get(id)?.crash(this.prng)
  }

  restart(id: number): LoopNode {
    this.crash(id)
    return this.start(id)
  }

  node(id: number): LoopNode {
    const node = this.nodes.get(id)
    if (node === undefined) throw new Error(`node ${id} is not up`)
    return node
  }

  replica(id: number, range: number): Replica | undefined {
    return this.nodes.get(id)?.loop.replicas.get(range)
  }

  pass(ms: number): void {
    for (let passed = 0; passed < ms; passed += 10) {
      this.nowMs += 10
      for (const node of [...this.nodes.values()]) {
        node.turn(10)
        node.someWork(this.prng)
        for (const { to, message } of node.sends.splice(0)) {
          if (!this.loses(node.id, to, message)) this.nodes.get(to)?.loop.receive(node.id, message)
        }
      }
    }
  }

  /** The wall clocks of all nodes, and of those that start later, go forward, as if all had slept. */
  leap(ms: number): void {
    this.wallAheadMs += ms
    for (const node of this.nodes.values()) node.wallAheadMs += ms
  }

  until(what: string, holds: () => boolean, limitMs = 30_000): void {
    for (let passed = 0; passed < limitMs; passed += 10) {
      if (holds()) return
      this.pass(10)
    }
    throw new Error(`not in ${limitMs} ms: ${what}`)
  }

  leader(range: number): LoopNode | undefined {
    for (const node of this.nodes.values()) {
      if (node.loop.replicas.get(range)?.leadsNoticed === true) return node
    }
    return undefined
  }

  untilLeader(range: number): LoopNode {
    this.until(`range ${range} has a leader`, () => this.leader(range) !== undefined)
    return this.leader(range) as LoopNode
  }

  descriptor(range: number): RangeDescriptor {
    return this.untilLeader(range).loop.replicas.get(range)?.machine.descriptor as RangeDescriptor
  }

  /** The range of a position, by the replica that leads it. */
  private holder(key: string): { node: LoopNode; descriptor: RangeDescriptor } | undefined {
    const position = hashPosition(1, utf8(key))
    for (const node of this.nodes.values()) {
      for (const replica of node.loop.replicas.values()) {
        const { descriptor } = replica.machine
        if (replica.leadsNoticed && contains(descriptor, position)) return { node, descriptor }
      }
    }
    return undefined
  }

  /** Waits for the answer; a node that dies meanwhile gives none. */
  answer(node: LoopNode, token: number): Reply | undefined {
    for (let passed = 0; passed < 12_000; passed += 10) {
      const reply = node.replies.find((each) => each.token === token)
      if (reply !== undefined) return reply
      if (this.nodes.get(node.id) !== node) return undefined
      this.pass(10)
    }
    throw new Error("a request was not answered")
  }

  /** Puts a key that is not there yet, without waiting: applied twice, or on other data, it leaves another chain. */
  claim(key: string): void {
    this.beginPut(key, "claimed", conditions.absent)
  }

  /** Begins a put, if some node leads the key's range. */
  beginPut(
    key: string,
    value: string,
    condition: Command["condition"] = conditions.none,
  ): (() => void) | undefined {
    const holder = this.holder(key)
    if (holder === undefined) return undefined
    const { node, descriptor } = holder
    const sequence = ++this.sequence
    const expiresAt = versionOfWall(wallOriginMs + this.nowMs) + 60_000_000
    const { boundsVersion, id: range } = descriptor
    const bytes = command(key, {
      text: value,
      sequence,
      expiresAt,
      boundsVersion,
      clientId: sequence,
      condition,
    })
    const token = node.request((token) => {
      return { _tag: "Mutate", token, range, deadlineMs: 3000, command: bytes }
    })
    return () => {
      const reply = node.replies.find((each) => each.token === token)
      if (reply !== undefined && outcomeOf(reply) === "Mutated") this.acknowledged.set(key, value)
    }
  }

  put(key: string, value: string): void {
    for (let i = 0; i < 500 && this.acknowledged.get(key) !== value; i++) {
      const settle = this.beginPut(key, value)
      for (let k = 0; k < 40 && this.acknowledged.get(key) !== value; k++) {
        this.pass(10)
        settle?.()
      }
    }
    expect(this.acknowledged.get(key)).toBe(value)
  }

  get(key: string): string | undefined {
    for (let i = 0; i < 300; i++) {
      const holder = this.holder(key)
      if (holder !== undefined) {
        const { node, descriptor } = holder
        const { id: range, boundsVersion } = descriptor
        const position = hashPosition(1, utf8(key))
        const place = { range, boundsVersion, position, deadlineMs: 1000 }
        const reply = this.answer(
          node,
          node.request((token) => {
            return { _tag: "Get", token, ...place, ...plainRead, level: "linearizable" }
          }),
        )
        if (reply?._tag === "Value") {
          return reply.value === undefined ? undefined : text(reply.value)
        }
      }
      this.pass(50)
    }
    throw new Error(`${key} could not be read`)
  }

  /** Begins a change at the leader, without waiting. */
  begin(change: Unsent<RangeRequest>, deadlineMs = 10_000): { node: LoopNode; token: number } {
    const node = this.untilLeader(change.range)
    const token = node.request((token) => ({ ...change, token, deadlineMs }) as RangeRequest)
    return { node, token }
  }

  change(change: Unsent<RangeRequest>, deadlineMs = 10_000): Reply | undefined {
    const { node, token } = this.begin(change, deadlineMs)
    return this.answer(node, token)
  }

  split(range: number, child: number, at?: string): Reply | undefined {
    const { boundsVersion } = this.descriptor(range)
    const position = at === undefined ? undefined : hashPosition(1, utf8(at))
    return this.change({ _tag: "Split", range, boundsVersion, child, at: position })
  }

  merge(range: number, source: number): Reply | undefined {
    const { boundsVersion } = this.descriptor(range)
    return this.change({ _tag: "Merge", range, boundsVersion, source })
  }

  members(range: number, replicas: ReadonlyArray<ReplicaPlace>): Reply | undefined {
    const { membersVersion } = this.descriptor(range)
    return this.change({ _tag: "ChangeMembers", range, membersVersion, replicas })
  }

  /** All replicas of every range agree, and are where their descriptor says; nothing is on its way. */
  get isSettled(): boolean {
    const byRange = new Map<number, Array<{ node: number; replica: Replica }>>()
    for (const node of this.nodes.values()) {
      if (node.loop.set.dying.size > 0 || node.loop.set.awaited.size > 0) return false
      for (const replica of node.loop.replicas.values()) {
        const list = byRange.get(replica.range) ?? []
        byRange.set(replica.range, [...list, { node: node.id, replica }])
      }
    }
    return [...byRange.values()].every((list) => {
      const leader = list.find(({ replica }) => replica.isLeader)?.replica
      if (leader === undefined) return false
      const { descriptor, appliedIndex, chain } = leader.machine
      if (list.length !== descriptor.replicas.length) return false
      return list.every(({ node, replica }) => {
        const { machine } = replica
        const place = descriptor.replicas.find((each) => each.replica === machine.replica)
        const agrees = machine.appliedIndex === appliedIndex && machine.chain === chain
        return place?.node === node && agrees && replica.raft.lastIndex === appliedIndex
      })
    })
  }

  /** Disjoint on every node, at every moment. */
  expectDisjoint(): void {
    for (const node of this.nodes.values()) {
      const held = node.loop.set.all.filter((replica) => !replica.isEmpty)
      for (const left of held) {
        for (const right of held) {
          if (left === right) continue
          expect(overlap(left.machine.descriptor, right.machine.descriptor)).toBe(false)
        }
      }
    }
  }

  /** In the end everything is there, everywhere alike. */
  expectWhole(): void {
    this.until("the cluster settles", () => this.isSettled, 60_000)
    this.expectDisjoint()
    for (const [key, value] of this.acknowledged) expect(this.get(key)).toBe(value)
    for (const node of this.nodes.values()) {
      node.loop.storage.engine.verify()
      this.expectNothingElse(node)
    }
  }

  /** Every key that the engine holds is in the range of a replica. */
  private expectNothingElse({ loop }: LoopNode): void {
    const held = [...loop.replicas.values()].filter((replica) => !replica.isEmpty)
    const lower = dataKey(emptyBytes)
    const iterator = loop.storage.engine.iterator({ lower, upper: dataEnd(emptyBytes) })
    while (iterator.next()) {
      const position = iterator.key.slice(dataPrefixBytes)
      expect(held.some(({ machine }) => contains(machine.descriptor, position))).toBe(true)
    }
    iterator.close()
  }
}

export function voter(node: number, replica = node): ReplicaPlace {
  return { node, replica, role: "voter" }
}

export function learner(node: number, replica = node): ReplicaPlace {
  return { node, replica, role: "learner" }
}
