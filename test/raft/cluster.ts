import { assert } from "../../src/lib/assert.ts"
import { ByteReader } from "../../src/lib/byteReader.ts"
import { ByteWriter } from "../../src/lib/byteWriter.ts"
import { Prng } from "../../src/lib/prng.ts"
import { describeMessage, describeReady, describeRole } from "../../src/raft/describe.ts"
import { readMessage, writeMessage } from "../../src/raft/layout.ts"
import type { Entry, HardState, Message } from "../../src/raft/message.ts"
import { RaftNode, type RaftOptions } from "../../src/raft/raftNode.ts"
import type { ConfirmedRead, Ready } from "../../src/raft/ready.ts"
import { MemoryLog } from "./memoryLog.ts"

export const tickMs = 30

export type RaftSettings = Omit<
  RaftOptions,
  "id" | "voters" | "storage" | "hardState" | "appliedIndex" | "prng" | "nowMs"
>

export const defaultSettings: RaftSettings = {
  electionTicksMin: 10,
  electionTicksMax: 20,
  heartbeatTicks: 2,
  voteSilenceMs: 300,
  preVote: true,
  checkQuorum: true,
  maxInflightAppends: 256,
  maxAppendBytes: 2 ** 20,
  maxCommittedBytes: 2 ** 20,
  maxUncommittedBytes: 16 * 2 ** 20,
}

/**
 * One replica with a disk that loses what is not yet durable, and a state machine that is a list.
 */
export class TestReplica {
  readonly id: number
  private readonly cluster: TestCluster
  node: RaftNode
  up = true
  nowMs = 0
  /** What a crash leaves. */
  durableLog = new MemoryLog()
  durableState: HardState = { term: 0, vote: 0, commit: 0 }
  /** What the core reads: written at once, or only when durable. */
  visibleLog: MemoryLog
  writesVisibleAtOnce = false
  /** Writes wait for `persist`. */
  holdsWrites = false
  private pending: Array<Ready> = []
  /** Applied entries from 1, and as far as a crash finds them applied. */
  applied: Array<Entry> = []
  reads: Array<ConfirmedRead> = []
  readsLost: Array<number> = []
  wanted: Array<number> = []

  constructor(cluster: TestCluster, id: number) {
    this.cluster = cluster
    this.id = id
    this.visibleLog = this.durableLog.clone()
    this.node = this.start()
  }

  private start(): RaftNode {
    return new this.cluster.Node({
      ...this.cluster.settings,
      id: this.id,
      voters: this.cluster.voters,
      storage: this.visibleLog,
      hardState: this.durableState,
      appliedIndex: this.applied.length,
      prng: this.cluster.prng.fork(),
      nowMs: this.nowMs,
    })
  }

  get pendingWrites(): number {
    return this.pending.length
  }

  /**
   * Everything not durable is gone; of what was applied, the log prefix up to `keepApplied` is
   * kept.
   */
  crash(keepApplied = this.applied.length): void {
    assert(keepApplied >= this.durableLog.firstIndex - 1, "the state machine lost a snapshot")
    this.up = false
    this.pending = []
    this.applied.length = Math.min(this.applied.length, keepApplied)
    this.visibleLog = this.durableLog.clone()
  }

  restart(): void {
    this.up = true
    this.node = this.start()
  }

  /** Carries out what the core asks for, until it asks for nothing more. */
  settle(): void {
    while (this.up && this.node.hasReady()) this.take(this.node.ready())
  }

  private take(ready: Ready): void {
    for (const line of describeReady(this.id, ready)) this.cluster.trace(line)
    for (const message of ready.messages) this.cluster.send(message)
    if (this.writesVisibleAtOnce) this.visibleLog.append(ready.entries)
    const writes = ready.hardState !== undefined || ready.entries.length > 0
    if (writes || ready.messagesAfterPersist.length > 0) this.pending.push(ready)
    if (!this.holdsWrites) while (this.persist()) {}
    for (const entry of ready.committed) this.apply(entry)
    if (ready.committed.length > 0) this.node.applied(this.applied.length)
    this.reads.push(...ready.reads)
    this.readsLost.push(...ready.readsLost)
    this.wanted.push(...ready.snapshotsWanted)
    if (ready.snapshot !== undefined) this.cluster.install(this, ready.snapshot)
  }

  private apply(entry: Entry): void {
    assert(entry.index === this.applied.length + 1, `${entry.index} applied out of order`)
    assert(this.durableLog.term(entry.index) === entry.term, `${entry.index} applied, not durable`)
    this.applied.push(entry)
    this.cluster.everApplied[entry.index - 1] = entry
    this.cluster.onApply(this, entry)
  }

  /** The oldest write becomes durable; false when there is none. */
  persist(): boolean {
    const write = this.pending.shift()
    if (write === undefined) return false
    const { hardState, entries, messagesAfterPersist } = write
    if (hardState !== undefined) this.durableState = hardState
    this.durableLog.append(entries)
    if (!this.writesVisibleAtOnce) this.visibleLog.append(entries)
    const last = entries.at(-1)
    if (last !== undefined) this.node.persisted(last.index, last.term)
    for (const message of messagesAfterPersist) {
      if (message.to === this.id) this.stepTraced(message)
      else this.cluster.send(message)
    }
    return true
  }

  stepTraced(message: Message): void {
    this.changing(() => this.node.step(message, this.nowMs))
  }

  /** Runs an input, and traces the change of role that it makes. */
  changing(input: () => void): void {
    const before = describeRole(this.node)
    input()
    const after = describeRole(this.node)
    if (before !== after) this.cluster.trace(`${before} => ${after}`)
    this.cluster.onChange(this)
  }
}

/**
 * Replicas that a test moves by hand: messages wait in one list until they are delivered, in order
 * or not. Every message passes through its binary form.
 */
export class TestCluster {
  readonly voters: ReadonlyArray<number>
  readonly settings: RaftSettings
  readonly prng: Prng
  readonly Node: new (
    options: RaftOptions,
  ) => RaftNode
  readonly replicas: ReadonlyArray<TestReplica>
  network: Array<Message> = []
  /** What any replica ever applied, by index: snapshots outlive whoever made them. */
  readonly everApplied: Array<Entry> = []
  /** Links cut, as "from>to". */
  readonly cut = new Set<string>()
  onApply: (replica: TestReplica, entry: Entry) => void = () => {}
  onChange: (replica: TestReplica) => void = () => {}
  onSend: (message: Message) => void = () => {}
  private lines: Array<string> | undefined

  constructor(options: {
    readonly nodes: number
    readonly seed?: number
    readonly settings?: Partial<RaftSettings>
    readonly Node?: new (options: RaftOptions) => RaftNode
  }) {
    this.voters = Array.from({ length: options.nodes }, (_, i) => i + 1)
    this.settings = { ...defaultSettings, ...options.settings }
    this.prng = new Prng(options.seed ?? 1)
    this.Node = options.Node ?? RaftNode
    this.replicas = this.voters.map((id) => new TestReplica(this, id))
  }

  replica(id: number): TestReplica {
    const replica = this.replicas[id - 1]
    assert(replica !== undefined, `no replica ${id}`)
    return replica
  }

  node(id: number): RaftNode {
    return this.replica(id).node
  }

  get leaders(): ReadonlyArray<RaftNode> {
    return this.replicas.filter(({ up, node }) => up && node.role === "leader").map((r) => r.node)
  }

  // Trace

  traceTo(lines: Array<string> | undefined): void {
    this.lines = lines
  }

  trace(line: string): void {
    this.lines?.push(line)
  }

  // Network

  send(message: Message): void {
    const writer = new ByteWriter()
    writeMessage(writer, message)
    const reader = new ByteReader(writer.take())
    const received = readMessage(reader)
    reader.end()
    this.onSend(received)
    this.network.push(received)
  }

  private passes(message: Message): boolean {
    return !this.cut.has(`${message.from}>${message.to}`) && this.replica(message.to).up
  }

  /** Delivers the message at `position` of the list, or drops it at a cut link. */
  deliver(position = 0): void {
    const message = this.network.splice(position, 1)[0]
    assert(message !== undefined, "nothing to deliver")
    if (!this.passes(message)) {
      this.trace(`lost: ${describeMessage(message)}`)
      return
    }
    const replica = this.replica(message.to)
    replica.stepTraced(message)
    replica.settle()
  }

  /** Delivers until nothing moves any more. */
  stabilize(): void {
    for (const replica of this.replicas) replica.settle()
    for (let count = 0; this.network.length > 0; count++) {
      assert(count < 100_000, "the cluster does not come to rest")
      this.deliver()
    }
  }

  isolate(id: number): void {
    for (const other of this.voters) {
      this.cut.add(`${id}>${other}`)
      this.cut.add(`${other}>${id}`)
    }
  }

  heal(): void {
    this.cut.clear()
  }

  // Inputs

  campaign(id: number): void {
    const replica = this.replica(id)
    replica.changing(() => replica.node.campaign())
    replica.settle()
  }

  tick(id: number): void {
    const replica = this.replica(id)
    replica.nowMs += tickMs
    if (!replica.up) return
    replica.changing(() => replica.node.tick(replica.nowMs))
    replica.settle()
  }

  /** Time passes for everyone, without ticks. */
  pass(durationMs: number): void {
    for (const replica of this.replicas) replica.nowMs += durationMs
  }

  /** Ticks everyone and delivers everything, as often as said. */
  run(ticks: number): void {
    for (let i = 0; i < ticks; i++) {
      for (const id of this.voters) this.tick(id)
      this.stabilize()
    }
  }

  propose(id: number, text: string): number | "overloaded" | undefined {
    const index = this.node(id).propose(new TextEncoder().encode(text))
    this.replica(id).settle()
    return index
  }

  read(id: number, context: number): boolean {
    const accepted = this.node(id).readIndex(context)
    this.replica(id).settle()
    return accepted
  }

  /**
   * Makes `id` leader of a quiet cluster, known to everyone, its first entry committed everywhere.
   */
  elect(id: number): void {
    this.pass(this.settings.voteSilenceMs)
    this.campaign(id)
    this.stabilize()
    this.run(this.settings.heartbeatTicks)
    assert(this.node(id).role === "leader", `${id} was not elected`)
  }

  // Snapshots: the frames that carry one are outside the core, so here it just appears.

  /** The state of `source` at its applied index arrives whole at `target`. */
  sendSnapshot(source: number, target: number): void {
    const { node, durableLog } = this.replica(source)
    const index = node.appliedIndex
    this.send({
      _tag: "SnapshotOffer",
      from: source,
      to: target,
      term: node.term,
      index,
      indexTerm: durableLog.term(index) as number,
    })
  }

  install(replica: TestReplica, snapshot: { readonly index: number; readonly term: number }): void {
    const state = this.everApplied.slice(0, snapshot.index)
    assert(state.length === snapshot.index, `nobody made a snapshot at ${snapshot.index}`)
    // The barrier: all earlier writes are durable first.
    while (replica.persist()) {}
    replica.applied = state
    replica.durableLog.resetTo(snapshot.index, snapshot.term)
    replica.visibleLog.resetTo(snapshot.index, snapshot.term)
    replica.changing(() => replica.node.snapshotInstalled(snapshot.index, snapshot.term))
  }
}
