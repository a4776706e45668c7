import { assert } from "../lib/assert.ts"
import { emptyBytes, equalBytes } from "../lib/bytes.ts"
import { ByteWriter } from "../lib/byteWriter.ts"
import { loadU32, loadU64 } from "../lib/littleEndian.ts"
import type { Position, Version } from "../types.ts"
import {
  type Condition,
  conditions,
  type Operation,
  type OperationView,
  operationProblem,
  type operations,
} from "./commandCodes.ts"
import { batchProblem, valueProblem } from "./limits.ts"

/**
 * The operations of an atomic batch: the value of its command. Either all are carried out, at one version, or none. Conditions and the numbers that adds begin
 * from are those of the state before the batch; no two operations are on one key. All keys lie in one range. Sent and stored: do not change.
 *
 *     u16 count, 1 to 1000; then for each, back to back, numbers little-endian:
 *      0  u8   operation            1 put, 2 delete, 3 add
 *      1  u8   condition            as of a command
 *      2  u16  bytes of position
 *      4  u32  bytes of value
 *      8  u32  bytes of the value that the condition expects
 *     12  u64  expected version
 *     20  u64  ttl
 *     28  position ‖ value ‖ expected value
 */
const countBytes = 2
const headerBytes = 28

export interface BatchOperation {
  readonly operation: Exclude<Operation, typeof operations.batch>
  readonly condition: Condition
  readonly expectedVersion: Version
  readonly ttl: number
  readonly position: Position
  readonly value: Uint8Array
  readonly expectedValue: Uint8Array
}

export function encodeBatch(batch: ReadonlyArray<BatchOperation>): Uint8Array {
  const writer = new ByteWriter(256)
  writer.u16(batch.length)
  for (const operation of batch) {
    writer.u8(operation.operation)
    writer.u8(operation.condition)
    writer.u16(operation.position.length)
    writer.u32(operation.value.length)
    writer.u32(operation.expectedValue.length)
    writer.u64(operation.expectedVersion)
    writer.u64(operation.ttl)
    writer.raw(operation.position)
    writer.raw(operation.value)
    writer.raw(operation.expectedValue)
  }
  return writer.take()
}

/** Reads the operations of a batch in place, one after the other. */
export class BatchView implements OperationView {
  private bytes: Uint8Array = emptyBytes
  private base = countBytes
  private left = 0

  /** Why `bytes` are not the operations of a batch that stands at `position`, or `undefined`. */
  static problem(bytes: Uint8Array, position: Position): string | undefined {
    if (bytes.length < countBytes) return "batch: shorter than its count"
    const count = (bytes[0] as number) | ((bytes[1] as number) << 8)
    if (count === 0) return "batch: without operations"
    const sizeBytes = bytes.length - countBytes - count * headerBytes
    const tooLarge = batchProblem({ operations: count, sizeBytes })
    if (tooLarge !== undefined) return tooLarge
    const view = new BatchView()
    const seen = new Set<string>()
    view.bytes = bytes
    view.base = countBytes
    for (let place = 0; place < count; place++) {
      const problem = view.problemHere()
      if (problem !== undefined) return `batch: operation ${place}: ${problem}`
      if (place === 0 && !equalBytes(view.position, position)) {
        return "batch: not at the position of its first operation"
      }
      const key = Buffer.from(view.position).toString("latin1")
      if (seen.has(key)) return `batch: operation ${place}: a second one on its key`
      seen.add(key)
      view.base = view.end
    }
    return view.base === bytes.length ? undefined : "batch: bytes after its end"
  }

  private problemHere(): string | undefined {
    const { bytes, base } = this
    if (bytes.length - base < headerBytes || this.end > bytes.length) return "ends early"
    for (const at of [12, 20]) {
      if (loadU32(bytes, base + at + 4) >= 2 ** 21) return "a number above 2^53"
    }
    if (this.condition !== conditions.valueEquals && this.expectedValueLength > 0) {
      return "an expected value without its condition"
    }
    const tooLarge = valueProblem(Math.max(this.valueLength, this.expectedValueLength))
    if (tooLarge !== undefined) return tooLarge
    return operationProblem(this)
  }

  /** Begins before the first operation of a well-formed batch. */
  begin(bytes: Uint8Array): void {
    this.bytes = bytes
    this.base = 0
    this.left = (bytes[0] as number) | ((bytes[1] as number) << 8)
  }

  /** Moves to the next operation; false after the last. */
  next(): boolean {
    if (this.left === 0) {
      assert(this.end === this.bytes.length, "a batch holds its operations and nothing else")
      return false
    }
    this.base = this.base === 0 ? countBytes : this.end
    this.left--
    return true
  }

  get operation(): number {
    return this.bytes[this.base] as number
  }
  get condition(): number {
    return this.bytes[this.base + 1] as number
  }
  private get positionLength(): number {
    return (this.bytes[this.base + 2] as number) | ((this.bytes[this.base + 3] as number) << 8)
  }
  get valueLength(): number {
    return loadU32(this.bytes, this.base + 4)
  }
  get expectedValueLength(): number {
    return loadU32(this.bytes, this.base + 8)
  }
  get expectedVersion(): Version {
    return loadU64(this.bytes, this.base + 12)
  }
  get ttl(): number {
    return loadU64(this.bytes, this.base + 20)
  }
  /** A view. */
  get position(): Position {
    const at = this.base + headerBytes
    return this.bytes.subarray(at, at + this.positionLength)
  }
  /** A view. */
  get value(): Uint8Array {
    const at = this.base + headerBytes + this.positionLength
    return this.bytes.subarray(at, at + this.valueLength)
  }
  get positionAndValue(): Uint8Array {
    const at = this.base + headerBytes
    return this.bytes.subarray(at, at + this.positionLength + this.valueLength)
  }
  /** A view. */
  get expectedValue(): Uint8Array {
    const at = this.base + headerBytes + this.positionLength + this.valueLength
    return this.bytes.subarray(at, at + this.expectedValueLength)
  }
  private get end(): number {
    const lengths = this.positionLength + this.valueLength + this.expectedValueLength
    return this.base + headerBytes + lengths
  }
}
