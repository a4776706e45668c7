import { ByteWriter } from "../../lib/byteWriter.ts"
import type { NodeId } from "../../types.ts"
import type { Outbox } from "./ports.ts"

/** Messages of one turn to one node. */
export interface Parcel {
  readonly to: NodeId
  readonly bytes: Uint8Array
}

/** A parcel is ended past so many bytes. */
const parcelBytes = 512 * 1024

/**
 * The one gate of the eventual half (DESIGN section 4, "Order on one node"): what speaks of something that was put leaves when that is durable. What is sent in a turn to
 * one node leaves as one parcel, or as two: what waits for nothing goes ahead of what waits.
 */
export class GatedOutbox implements Outbox {
  private free = new Map<NodeId, ByteWriter>()
  /** What waits, by node; `mark`: of the whole turn. */
  private held = new Map<NodeId, ByteWriter>()
  private heldMark = 0
  /** Of earlier turns, in order of mark. */
  private waiting: Array<{ readonly mark: number; readonly parcel: Parcel }> = []
  private ready: Array<Parcel> = []
  private readonly durableMark: () => number
  private readonly pool: Array<ByteWriter> = []

  constructor(durableMark: () => number) {
    this.durableMark = durableMark
  }

  send(to: NodeId, code: number, mark: number, write: (out: ByteWriter) => void): void {
    const isHeld = mark > this.durableMark()
    if (isHeld && mark > this.heldMark) this.heldMark = mark
    const parcels = isHeld ? this.held : this.free
    let writer = parcels.get(to)
    if (writer === undefined) {
      writer = this.pool.pop() ?? new ByteWriter(4096)
      parcels.set(to, writer)
    }
    writer.u8(code)
    const at = writer.length
    writer.u32(0)
    write(writer)
    writer.patchU32(at, writer.length - at - 4)
    if (writer.length < parcelBytes) return
    const parcel = this.parcelOf(to, writer)
    parcels.delete(to)
    if (isHeld) this.waiting.push({ mark: this.heldMark, parcel })
    else this.ready.push(parcel)
  }

  private parcelOf(to: NodeId, writer: ByteWriter): Parcel {
    const bytes = writer.take()
    writer.reset()
    this.pool.push(writer)
    return { to, bytes }
  }

  /** What may leave now. Called at the end of each turn. */
  take(): ReadonlyArray<Parcel> {
    for (const [to, writer] of this.held) {
      this.waiting.push({ mark: this.heldMark, parcel: this.parcelOf(to, writer) })
    }
    this.held.clear()
    const durable = this.durableMark()
    let count = 0
    while (count < this.waiting.length && this.waiting[count].mark <= durable) count++
    for (let i = 0; i < count; i++) this.ready.push(this.waiting[i].parcel)
    if (count > 0) this.waiting = this.waiting.slice(count)
    for (const [to, writer] of this.free) this.ready.push(this.parcelOf(to, writer))
    this.free.clear()
    if (this.ready.length === 0) return none
    const { ready } = this
    this.ready = []
    return ready
  }
}

const none: ReadonlyArray<Parcel> = []
