import { StorageCorruption } from "../disk/disk.ts"
import { compareBytes, emptyBytes } from "../lib/bytes.ts"
import type { Engine } from "../lsm/engine.ts"
import type { LogIndex, MonotonicMs, Position, ReplicaId } from "../types.ts"
import type { RangeMachine } from "./apply.ts"
import { compareReplicas } from "./chainMarks.ts"
import type { ChainMessage } from "./chainMessage.ts"
import { LiveSum, type SumSlice } from "./liveSum.ts"
import type { Replica } from "./replica.ts"

export interface SumSettings {
  /** A node has a slice of one of the ranges that it leads summed so often at most. */
  readonly sumMs: number
  readonly sumSliceBytes: number
  /** Read for sums at a tick, all of them together. */
  readonly sumBytesPerTick: number
}

export interface SumHost {
  readonly engine: Engine
  readonly sorted: ReadonlyArray<Replica>
  readonly settings: SumSettings
  tell(
    replica: Replica,
    to: ReplicaId,
    what: Pick<ChainMessage, "kind" | "index" | "chain" | "slice">,
  ): void
  /** These differ from most, at an index. */
  differ(
    replica: Replica,
    odd: ReadonlyArray<ReplicaId>,
    verdict: Pick<ChainMessage, "index" | "chain" | "slice">,
  ): void
  note(line: string): void
  report(error: StorageCorruption): void
}

/** What a leader wants to know of one of its ranges. */
interface Asked {
  readonly replica: Replica
  readonly machine: RangeMachine
  readonly index: LogIndex
  readonly slice: SumSlice
  readonly atMs: MonotonicMs
  readonly answers: Map<ReplicaId, number>
}

/** A sum that begins once its index is applied. */
interface Wanted {
  readonly index: LogIndex
  readonly slice: SumSlice
  /** Whom to tell. */
  readonly asker: ReplicaId
}

interface UnderWay {
  readonly replica: Replica
  readonly machine: RangeMachine
  readonly asker: ReplicaId
  readonly sum: LiveSum
}

/** What a replica said last, by its state. */
interface Said {
  readonly index: LogIndex
  readonly slice: SumSlice
  readonly sum: number
}

/** Each holds a state of the engine; whoever asks for more gets no answer, and asks again another time. */
const sumsMax = 4
/** A question whose answers do not come is given up after so many times `sumMs`. */
const patience = 4

/**
 * Replicas are compared by what they hold, beside the chain of what they wrote: a throttled sum over live keys at an agreed index (DESIGN section 3). It
 * finds what the chain cannot see, because it changed below it: bit rot behind a right checksum, a mistake of the engine, a lost write.
 *
 * A leader names a slice of one of its ranges, going round, and an index: the last one of its log, which most replicas have yet to apply, itself included
 * unless the range is idle. Each takes the engine's state when it has applied that very index, sums the slice over its next ticks, and tells. One that is past
 * the index already, or has too many sums under way, tells nothing; the slice's turn comes again.
 */
export class SumComparison {
  private readonly host: SumHost
  private asked: Asked | undefined
  /** One a replica at most: a later question takes the place of an earlier one. */
  private readonly wanted = new Map<Replica, Wanted>()
  private underWay: Array<UnderWay> = []
  private readonly cursors = new WeakMap<RangeMachine, Position>()
  private readonly said = new WeakMap<RangeMachine, Said>()
  private lastAskMs: MonotonicMs = 0
  /** Goes round over the ranges led here. */
  private lastRange = 0

  constructor(host: SumHost) {
    this.host = host
  }

  /** The replica has applied an entry. */
  applied(replica: Replica): void {
    if (this.wanted.size === 0) return
    const wanted = this.wanted.get(replica)
    if (wanted !== undefined) this.beginIfThere(replica, wanted)
  }

  /** Call at every tick. */
  tick(nowMs: MonotonicMs): void {
    if (this.underWay.length > 0) this.advance()
    for (const [replica, { index }] of this.wanted) {
      const isLate = replica.machine.appliedIndex > index
      if (isLate || !this.isHere(replica, replica.machine)) this.wanted.delete(replica)
    }
    const { sumMs } = this.host.settings
    if (nowMs - this.lastAskMs < sumMs) return
    const { asked } = this
    if (asked !== undefined && this.isOpen(asked) && nowMs - asked.atMs < patience * sumMs) return
    this.lastAskMs = nowMs
    this.ask(nowMs)
  }

  /** True while more answers may come. */
  private isOpen({ replica, machine, answers }: Asked): boolean {
    const isComplete = answers.size >= machine.descriptor.replicas.length
    return !isComplete && replica.isLeader && this.isHere(replica, machine)
  }

  private isHere(replica: Replica, machine: RangeMachine): boolean {
    return replica.machine === machine && this.host.sorted.includes(replica)
  }

  private ask(nowMs: MonotonicMs): void {
    this.asked = undefined
    const replica = this.nextLed()
    if (replica === undefined || this.underWay.length >= sumsMax) return
    const { machine } = replica
    const index = Math.max(machine.appliedIndex, replica.log.lastIndex)
    const from = this.cursors.get(machine) ?? emptyBytes
    const slice = { from, bytes: this.host.settings.sumSliceBytes }
    this.asked = { replica, machine, index, slice, atMs: nowMs, answers: new Map() }
    for (const { replica: to } of machine.descriptor.replicas) {
      if (to !== machine.replica) {
        this.host.tell(replica, to, { kind: "askSum", index, chain: 0, slice })
      }
    }
    this.want(replica, { index, slice, asker: machine.replica })
  }

  /** Of the ranges led here with other replicas to compare, the next one. */
  private nextLed(): Replica | undefined {
    const { sorted } = this.host
    const after = sorted.findIndex(({ range }) => range > this.lastRange)
    const first = after === -1 ? 0 : after
    for (let i = 0; i < sorted.length; i++) {
      const replica = sorted[(first + i) % sorted.length] as Replica
      if (!replica.isLeader || replica.machine.descriptor.replicas.length < 2) continue
      this.lastRange = replica.range
      return replica.differs === undefined ? replica : undefined
    }
    return undefined
  }

  private want(replica: Replica, wanted: Wanted): void {
    if (replica.machine.appliedIndex > wanted.index) return
    this.wanted.set(replica, wanted)
    this.beginIfThere(replica, wanted)
  }

  private beginIfThere(replica: Replica, { index, slice, asker }: Wanted): void {
    const { machine } = replica
    if (machine.appliedIndex < index) return
    this.wanted.delete(replica)
    if (machine.appliedIndex > index || this.underWay.length >= sumsMax) return
    // Its state is about to be replaced.
    if (replica.installing) return
    const sum = new LiveSum(this.host.engine, machine, slice)
    this.underWay.push({ replica, machine, asker, sum })
  }

  /** Reads on for all sums that are under way, the oldest first. */
  private advance(): void {
    let budget = this.host.settings.sumBytesPerTick
    const left: Array<UnderWay> = []
    for (const each of this.underWay) {
      const { replica, machine, sum } = each
      const isWanted = this.isHere(replica, machine) && replica.differs === undefined
      if (!isWanted || (budget > 0 && !this.goOn(sum, budget, (bytes) => (budget -= bytes)))) {
        sum.close()
        continue
      }
      if (!sum.isDone) {
        left.push(each)
        continue
      }
      sum.close()
      this.done(each)
    }
    this.underWay = left
  }

  /** False when the sum met damage: its blocks are reported, and repaired or replaced otherwise. */
  private goOn(sum: LiveSum, budget: number, spent: (bytes: number) => void): boolean {
    try {
      spent(sum.advance(budget))
      return true
    } catch (error) {
      if (!(error instanceof StorageCorruption)) throw error
      this.host.report(error)
      return false
    }
  }

  private done({ replica, machine, asker, sum: { index, slice, sum, next } }: UnderWay): void {
    this.said.set(machine, { index, slice, sum })
    if (asker !== machine.replica) {
      this.host.tell(replica, asker, { kind: "sum", index, chain: sum, slice })
      return
    }
    if (next === undefined) this.cursors.delete(machine)
    else this.cursors.set(machine, next)
    this.answered(replica, { from: asker, index, chain: sum, slice })
  }

  /** Its leader wants a sum. */
  isAsked(replica: Replica, { from, index, slice }: ChainMessage): void {
    if (slice === undefined || replica.isEmpty) return
    // A leader of before knew that it is to be replaced; this one may not.
    if (replica.differs === undefined) this.want(replica, { index, slice, asker: from })
    else this.host.tell(replica, from, { kind: "lost", index, chain: 0 })
  }

  /** True when this replica has said another sum of the same slice at the same index. */
  hasSaidOther({ machine }: Replica, { index, slice, chain }: ChainMessage): boolean {
    const said = this.said.get(machine)
    if (said === undefined || slice === undefined) return false
    return said.index === index && said.sum !== chain && isSame(said.slice, slice)
  }

  /** A replica of a range, this one maybe, has summed. */
  answered(
    replica: Replica,
    { from, index, chain, slice }: Pick<ChainMessage, "from" | "index" | "chain" | "slice">,
  ): void {
    const { asked } = this
    if (asked === undefined || slice === undefined || !replica.isLeader) return
    if (asked.replica !== replica || asked.machine !== replica.machine) return
    // An answer to an earlier question speaks of another slice, or of another index.
    if (asked.index !== index || !isSame(asked.slice, slice)) return
    const members = replica.machine.descriptor.replicas
    if (!members.some((place) => place.replica === from)) return
    asked.answers.set(from, chain)
    const verdict = compareReplicas(asked.answers, members.length)
    if (verdict._tag === "Equal") return
    if (verdict._tag === "Undecided") {
      if (asked.answers.size < members.length) return
      this.host.note(
        `range ${replica.range}: the live keys of its replicas differ at index ${index}, and no majority says which are right`,
      )
      return
    }
    for (const [id, sum] of asked.answers) {
      if (verdict.replicas.includes(id)) continue
      return this.host.differ(replica, verdict.replicas, { index, chain: sum, slice })
    }
  }
}

function isSame(left: SumSlice, right: SumSlice): boolean {
  return left.bytes === right.bytes && compareBytes(left.from, right.from) === 0
}
