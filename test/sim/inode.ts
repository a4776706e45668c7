import type { Prng } from "../../src/lib/prng.ts"

interface UnsyncedWrite {
  readonly offset: number
  readonly length: number
  readonly sizeBefore: number
  /** What stood there, as far as the file reached. */
  readonly before: Uint8Array
}

const sectorBytes = 512

/** The bytes of a file on a simulated disk, and which of them a power loss may take back. */
export class Inode {
  /** Zero from `size` on. */
  buffer = new Uint8Array(64)
  size = 0
  /** How many names it has now. */
  names = 0
  readonly unsynced: Array<UnsyncedWrite> = []

  /** One name less; returns the bytes that no longer count. */
  unlink(): number {
    this.names--
    return this.names === 0 ? this.size : 0
  }

  clone(): Inode {
    const copy = new Inode()
    copy.buffer = this.buffer.slice()
    copy.size = this.size
    copy.names = this.names
    copy.unsynced.push(...this.unsynced)
    return copy
  }

  write(bytes: Uint8Array, offset: number): void {
    const end = offset + bytes.length
    if (end > this.buffer.length) {
      const larger = new Uint8Array(Math.max(end, this.buffer.length * 2))
      larger.set(this.buffer.subarray(0, this.size))
      this.buffer = larger
    }
    const before =
      offset < this.size ? this.buffer.slice(offset, Math.min(end, this.size)) : noBytes
    this.unsynced.push({ offset, length: bytes.length, sizeBefore: this.size, before })
    this.buffer.set(bytes, offset)
    if (end > this.size) this.size = end
  }

  private undo(write: UnsyncedWrite): void {
    this.buffer.fill(0, write.sizeBefore, this.size)
    this.buffer.set(write.before, write.offset)
    this.size = write.sizeBefore
  }

  undoAll(): void {
    while (this.unsynced.length > 0) this.undo(this.unsynced.pop() as UnsyncedWrite)
  }

  /** What a power loss leaves of the writes not synced. */
  forgetSome(prng: Prng, tear: boolean): void {
    const writes: Array<{ offset: number; bytes: Uint8Array }> = []
    for (let i = this.unsynced.length - 1; i >= 0; i--) {
      const write = this.unsynced[i] as UnsyncedWrite
      const bytes = this.buffer.slice(write.offset, write.offset + write.length)
      writes[i] = { offset: write.offset, bytes }
      this.undo(write)
    }
    this.unsynced.length = 0
    const kept = keptIndexes(prng, writes.length)
    for (let i = 0; i < kept.length; i++) {
      const { offset, bytes } = writes[kept[i] as number] as (typeof writes)[number]
      if (i < kept.length - 1 || !tear || prng.chance(0.4)) this.write(bytes, offset)
      else if (prng.chance(0.7)) this.write(bytes.subarray(0, prng.int(0, bytes.length)), offset)
      else this.writeSectors(prng, bytes, offset)
    }
    this.unsynced.length = 0
  }

  private writeSectors(prng: Prng, bytes: Uint8Array, offset: number): void {
    let start = 0
    while (start < bytes.length) {
      const end = Math.min(bytes.length, start + sectorBytes - ((offset + start) % sectorBytes))
      if (prng.chance(0.5)) this.write(bytes.subarray(start, end), offset + start)
      start = end
    }
  }
}

/** Which of `count` writes or changes survive, ascending: none, all, a prefix, or any. */
export function keptIndexes(prng: Prng, count: number): ReadonlyArray<number> {
  const all = Array.from({ length: count }, (_, i) => i)
  switch (prng.int(0, 3)) {
    case 0:
      return []
    case 1:
      return all
    case 2:
      return all.slice(0, prng.int(0, count))
    default:
      return all.filter(() => prng.chance(0.5))
  }
}

const noBytes = new Uint8Array(0)
