import { ByteWriter } from "../lib/byteWriter.ts"
import { crc32 } from "../lib/checksum.ts"
import type { MonotonicMs, RangeId, ReplicaId, Term } from "../types.ts"
import { stateKey } from "./engineKeys.ts"
import type { SnapshotFrame, SnapshotFrameAck } from "./peerMessage.ts"
import { decodeRangeState, encodeRangeState, type RangeState } from "./rangeState.ts"
import { spillDirectory, writePair } from "./spill.ts"
import type { StoreJob } from "./storeJobs.ts"

/** What the loop must do about a frame. */
export type FrameStep =
  | { readonly _tag: "Spill"; readonly job: StoreJob }
  | { readonly _tag: "Answer"; readonly ack: SnapshotFrameAck }
  | { readonly _tag: "Ignore" }

/**
 * A snapshot on its way in. Each frame is spilled to a file before it is acknowledged, so that memory holds one frame. When the last one is
 * spilled, `complete` holds: the loop offers the snapshot to the core and, if it is wanted, ingests it behind the barrier.
 * The last frame is acknowledged only once the snapshot is installed.
 */
export class SnapshotReceiver {
  readonly range: RangeId
  readonly from: ReplicaId
  readonly to: ReplicaId
  /** Of the leader, as it said last. */
  term: Term
  readonly id: number
  readonly path: string
  /** With this replica's own id. */
  readonly state: RangeState
  /** When a frame came last. */
  heardAtMs: MonotonicMs = 0
  private expected = 0
  private writing: SnapshotFrame | undefined
  private writtenBytes = 0
  /** `crc32` of all that was spilled. */
  checksum = 0
  private lastSpilled: SnapshotFrame | undefined
  /** True from the moment the core has been asked. */
  offered = false

  private constructor(frame: SnapshotFrame, state: RangeState) {
    this.range = frame.range
    this.from = frame.from
    this.to = frame.to
    this.term = frame.term
    this.id = frame.snapshot
    this.path = `${spillDirectory}/${frame.range}-${frame.to}.spill`
    this.state = { ...state, replica: frame.to }
  }

  /** Begins with frame 0. Throws `MalformedBytes`. */
  static begin(frame: SnapshotFrame): SnapshotReceiver {
    return new SnapshotReceiver(frame, decodeRangeState(frame.bytes))
  }

  get complete(): boolean {
    return this.lastSpilled?.last === true
  }

  /** True for a frame of the stream that this receiver takes. */
  isOf(frame: SnapshotFrame): boolean {
    return frame.snapshot === this.id && frame.from === this.from
  }

  take(frame: SnapshotFrame): FrameStep {
    this.term = Math.max(this.term, frame.term)
    if (this.writing !== undefined) return { _tag: "Ignore" }
    if (frame.sequence < this.expected) {
      // A repeat. While the last frame is being installed, answering for the one before tells that this side is alive.
      return { _tag: "Answer", ack: this.ack(this.complete ? this.expected - 2 : frame.sequence) }
    }
    // The sender knows of an earlier life of this stream: it is told where to go on.
    if (frame.sequence > this.expected) return { _tag: "Answer", ack: this.ack(frame.sequence) }
    this.writing = frame
    const bytes = frame.sequence === 0 ? this.statePair() : frame.bytes
    const offset = this.writtenBytes
    this.writtenBytes += bytes.length
    this.checksum = crc32(bytes, this.checksum)
    return { _tag: "Spill", job: { _tag: "Spill", path: this.path, offset, bytes } }
  }

  private statePair(): Uint8Array {
    const writer = new ByteWriter(256)
    writePair(writer, stateKey(this.range), encodeRangeState(this.state))
    return writer.take()
  }

  /** The frame under way is in the file. Returns its acknowledgement, unless it was the last. */
  spilled(): SnapshotFrameAck | undefined {
    const frame = this.writing
    if (frame === undefined) return undefined
    this.writing = undefined
    this.lastSpilled = frame
    this.expected = frame.sequence + 1
    return frame.last ? undefined : this.ack(frame.sequence)
  }

  /** The acknowledgement of the last frame. */
  finished(): SnapshotFrameAck {
    return this.ack(this.expected - 1)
  }

  private ack(sequence: number): SnapshotFrameAck {
    return {
      _tag: "SnapshotFrameAck",
      range: this.range,
      from: this.to,
      to: this.from,
      term: this.term,
      snapshot: this.id,
      sequence: Math.max(0, sequence),
      accepted: true,
      next: this.expected,
    }
  }
}

/** Answers a frame of a stream that is not known here, perhaps since a restart: it is to begin anew. */
export function askAnew(frame: SnapshotFrame): SnapshotFrameAck {
  return { ...refuseFrame(frame), accepted: true }
}

/** Answers a frame that this node does not want. */
export function refuseFrame(frame: SnapshotFrame): SnapshotFrameAck {
  return {
    _tag: "SnapshotFrameAck",
    range: frame.range,
    from: frame.to,
    to: frame.from,
    term: frame.term,
    snapshot: frame.snapshot,
    sequence: frame.sequence,
    accepted: false,
    next: 0,
  }
}
