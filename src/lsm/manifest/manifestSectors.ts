/** Sectors of a manifest: manifest.ts has their layout and says how torn ones are told from damage. */
import { StorageCorruption } from "../../disk/disk.ts"
import { ByteReader } from "../../lib/byteReader.ts"
import { ByteWriter } from "../../lib/byteWriter.ts"
import { checkFormat, manifestMagic, placedChecksum } from "../table/format.ts"
import { readU32, writeU32 } from "../table/varint.ts"

export const sectorBytes = 512
const sectorHeaderBytes = 12
const sectorPayloadBytes = sectorBytes - sectorHeaderBytes - 1
const sectorEnd = 0xff

export function corrupt(path: string, offset: number, expected: string, actual: string): never {
  throw new StorageCorruption({ path, offset, expected, actual })
}

/** The sectors of one edit, for `end`. */
export function encodeSectors(
  payload: Uint8Array,
  end: { readonly fileNumber: number; readonly offset: number; readonly editNumber: number },
): Uint8Array {
  const count = Math.max(1, Math.ceil(payload.length / sectorPayloadBytes))
  const bytes = new Uint8Array(count * sectorBytes)
  for (let i = 0; i < count; i++) {
    const part = payload.subarray(i * sectorPayloadBytes, (i + 1) * sectorPayloadBytes)
    const sector = bytes.subarray(i * sectorBytes, (i + 1) * sectorBytes)
    writeU32(sector, 4, end.editNumber)
    sector[8] = part.length
    sector[9] = part.length >>> 8
    sector[10] = i === count - 1 ? 1 : 0
    sector.set(part, sectorHeaderBytes)
    sector[sectorBytes - 1] = sectorEnd
    const offset = end.offset + i * sectorBytes
    writeU32(sector, 0, placedChecksum(sector.subarray(4), end.fileNumber, offset))
  }
  return bytes
}

/** Walks the sectors of a manifest. */
export class ManifestLog {
  offset = 0
  /** Of the edit that begins at `offset`. */
  editNumber = 0
  torn = false
  private readonly path: string
  private readonly fileNumber: number
  private readonly bytes: Uint8Array

  constructor(path: string, fileNumber: number, bytes: Uint8Array) {
    this.path = path
    this.fileNumber = fileNumber
    this.bytes = bytes
  }

  readHeader(): void {
    const payload = this.nextEdit()
    if (payload === undefined) corrupt(this.path, 0, "a header", "an empty file")
    if (payload.length !== 16) corrupt(this.path, 0, "a header", `${payload.length} bytes`)
    if (readU32(payload, 0) !== manifestMagic) {
      corrupt(this.path, 0, "a manifest", "another kind of file")
    }
    checkFormat(this.path, 4, readU32(payload, 4))
    const stated = new ByteReader(payload, 8).u64()
    if (stated !== this.fileNumber) corrupt(this.path, 8, `${this.fileNumber}`, `${stated}`)
  }

  /** The payload of the next edit; `undefined` at the end, torn or not. */
  nextEdit(): Uint8Array | undefined {
    const parts = new ByteWriter(1024)
    for (let at = this.offset; ; at += sectorBytes) {
      if (at === this.bytes.length && at === this.offset) return undefined
      const sector = this.bytes.subarray(at, at + sectorBytes)
      if (!this.isWhole(sector, at)) {
        this.acceptTear(at)
        return undefined
      }
      const number = readU32(sector, 4)
      if (number !== this.editNumber) {
        corrupt(this.path, at, `edit ${this.editNumber}`, `edit ${number}`)
      }
      parts.raw(sector.subarray(sectorHeaderBytes, sectorHeaderBytes + sector[8] + sector[9] * 256))
      if (sector[10] === 1) {
        this.offset = at + sectorBytes
        this.editNumber++
        return parts.bytes()
      }
    }
  }

  private isWhole(sector: Uint8Array, at: number): boolean {
    return (
      sector.length === sectorBytes &&
      readU32(sector, 0) === placedChecksum(sector.subarray(4), this.fileNumber, at)
    )
  }

  /**
   * Marks the log as torn if what stands at `at` and behind can be what a cut-off write left; else
   * throws.
   */
  private acceptTear(at: number): void {
    // Edit 1 is number 1: it and the header were synced before the file was put in force.
    if (this.editNumber < 2) corrupt(this.path, at, "a whole sector", "a damaged one")
    for (let next = at; next < this.bytes.length; next += sectorBytes) {
      const sector = this.bytes.subarray(next, next + sectorBytes)
      if (this.isWhole(sector, next)) {
        const number = readU32(sector, 4)
        if (number !== this.editNumber) corrupt(this.path, at, "a whole sector", "a damaged one")
      } else if (sector.length === sectorBytes && sector[sectorBytes - 1] !== 0) {
        corrupt(this.path, next, "a whole sector, or a torn one", "a damaged one")
      }
    }
    this.torn = true
  }
}
