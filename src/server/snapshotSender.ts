import type { Engine, EngineSnapshot } from "../lsm/engine.ts"
import type { LogIndex, MonotonicMs, RangeId, ReplicaId, Term } from "../types.ts"
import type { RangeMachine } from "./apply.ts"
import { dataEnd, dataKey } from "./engineKeys.ts"
import type { SnapshotFrame, SnapshotFrameAck } from "./peerMessage.ts"
import { encodeRangeState } from "./rangeState.ts"
import { SnapshotFrames } from "./snapshotFrames.ts"

/** What became of an outgoing snapshot. */
/** `refused`: the follower does not want it. `failed`: it was silent for long. */
export type SendOutcome = "installed" | "refused" | "failed"

/**
 * One snapshot on its way to one follower, a frame at a time: the next leaves when the last is acknowledged, and is read meanwhile; a frame
 * without an answer is sent again. The range state and the session table are copied in the turn in which the engine snapshot is taken, so that
 * all frames speak of one applied index.
 *
 * The receiver says which frame it lacks: after a break of the connection it goes on from there, from frame 0 if the receiver began anew. So a sender that
 * was given up for silence is kept for a while, with the engine's state that it holds, and resumed (SnapshotExchange).
 *
 * Frame 0 holds the range state; the rest hold ordered pairs (SnapshotFrames).
 */
export class SnapshotSender {
  readonly range: RangeId
  readonly to: ReplicaId
  readonly index: LogIndex
  readonly id: number
  private readonly from: ReplicaId
  private term: Term
  private readonly snapshot: EngineSnapshot
  /** As of the state sent. */
  readonly boundsVersion: number
  private readonly state: Uint8Array
  private readonly frames: SnapshotFrames
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
    this.snapshot = options.engine.snapshot()
    this.boundsVersion = machine.descriptor.boundsVersion
    this.state = encodeRangeState(machine.state())
    this.frames = new SnapshotFrames({
      range: this.range,
      engine: options.engine,
      snapshot: this.snapshot,
      sessions: machine.sessions.all(),
      lower: dataKey(machine.descriptor.start),
      upper: dataEnd(machine.descriptor.end),
      frameBytes: options.frameBytes,
    })
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

  /** Reads on in the frame after the one under way, about so many bytes. True while there is more to read. */
  readAhead(bytes: number): boolean {
    const { sequence, last } = this.frame
    return !last && !this.frames.readAhead(sequence + 1, bytes)
  }

  private frameAt(sequence: number): SnapshotFrame {
    if (sequence === 0) return this.makeFrame(0, this.state, false)
    const { bytes, last } = this.frames.take(sequence)
    return this.makeFrame(sequence, bytes, last)
  }
}
