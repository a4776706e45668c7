import { assert } from "../../src/lib/assert.ts"
import { ByteReader } from "../../src/lib/byteReader.ts"
import { ByteWriter } from "../../src/lib/byteWriter.ts"
import { Prng } from "../../src/lib/prng.ts"
import { describeMessage } from "../../src/raft/describe.ts"
import { readMessage, writeMessage } from "../../src/raft/layout.ts"
import { isJoint, type Membership, stepTowards } from "../../src/raft/membership.ts"
import type { Entry, Message } from "../../src/raft/message.ts"
import { RaftNode, type RaftOptions } from "../../src/raft/raftNode.ts"
import { lastMembership, membersData } from "./members.ts"
import { TestReplica } from "./testReplica.ts"

export const tickMs = 30

export type RaftSettings = Omit<
  RaftOptions,
  "id" | "membership" | "storage" | "hardState" | "appliedIndex" | "prng" | "nowMs"
>

export const defaultSettings: RaftSettings = {
  electionTicksMin: 10,
  electionTicksMax: 20,
  heartbeatTicks: 2,
  voteSilenceMs: 300,
  leaseMs: 0,
  clockSlipMs: 20,
  preVote: true,
  checkQuorum: true,
  maxInflightAppends: 256,
  maxAppendBytes: 2 ** 20,
  maxCommittedBytes: 2 ** 20,
  maxUncommittedBytes: 16 * 2 ** 20,
}

/**
 * Replicas that a test moves by hand: messages wait in one list until they are delivered, in order
 * or not. Every message passes through its binary form.
 */
export class TestCluster {
  /** All replicas, members or not. */
  readonly ids: ReadonlyArray<number>
  /** In force at index 0. */
  readonly initial: Membership
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
    /** The first so many are voters at the start; else all. */
    readonly voters?: number
    readonly seed?: number
    readonly settings?: Partial<RaftSettings>
    readonly Node?: new (options: RaftOptions) => RaftNode
  }) {
    this.ids = Array.from({ length: options.nodes }, (_, i) => i + 1)
    const voters = this.ids.slice(0, options.voters ?? options.nodes)
    this.initial = { voters, outgoing: [], learners: [] }
    this.settings = { ...defaultSettings, ...options.settings }
    this.prng = new Prng(options.seed ?? 1)
    this.Node = options.Node ?? RaftNode
    this.replicas = this.ids.map((id) => new TestReplica(this, id))
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
    for (const other of this.ids) {
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
    replica.tick()
  }

  /** The same time passes everywhere, as each clock shows it. */
  passTime(durationMs: number): void {
    for (const replica of this.replicas) replica.passTime(durationMs)
  }

  /** Time passes for everyone, without ticks. */
  pass(durationMs: number): void {
    for (const replica of this.replicas) replica.nowMs += durationMs
  }

  /** Ticks everyone and delivers everything, as often as said. */
  run(ticks: number): void {
    for (let i = 0; i < ticks; i++) {
      for (const id of this.ids) this.tick(id)
      this.stabilize()
    }
  }

  propose(id: number, text: string): ReturnType<RaftNode["propose"]> {
    const index = this.node(id).propose(new TextEncoder().encode(text))
    this.replica(id).settle()
    return index
  }

  /** One step towards the voters and learners wanted; leaving joint follows by itself. */
  change(
    id: number,
    voters: ReadonlyArray<number>,
    learners: ReadonlyArray<number> = [],
  ): ReturnType<RaftNode["proposeMembership"]> {
    const { node } = this.replica(id)
    if (isJoint(node.membership)) return "pending"
    const next = stepTowards(node.membership, { voters, learners })
    const result = node.proposeMembership(next, membersData(next))
    this.replica(id).settle()
    return result
  }

  transfer(id: number, to: number): boolean {
    const accepted = this.node(id).transferLeadership(to)
    this.replica(id).settle()
    return accepted
  }

  /** With `stale` the leader has not looked at its clocks since its last input. */
  read(id: number, context: number, stale = false): boolean {
    const replica = this.replica(id)
    if (!stale) replica.node.observeClocks(replica.nowMs, replica.wallMs)
    const accepted = replica.node.readIndex(context)
    replica.settle()
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
    replica.baseMembership = this.initial
    const membership = lastMembership(state) ?? this.initial
    replica.durableLog.resetTo(snapshot.index, snapshot.term)
    replica.visibleLog.resetTo(snapshot.index, snapshot.term)
    replica.changing(() =>
      replica.node.snapshotInstalled(snapshot.index, snapshot.term, membership),
    )
  }
}
