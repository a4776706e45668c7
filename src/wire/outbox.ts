import { assert } from "../lib/assert.ts"
import { ByteWriter } from "../lib/byteWriter.ts"

/** What an outbox needs of a socket. Returns the bytes that the kernel took, maybe none; negative when it is closed. */
export interface ByteSink {
  write(bytes: Uint8Array, byteOffset: number, byteLength: number): number
}

/** Above this an emptied buffer is given back, so that one burst does not cost every connection for ever. */
const keepBytes = 256 * 1024

/**
 * Bytes on their way to one socket. A socket's `write` takes what the kernel has room for and keeps nothing, so what it did not take
 * waits here until the socket drains. Frames are encoded straight into `writer` and leave together at the next `flush`: one
 * system call for all of a turn.
 */
export class Outbox {
  private buffer = new ByteWriter(4096)
  private sent = 0

  /** Where frames are encoded. Valid until the next `flush`. */
  get writer(): ByteWriter {
    return this.buffer
  }

  get pendingBytes(): number {
    return this.buffer.length - this.sent
  }

  /** "blocked": the rest leaves when the socket drains; "closed": it never will. */
  flush(sink: ByteSink): "flushed" | "blocked" | "closed" {
    const pendingBytes = this.pendingBytes
    if (pendingBytes === 0) return "flushed"
    const taken = sink.write(this.buffer.bytes(), this.sent, pendingBytes)
    if (taken < 0) return "closed"
    assert(taken <= pendingBytes, () => `a socket took ${taken} of ${pendingBytes} bytes`)
    this.sent += taken
    if (taken === pendingBytes) {
      if (this.buffer.length > keepBytes) this.buffer = new ByteWriter(4096)
      else this.buffer.reset()
      this.sent = 0
      return "flushed"
    }
    this.maybeCompact()
    return "blocked"
  }

  /** Moves the rest to the front once it is the smaller part, so that the buffer is bounded by what is pending. */
  private maybeCompact(): void {
    if (this.sent < keepBytes || this.sent < this.pendingBytes) return
    const rest = this.buffer.bytes().subarray(this.sent)
    const next = new ByteWriter(Math.max(4096, rest.length))
    next.raw(rest)
    this.buffer = next
    this.sent = 0
  }
}
