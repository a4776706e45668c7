import { assert } from "../lib/assert.ts"
import { ByteWriter } from "../lib/byteWriter.ts"
import type { Engine, EngineSnapshot } from "../lsm/engine.ts"
import type { LogIndex, MonotonicMs, RangeId, ReplicaId, Term } from "../types.ts"
import type { RangeMachine } from "./apply.ts"
import { dataEnd, dataKey, sessionKey } from "./engineKeys.ts"
import type { SnapshotFrame, SnapshotFrameAck } from "./peerMessage.ts"
import { encodeRangeState } from "./rangeState.ts"
import { writePair } from "./spill.ts"

/** What became of an outgoing snapshot. */
/** `refused`: the follower does not want it. `failed`: it was silent for long. */
export type SendOutcome = "installed" | "refused" | "failed"

/**
 * One snapshot on its way to one follower, a frame at a time: the next leaves when the last is acknowledged, and a frame
 * without an answer is sent again. The range state and the session table are copied in the turn in which the engine snapshot is taken, so that
 * all frames speak of one applied index.
 *
 * The receiver says which frame it lacks: after a break of the connection it goes on from there, from frame 0 if the receiver began anew. So a sender that
 * was given up for silence is kept for a while, with the engine's state that it holds, and resumed (SnapshotExchange).
 *
 * Frame 0 holds the range state; the rest hold ordered pairs: sessions first, then the data interval.
 */
export class SnapshotSender {
  readonly range: RangeId
  readonly to: ReplicaId
  readonly index: LogIndex
  readonly id: number
  private readonly from: ReplicaId
  private term: Term
  private readonly frameBytes: number
  private readonly engine: Engine
  private readonly snapshot: EngineSnapshot
  /** As of the state sent. */
  readonly boundsVersion: number
  private readonly state: Uint8Array
  /** Where the data of each frame from 1 on begins, as far as it was read; `undefined` stands for the end. */
  private readonly starts: Array<Uint8Array | undefined>
  private readonly upper: Uint8Array
  private readonly sessions: ReadonlyArray<{ clientId: number; record: Uint8Array }>
  private frame: SnapshotFrame
  private sentAtMs: MonotonicMs
  private heardAtMs: MonotonicMs

  constructor(options: {
    id: number
    machine: RangeMachine
    engine: Engine
    to: ReplicaId
    term: Term
    frameBytes: number
    nowMs: MonotonicMs
  }) {
    const { machine } = options
    this.id = options.id
    this.range = machine.descriptor.id
    this.from = machine.replica
    this.to = options.to
    this.term = options.term
    this.index = machine.appliedIndex
    this.frameBytes = options.frameBytes
    this.engine = options.engine
    this.snapshot = options.engine.snapshot()
    this.sessions = machine.sessions.all()
    this.boundsVersion = machine.descriptor.boundsVersion
    this.state = encodeRangeState(machine.state())
    this.starts = [undefined, dataKey(machine.descriptor.start)]
    this.upper = dataEnd(machine.descriptor.end)
    this.frame = this.frameAt(0)
    this.sentAtMs = options.nowMs
    this.heardAtMs = options.nowMs
  }

  /** The frame under way. */
  current(): SnapshotFrame {
    return this.frame
  }

  private makeFrame(sequence: number, bytes: Uint8Array, last: boolean): SnapshotFrame {
    return {
      _tag: "SnapshotFrame",
      range: this.range,
      from: this.from,
      to: this.to,
      term: this.term,
      snapshot: this.id,
      sequence,
      last,
      bytes,
    }
  }

  /** Takes an answer: the next frame to send, an outcome, or `undefined` for an answer to something else. */
  acknowledged(ack: SnapshotFrameAck, nowMs: MonotonicMs): SnapshotFrame | SendOutcome | undefined {
    if (ack.snapshot !== this.id || ack.from !== this.to) return undefined
    if (!ack.accepted) return "refused"
    this.heardAtMs = nowMs
    const { sequence, last } = this.frame
    if (ack.sequence !== sequence) return undefined
    const { next } = ack
    if (next > sequence && last) return "installed"
    if (next === sequence) return undefined
    // It speaks of another stream of the same number, from before a restart of this side.
    if (next > sequence + 1) return "refused"
    this.frame = this.frameAt(next)
    return this.frame
  }

  /** The frame under way leaves now. */
  sent(nowMs: MonotonicMs): void {
    this.sentAtMs = nowMs
  }

  /** Goes on after a silence: the frame under way is sent again, and the answer says from where to go on. */
  resume(term: Term, nowMs: MonotonicMs): SnapshotFrame {
    this.term = term
    this.frame = { ...this.frame, term }
    this.heardAtMs = nowMs
    return this.frame
  }

  /** Call now and then: the frame to send again, "failed" after a long silence, or `undefined`. */
  tick(
    nowMs: MonotonicMs,
    limits: { readonly snapshotResendMs: number; readonly snapshotGiveUpMs: number },
  ): SnapshotFrame | "failed" | undefined {
    if (nowMs - this.heardAtMs >= limits.snapshotGiveUpMs) return "failed"
    if (nowMs - this.sentAtMs < limits.snapshotResendMs) return undefined
    return this.frame
  }

  /** Lets go of the engine's state. */
  close(): void {
    this.snapshot.release()
  }

  private frameAt(sequence: number): SnapshotFrame {
    if (sequence === 0) return this.makeFrame(0, this.state, false)
    const writer = new ByteWriter(Math.min(this.frameBytes, 1 << 16))
    if (sequence === 1) {
      for (const { clientId, record } of this.sessions) {
        writePair(writer, sessionKey(this.range, clientId), record)
      }
    }
    const start = this.starts[sequence]
    assert(start !== undefined, () => `frame ${sequence} has a beginning`)
    const isFull = writer.length >= this.frameBytes
    const next = isFull ? start : this.readData(writer, start)
    this.starts[sequence + 1] = next
    return this.makeFrame(sequence, writer.take(), next === undefined)
  }

  /** Returns where the next frame begins. */
  private readData(writer: ByteWriter, lower: Uint8Array): Uint8Array | undefined {
    const { upper, snapshot } = this
    const iterator = this.engine.iterator({ lower, upper, snapshot })
    try {
      while (iterator.next()) {
        const pairBytes = 8 + iterator.key.length + iterator.value.length
        if (writer.length > 0 && writer.length + pairBytes > this.frameBytes) {
          return iterator.key.slice()
        }
        writePair(writer, iterator.key, iterator.value)
      }
      return undefined
    } finally {
      iterator.close()
    }
  }
}
