import type { StorageCorruption } from "../disk/disk.ts"
import type { Engine } from "../lsm/engine.ts"
import type { LogIndex, MonotonicMs, NodeId, RangeId, ReplicaId } from "../types.ts"
import type { RangeMachine } from "./apply.ts"
import { type ChainMark, ChainMarks, compareReplicas } from "./chainMarks.ts"
import type { ChainMessage } from "./chainMessage.ts"
import type { PeerMessage } from "./peerMessage.ts"
import type { Replica } from "./replica.ts"
import { SumComparison, type SumSettings } from "./sumComparison.ts"

export interface ComparisonSettings extends SumSettings {
  /** At every so many indexes the chain is remembered, for a comparison to be about. */
  readonly compareEntries: number
  /** A group is compared so often at most. */
  readonly compareMs: number
}

export interface ComparisonHost {
  readonly sorted: ReadonlyArray<Replica>
  readonly engine: Engine
  readonly settings: ComparisonSettings
  /** Damage that a sum has met. */
  report(error: StorageCorruption): void
  send(to: NodeId, message: PeerMessage): void
  /** A line for the operator, said once. */
  note(line: string): void
}

/** A replica that differs from most others of its range, by where it is. */
export interface OddReplica {
  readonly range: RangeId
  readonly node: NodeId
}

/** As many marks as a follower may lag behind and still be compared. */
const marksKept = 256

/** What is kept for one replica. */
class Compared {
  readonly marks: ChainMarks
  /** As leader: the mark that was asked about last, and what the others have there. */
  asked: ChainMark | undefined
  answers = new Map<ReplicaId, number>()
  /** As leader: those that were found to differ. */
  readonly odd = new Set<ReplicaId>()
  /** As follower: what the leader asked about, until it is applied here. */
  wanted: ChainMessage | undefined

  constructor(every: number) {
    this.marks = new ChainMarks({ every, capacity: marksKept })
  }
}

/**
 * Replicas are compared always (DESIGN section 3, invariant 4): at equal index the chain over all writes is equal. A leader that has passed a mark asks the
 * others what they have there; they answer when they have applied it. With a majority of the range's replicas in agreement, any other is the odd one out: it
 * goes out of service (`Replica.differs`), says so, and is to be replaced. A leader that is the odd one gives up leading.
 *
 * It finds what no checksum of stored bytes finds: an apply that was not deterministic, or memory that flipped a bit (RELIABILITY pitfall 33). What changed
 * after it was applied, and is read back with a right checksum, is found by the sums over live keys (sumComparison.ts), with the same consequences.
 */
export class Comparison {
  private readonly host: ComparisonHost
  /** By state: a snapshot that takes its place begins anew. */
  private readonly compared = new WeakMap<RangeMachine, Compared>()
  private readonly sums: SumComparison
  private lastAskMs: MonotonicMs = 0

  constructor(host: ComparisonHost) {
    this.host = host
    this.sums = new SumComparison({
      engine: host.engine,
      get sorted() {
        return host.sorted
      },
      settings: host.settings,
      tell: (replica, to, what) => this.tell(replica, to, what),
      differ: (replica, odd, { index, ...verdict }) => {
        this.differ(replica, odd, { kind: "sumDiffers", index, ...verdict })
      },
      note: (line) => host.note(line),
      report: (error) => host.report(error),
    })
  }

  private of({ machine }: Replica): Compared {
    let compared = this.compared.get(machine)
    if (compared === undefined) {
      compared = new Compared(this.host.settings.compareEntries)
      this.compared.set(machine, compared)
    }
    return compared
  }

  /** The replica has applied an entry. */
  applied(replica: Replica): void {
    this.sums.applied(replica)
    const { appliedIndex, chain } = replica.machine
    if (appliedIndex % this.host.settings.compareEntries !== 0) return
    const compared = this.of(replica)
    compared.marks.note(appliedIndex, chain)
    if (compared.wanted?.index === appliedIndex) this.answer(replica, compared.wanted)
  }

  /** Call at every tick. */
  tick(nowMs: MonotonicMs): void {
    this.sums.tick(nowMs)
    if (nowMs - this.lastAskMs < this.host.settings.compareMs) return
    this.lastAskMs = nowMs
    for (const replica of this.host.sorted) {
      if (!replica.isLeader || replica.differs !== undefined) continue
      const compared = this.of(replica)
      const mark = compared.marks.newest
      if (mark !== undefined && mark.index !== compared.asked?.index) this.ask(replica, mark)
    }
  }

  private ask(replica: Replica, mark: ChainMark): void {
    const compared = this.of(replica)
    const own = replica.machine.replica
    compared.asked = mark
    compared.answers = new Map([[own, mark.chain]])
    for (const place of replica.machine.descriptor.replicas) {
      if (place.replica !== own) this.tell(replica, place.replica, { kind: "ask", ...mark })
    }
  }

  private tell(
    replica: Replica,
    to: ReplicaId,
    what: Pick<ChainMessage, "kind" | "index" | "chain" | "slice">,
  ): void {
    const node = replica.nodeOf(to)
    if (node === undefined) return
    const { range, machine } = replica
    this.host.send(node, { _tag: "Chain", range, from: machine.replica, to, ...what })
  }

  received(replica: Replica, message: ChainMessage): void {
    if (message.kind === "answer") return this.answered(replica, message)
    if (message.kind === "lost") return this.lost(replica, message.from)
    if (message.kind === "sum") return this.sums.answered(replica, message)
    // Only who leads now may ask, or blame.
    if (replica.raft.leader !== message.from) return
    if (message.kind === "ask") return this.answer(replica, message)
    if (message.kind === "askSum") return this.sums.isAsked(replica, message)
    const isKnown =
      message.kind === "differs"
        ? this.of(replica).marks.find(message.index) !== undefined
        : this.sums.hasSaidOther(replica, message)
    if (isKnown) this.isOddOne(replica, message.index)
  }

  private answer(replica: Replica, asked: ChainMessage): void {
    const compared = this.of(replica)
    compared.wanted = undefined
    const mark = compared.marks.find(asked.index)
    if (mark !== undefined) this.tell(replica, asked.from, { kind: "answer", ...mark })
    else if (asked.index > replica.machine.appliedIndex) compared.wanted = asked
  }

  private answered(replica: Replica, { from, index, chain }: ChainMessage): void {
    const compared = this.of(replica)
    const { asked, answers } = compared
    if (!replica.isLeader || asked?.index !== index) return
    const members = replica.machine.descriptor.replicas
    if (!members.some((place) => place.replica === from)) return
    answers.set(from, chain)
    const verdict = compareReplicas(answers, members.length)
    if (verdict._tag === "Equal") return
    if (verdict._tag === "Undecided") {
      // Those that have not answered yet may decide it.
      if (answers.size === members.length) {
        this.host.note(
          `range ${replica.range}: its replicas differ at index ${index}, and no majority says which is right`,
        )
      }
      return
    }
    this.differ(replica, verdict.replicas, { kind: "differs", index, chain: asked.chain })
  }

  private differ(
    replica: Replica,
    replicas: ReadonlyArray<ReplicaId>,
    what: Pick<ChainMessage, "kind" | "index" | "chain" | "slice">,
  ): void {
    for (const odd of replicas) {
      this.of(replica).odd.add(odd)
      if (odd === replica.machine.replica) this.isOddOne(replica, what.index)
      else this.tell(replica, odd, what)
    }
  }

  /** A member can take no part any more (holeFilling.ts). Its removal needs the others alone, and a new replica has promised nothing. */
  private lost(replica: Replica, from: ReplicaId): void {
    const isMember = replica.machine.descriptor.replicas.some((place) => place.replica === from)
    if (replica.isLeader && isMember) this.of(replica).odd.add(from)
  }

  /** Replicas to be replaced, of the ranges that this node leads. */
  oddOnes(): ReadonlyArray<OddReplica> {
    return this.host.sorted.flatMap((replica) => {
      const odd = this.compared.get(replica.machine)?.odd
      if (odd === undefined || odd.size === 0 || !replica.isLeader) return []
      const { id, replicas } = replica.machine.descriptor
      return replicas
        .filter((place) => odd.has(place.replica))
        .map(({ node }) => ({ range: id, node }))
    })
  }

  private isOddOne(replica: Replica, index: LogIndex): void {
    const { range, machine } = replica
    if (replica.differs !== undefined) return
    const message = `range ${range} replica ${machine.replica} holds other data at index ${index} than most others: it is out of service until it is replaced`
    replica.differs = message
    this.host.note(message)
  }
}
