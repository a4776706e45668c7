import { loadU32 } from "./littleEndian.ts"
import { readVarint, varintEnd } from "./varint.ts"

/** Thrown when bytes from outside end early or hold a number that cannot be. The caller turns it into its own error. */
export class MalformedBytes extends Error {
  override readonly name = "MalformedBytes"
}

/** Reads what `ByteWriter` wrote. Byte strings come back as views. */
export class ByteReader {
  private readonly buffer: Uint8Array
  offset: number

  constructor(buffer: Uint8Array, offset = 0) {
    this.buffer = buffer
    this.offset = offset
  }

  get remaining(): number {
    return this.buffer.length - this.offset
  }

  private advance(count: number): number {
    const at = this.offset
    if (count > this.buffer.length - at) {
      throw new MalformedBytes(`${count} bytes wanted at ${at} of ${this.buffer.length}`)
    }
    this.offset = at + count
    return at
  }

  u8(): number {
    return this.buffer[this.advance(1)] as number
  }

  u16(): number {
    const at = this.advance(2)
    return (this.buffer[at] as number) | ((this.buffer[at + 1] as number) << 8)
  }

  u32(): number {
    return loadU32(this.buffer, this.advance(4))
  }

  u64(): number {
    const at = this.advance(8)
    const high = loadU32(this.buffer, at + 4)
    if (high >= 2 ** 21) throw new MalformedBytes(`integer at ${at} is above 2^53`)
    return high * 2 ** 32 + loadU32(this.buffer, at)
  }

  /** A varint below 2^53 in its shortest form, so that a number has one form only. */
  varint(): number {
    const at = this.offset
    const value = readVarint(this.buffer, at)
    const end = varintEnd
    if (!(end <= this.buffer.length && value <= Number.MAX_SAFE_INTEGER)) {
      throw new MalformedBytes(`no varint at ${at} of ${this.buffer.length}`)
    }
    if (end - at > 1 && this.buffer[end - 1] === 0) {
      throw new MalformedBytes(`varint at ${at} is longer than it need be`)
    }
    this.offset = end
    return value
  }

  /** The next `count` bytes, as a view. */
  raw(count: number): Uint8Array {
    const at = this.advance(count)
    return this.buffer.subarray(at, at + count)
  }

  /** The next `count` bytes, in memory of their own. */
  copy(count: number): Uint8Array {
    const at = this.advance(count)
    return this.buffer.slice(at, at + count)
  }

  bytes32(): Uint8Array {
    return this.raw(this.u32())
  }

  rest(): Uint8Array {
    return this.raw(this.remaining)
  }

  /** Throws unless everything was read. */
  end(): void {
    if (this.remaining !== 0) throw new MalformedBytes(`${this.remaining} bytes too many`)
  }
}
