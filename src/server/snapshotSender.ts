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
export type SendOutcome = "installed" | "failed"

/**
 * One snapshot on its way to one follower, a frame at a time: the next leaves when the last is acknowledged, and a frame
 * without an answer is sent again. The range state and the session table are copied in the turn in which the engine snapshot is taken, so that
 * all frames speak of one applied index.
 *
 * Frame 0 holds the range state; the rest hold ordered pairs: sessions first, then the data interval.
 */
export class SnapshotSender {
  readonly range: RangeId
  readonly to: ReplicaId
  readonly index: LogIndex
  readonly id: number
  private readonly from: ReplicaId
  private readonly term: Term
  private readonly frameBytes: number
  private readonly engine: Engine
  private readonly snapshot: EngineSnapshot
  /** Where the data of the next frame begins; `undefined` when all was read. */
  private nextKey: Uint8Array | undefined
  private readonly upper: Uint8Array
  private sessions: ReadonlyArray<{ clientId: number; record: Uint8Array }>
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
    this.nextKey = dataKey(machine.descriptor.start)
    this.upper = dataEnd(machine.descriptor.end)
    this.frame = this.makeFrame(0, encodeRangeState(machine.state()), false)
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
    if (!ack.accepted) return "failed"
    this.heardAtMs = nowMs
    if (ack.sequence !== this.frame.sequence) return undefined
    if (this.frame.last) return "installed"
    this.frame = this.nextFrame()
    this.sentAtMs = nowMs
    return this.frame
  }

  /** Call now and then: the frame to send again, "failed" after a long silence, or `undefined`. */
  tick(
    nowMs: MonotonicMs,
    limits: { readonly snapshotResendMs: number; readonly snapshotGiveUpMs: number },
  ): SnapshotFrame | "failed" | undefined {
    if (nowMs - this.heardAtMs >= limits.snapshotGiveUpMs) return "failed"
    if (nowMs - this.sentAtMs < limits.snapshotResendMs) return undefined
    this.sentAtMs = nowMs
    return this.frame
  }

  /** Lets go of the engine's state. */
  close(): void {
    this.snapshot.release()
  }

  private nextFrame(): SnapshotFrame {
    const writer = new ByteWriter(Math.min(this.frameBytes, 1 << 16))
    for (const { clientId, record } of this.sessions) {
      writePair(writer, sessionKey(this.range, clientId), record)
    }
    this.sessions = []
    if (writer.length < this.frameBytes) this.readData(writer)
    return this.makeFrame(this.frame.sequence + 1, writer.take(), this.nextKey === undefined)
  }

  private readData(writer: ByteWriter): void {
    assert(this.nextKey !== undefined, "there is data to read")
    const iterator = this.engine.iterator({
      lower: this.nextKey,
      upper: this.upper,
      snapshot: this.snapshot,
    })
    this.nextKey = undefined
    try {
      while (iterator.next()) {
        const pairBytes = 8 + iterator.key.length + iterator.value.length
        if (writer.length > 0 && writer.length + pairBytes > this.frameBytes) {
          this.nextKey = iterator.key.slice()
          break
        }
        writePair(writer, iterator.key, iterator.value)
      }
    } finally {
      iterator.close()
    }
  }
}
