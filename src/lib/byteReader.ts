/** Thrown when bytes from outside end early or hold a number that cannot be. The caller turns it into its own error. */
export class MalformedBytes extends Error {
  override readonly name = "MalformedBytes"
}

/** Reads what `ByteWriter` wrote. Byte strings come back as views. */
export class ByteReader {
  private readonly buffer: Uint8Array
  private readonly view: DataView
  offset: number

  constructor(buffer: Uint8Array, offset = 0) {
    this.buffer = buffer
    this.view = new DataView(buffer.buffer, buffer.byteOffset, buffer.byteLength)
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
    return this.view.getUint16(this.advance(2), true)
  }

  u32(): number {
    return this.view.getUint32(this.advance(4), true)
  }

  u64(): number {
    const at = this.advance(8)
    const high = this.view.getUint32(at + 4, true)
    if (high >= 2 ** 21) throw new MalformedBytes(`integer at ${at} is above 2^53`)
    return high * 2 ** 32 + this.view.getUint32(at, true)
  }

  /** The next `count` bytes, as a view. */
  raw(count: number): Uint8Array {
    const at = this.advance(count)
    return this.buffer.subarray(at, at + count)
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
