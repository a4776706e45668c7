import { assert } from "../lib/assert.ts"
import type { ByteWriter } from "../lib/byteWriter.ts"
import { limits } from "./limits.ts"

/**
 * Frames: how messages of peers and of the native door are cut out of a TCP stream.
 *
 *     frame = u32 LE length of the payload, 1 to 16 MiB ‖ payload
 *
 * A stream has no message boundaries: one `data` event may bring half a length prefix, or a thousand frames. The decoder takes
 * chunks as they come and gives complete payloads:
 *
 * 1. `push(chunk)` hands it a chunk, which it keeps by reference: the caller must not write to it again.
 * 2. `next()` returns the next complete payload, until it returns `undefined`; then `problem` says whether the stream is
 *    beyond repair (a length no frame can have), else the next chunk may be pushed.
 *
 * A frame that lies inside one chunk is a view of it, never copied. One that is spread over chunks gathers in a buffer of its
 * own, which is handed over with it.
 *
 * Invariants:
 * - Any split of the same bytes into chunks gives the same frames.
 * - Memory held for a frame under way is at most twice the bytes that have arrived of it, whatever its prefix claims.
 * - After a problem nothing more is decoded: what follows a wrong length is noise.
 *
 * Left out: a checksum (TCP has one, and what matters on disk has its own), and compression.
 * Sources: the framing of etcd's rafthttp streams and of PostgreSQL's protocol, which differ from this in detail only.
 */
export const framePrefixBytes = 4

const firstPendingBytes = 4096

export type FrameProblem =
  | { readonly _tag: "FrameTooLong"; readonly claimedBytes: number; readonly limitBytes: number }
  | { readonly _tag: "FrameEmpty" }

export function describeFrameProblem(problem: FrameProblem): string {
  switch (problem._tag) {
    case "FrameTooLong":
      return `frame of ${problem.claimedBytes} bytes: limit is ${problem.limitBytes} bytes`
    case "FrameEmpty":
      return "frame without a payload"
    default:
      return problem satisfies never
  }
}

/** Opens a frame: room for its length. Returns where it began, for `endFrame`. */
export function beginFrame(writer: ByteWriter): number {
  const start = writer.length
  writer.u32(0)
  return start
}

/** Closes the frame opened at `start`. Its payload must be within the limit: the sender's duty, so asserted. */
export function endFrame(writer: ByteWriter, start: number): void {
  const payloadBytes = writer.length - start - framePrefixBytes
  assert(
    payloadBytes > 0 && payloadBytes <= limits.frameBytes,
    () => `a frame of ${payloadBytes} bytes is within 1 and ${limits.frameBytes}`,
  )
  writer.patchU32(start, payloadBytes)
}

export class FrameDecoder {
  /** May be raised once the other side is known, between two pushes. */
  limitBytes: number
  private chunk: Uint8Array | undefined
  private offset = 0
  /** Bytes of a length prefix that was cut by the end of a chunk. */
  private prefix = 0
  private prefixBytes = 0
  /** Payload length of the frame under way, 0 when its prefix is not complete. */
  private wanted = 0
  private pending: Uint8Array | undefined
  private pendingBytes = 0
  private failure: FrameProblem | undefined

  constructor(limitBytes: number = limits.frameBytes) {
    this.limitBytes = limitBytes
  }

  /** Set for good once the stream cannot be a stream of frames. */
  get problem(): FrameProblem | undefined {
    return this.failure
  }

  /** Bytes set aside for a frame under way. */
  get reservedBytes(): number {
    return this.pending === undefined ? 0 : this.pending.length
  }

  push(chunk: Uint8Array): void {
    assert(this.chunk === undefined, "a chunk is drained before the next is pushed")
    if (this.failure !== undefined) return
    this.chunk = chunk
    this.offset = 0
  }

  /** The next complete payload; `undefined` when the chunk is used up, or at a `problem`. */
  next(): Uint8Array | undefined {
    const chunk = this.chunk
    if (chunk === undefined) return undefined
    if (this.wanted === 0 && !this.readPrefix(chunk)) {
      this.chunk = undefined
      return undefined
    }
    if (this.pending === undefined && chunk.length - this.offset >= this.wanted) {
      const start = this.offset
      this.offset = start + this.wanted
      this.wanted = 0
      return chunk.subarray(start, this.offset)
    }
    return this.gather(chunk)
  }

  /** False when the prefix is not complete yet, or is one that no frame has. */
  private readPrefix(chunk: Uint8Array): boolean {
    let length = 0
    if (this.prefixBytes === 0 && chunk.length - this.offset >= framePrefixBytes) {
      const at = this.offset
      length =
        ((chunk[at] as number) |
          ((chunk[at + 1] as number) << 8) |
          ((chunk[at + 2] as number) << 16) |
          ((chunk[at + 3] as number) << 24)) >>>
        0
      this.offset = at + framePrefixBytes
    } else {
      while (this.prefixBytes < framePrefixBytes) {
        if (this.offset === chunk.length) return false
        this.prefix |= (chunk[this.offset++] as number) << (8 * this.prefixBytes++)
      }
      length = this.prefix >>> 0
      this.prefix = 0
      this.prefixBytes = 0
    }
    if (length === 0) this.failure = { _tag: "FrameEmpty" }
    if (length > this.limitBytes) {
      this.failure = {
        _tag: "FrameTooLong",
        claimedBytes: length,
        limitBytes: this.limitBytes,
      }
    }
    this.wanted = length
    return this.failure === undefined
  }

  private gather(chunk: Uint8Array): Uint8Array | undefined {
    const count = Math.min(this.wanted - this.pendingBytes, chunk.length - this.offset)
    const needed = this.pendingBytes + count
    if (this.pending === undefined || this.pending.length < needed) {
      // Doubling what has arrived keeps copying linear; the claimed length only caps it.
      const capacity = Math.min(this.wanted, Math.max(needed, 2 * this.pendingBytes))
      const larger = new Uint8Array(
        Math.min(this.wanted, Math.max(capacity, Math.min(firstPendingBytes, 2 * needed))),
      )
      if (this.pending !== undefined) larger.set(this.pending.subarray(0, this.pendingBytes))
      this.pending = larger
    }
    this.pending.set(chunk.subarray(this.offset, this.offset + count), this.pendingBytes)
    this.pendingBytes = needed
    this.offset += count
    if (needed < this.wanted) {
      this.chunk = undefined
      return undefined
    }
    const payload = this.pending
    this.pending = undefined
    this.pendingBytes = 0
    this.wanted = 0
    return payload
  }
}
