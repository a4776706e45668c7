import type { PeerMessage } from "../../src/server/peerMessage.ts"
import type { Replica } from "../../src/server/replica.ts"
import type { Reply } from "../../src/server/requests.ts"
import type { StoreLoop } from "../../src/server/storeLoop.ts"
import type { RangeId, Term } from "../../src/types.ts"
import { Durability } from "./durability.ts"
import type { NodeWorld, SimulatedNode } from "./simulatedNode.ts"
import { Violation } from "./violation.ts"

/** What is checked of one node at every step, without a part in what it does. */
export class NodeChecks {
  readonly durability: Durability
  private readonly node: SimulatedNode
  private readonly world: NodeWorld
  private readonly leading = new Map<RangeId, Term>()

  constructor(node: SimulatedNode, world: NodeWorld) {
    this.node = node
    this.world = world
    this.durability = new Durability(`n${node.id}`, world.observer)
  }

  /** The node leads some group, as far as its last turn has shown. */
  get leads(): boolean {
    return this.leading.size > 0
  }

  stopped(): void {
    this.leading.clear()
  }

  /** The node has recovered: compares that with what was durable, and listens in from here on. */
  recovered(loop: StoreLoop): void {
    const recovered = [...loop.replicas.values()].map((replica) => ({
      range: replica.range,
      appliedIndex: replica.machine.appliedIndex,
      appliedTerm: replica.machine.appliedTerm,
      log: replica.log,
    }))
    this.durability.checkRecovered(recovered)
    this.durability.tap(loop.storage.journal)
    // Handles given out before the tap are tapped too.
    for (const replica of loop.replicas.values()) {
      this.durability.tapGroup(replica.range, replica.machine.replica, replica.log)
      this.observeMachine(replica)
      const replaceMachine = replica.replaceMachine.bind(replica)
      replica.replaceMachine = (machine) => {
        replaceMachine(machine)
        this.node.counts.snapshotsInstalled++
        this.observeMachine(replica)
      }
    }
  }

  private observeMachine(replica: Replica): void {
    const { machine, range } = replica
    const { observer, trace } = this.world
    observer.chainAt(this.node.id, range, machine.appliedIndex, machine.chain)
    const apply = machine.apply.bind(machine)
    machine.apply = (entry) => {
      apply(entry)
      trace.record("apply", this.world.now, this.node.id * 1000 + range, entry.index, machine.chain)
      observer.appliedEntry(this.node.id, range, entry, {
        chain: machine.chain,
        replicaTerm: replica.raft.term,
      })
      if (!this.durability.holds(range, entry.index, entry.term)) {
        throw new Violation(
          "durability",
          `n${this.node.id} applies ${entry.index} of r${range} too early`,
        )
      }
    }
  }

  noteRoles(loop: StoreLoop): void {
    for (const replica of loop.replicas.values()) {
      const { raft, range } = replica
      if (raft.role !== "leader") {
        if (this.leading.size > 0) this.leading.delete(range)
        continue
      }
      if (this.leading.get(range) === raft.term) continue
      this.leading.set(range, raft.term)
      this.world.elected(this.node)
      this.world.observer.leads({
        range,
        replica: raft.id,
        term: raft.term,
        appliedIndex: replica.machine.appliedIndex,
        log: replica.log,
      })
    }
  }

  sent(loop: StoreLoop, message: PeerMessage): void {
    if (message._tag !== "Raft") return
    const { range, message: raft } = message
    if (raft._tag === "AppendResponse" && raft.accepted) {
      const inEngine = loop.replicas.get(range)?.machine.appliedIndex ?? 0
      this.durability.checkAppendAcknowledged(range, raft.index, raft.term, inEngine)
    } else if (raft._tag === "VoteResponse" && raft.granted && !raft.preVote) {
      this.durability.checkVoteGranted(range, raft.term, raft.to)
      this.world.observer.voted(range, raft.from, raft.term, raft.to)
    }
  }

  /** A mutation that was answered is durable on a majority. */
  acknowledged(reply: Extract<Reply, { _tag: "Mutated" }>): void {
    const { range, index } = reply.receipt
    const { world } = this
    const term = world.observer.appliedTerm(range, index)
    const descriptor = world.descriptors.find(({ id }) => id === range)
    if (descriptor === undefined) throw new Violation("assertion", `an answer names range ${range}`)
    let holders = 0
    for (const { node } of descriptor.replicas) {
      const holder = world.nodes.get(node) as SimulatedNode
      if (term !== undefined && holder.checks.holds(range, index, term)) holders++
    }
    if (2 * holders > descriptor.replicas.length) return
    throw new Violation(
      "durability",
      `n${this.node.id} answers for entry ${index} of r${range}, durable on ${holders} of ${descriptor.replicas.length}`,
    )
  }

  /** Whether the entry is durable here, in the log or in the engine. */
  holds(range: RangeId, index: number, term: Term): boolean {
    return this.durability.holds(range, index, term)
  }
}
