import { equalBytes } from "../../src/lib/bytes.ts"
import type { Prng } from "../../src/lib/prng.ts"
import type { Version } from "../../src/types.ts"
import type { KeyPlace } from "./keys.ts"
import type { RegisterValue } from "./linearizability.ts"
import { Violation } from "./violation.ts"

/** What a client has seen of a key last: for conditions. */
export interface Seen {
  readonly value: RegisterValue
  readonly version: Version
}

/** Every value that clients write, what its bytes are, and what version it was seen to have. */
export class Values {
  private readonly prng: Prng
  private readonly bytesMax: number
  /** What was seen of a key last, oldest first. */
  private readonly seen = new Map<number, Array<Seen>>()
  /** By value. */
  private readonly written: Array<Uint8Array | undefined> = [undefined]
  private readonly versions: Array<Version | undefined> = [undefined]
  /** Versions tell values of one key apart, whatever ranges it lay in. */
  private readonly valueOfVersion = new Map<string, RegisterValue>()

  constructor(prng: Prng, bytesMax: number) {
    this.prng = prng
    this.bytesMax = bytesMax
  }

  /** The bytes of a value; none for an absent key. */
  bytesOf(value: RegisterValue): Uint8Array {
    return this.written[value] ?? new Uint8Array(0)
  }

  seenOf(key: KeyPlace): ReadonlyArray<Seen> {
    return this.seen.get(key.number) ?? []
  }

  /** The value that a version of the key belongs to, when known. */
  valueAt(key: KeyPlace, version: Version): RegisterValue | undefined {
    return version === 0 ? 0 : this.valueOfVersion.get(`${key.number}/${version}`)
  }

  /** A value that nobody has written. */
  draw(): RegisterValue {
    const value = this.written.length
    const extra = Math.floor(this.prng.logUniform(1, this.bytesMax + 1))
    const bytes = new Uint8Array(4 + extra).fill(value & 0xff)
    new DataView(bytes.buffer).setUint32(0, value)
    this.written.push(bytes)
    this.versions.push(undefined)
    return value
  }

  /** Which write these bytes are of. */
  valueOf(bytes: Uint8Array): RegisterValue {
    const value = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getUint32(0)
    const written = this.written[value]
    if (written === undefined || !equalBytes(written, bytes)) {
      throw new Violation(
        "value",
        `a read returned bytes that nobody wrote: ${value}, ${bytes.length} bytes`,
      )
    }
    return value
  }

  /** A value has one version, for ever and everywhere. */
  noteVersion(key: KeyPlace, value: RegisterValue, version: Version): void {
    if (value === 0) return
    const known = this.versions[value]
    if (known === version) return
    if (known !== undefined) {
      throw new Violation("value", `value ${value} had version ${known} and has ${version}`)
    }
    this.versions[value] = version
    this.valueOfVersion.set(`${key.number}/${version}`, value)
  }

  /** Takes note of what a client has just seen. */
  learn(key: KeyPlace, value: RegisterValue, version: Version): void {
    this.noteVersion(key, value, version)
    const seen = this.seen.get(key.number) ?? []
    seen.push({ value, version: value === 0 ? 0 : version })
    if (seen.length > 4) seen.shift()
    this.seen.set(key.number, seen)
  }
}
