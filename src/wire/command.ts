import { assert } from "../lib/assert.ts"
import { emptyBytes } from "../lib/bytes.ts"
import { ByteWriter } from "../lib/byteWriter.ts"
import { loadU32, loadU64 } from "../lib/littleEndian.ts"
import type { BoundsVersion, Position, Version } from "../types.ts"
import { BatchView } from "./batch.ts"
import {
  type Condition,
  conditions,
  type Operation,
  type OperationView,
  operationProblem,
  operations,
} from "./commandCodes.ts"

export { type CommandStatus, commandStatuses, conditions, operations } from "./commandCodes.ts"

/**
 * A mutation as the client encodes it, the leader copies it into an entry, the journal keeps it and every replica applies it.
 * Sent and stored: do not change. All numbers are little-endian.
 *
 *     0  u8   operation            1 put, 2 delete, 3 add, 4 batch
 *     1  u8   condition            0 none, 1 version equals, 2 absent, 3 value equals
 *     2  u16  bytes of position
 *     4  u32  bytes of value       0 for a delete; 8 for an add: the i64 to add; a batch's operations (batch.ts)
 *     8  u32  bytes of the value that the condition expects
 *    12  u32  boundsVersion        the client's view of the range
 *    16  u64  client id            drawn at random by the client, never 0
 *    24  u64  sequence             from 1, one per command of the client
 *    32  u64  ackedBelow           every sequence below it has been answered
 *    40  u64  expiresAt            in the unit of versions; from then on the command is refused
 *    48  u64  expected version     for condition 1
 *    56  u64  ttl                  microseconds from its version on to the value's expiry; 0 = none. An add without one keeps the expiry that is there
 *    64  position ‖ value ‖ expected value
 *
 * A batch stands at the position of its first operation, and has no condition, expected value or ttl of its own.
 */
export const commandHeaderBytes = 64

export interface Command {
  readonly operation: Operation
  readonly condition: Condition
  readonly boundsVersion: BoundsVersion
  readonly clientId: number
  readonly sequence: number
  readonly ackedBelow: number
  readonly expiresAt: Version
  readonly expectedVersion: Version
  readonly ttl: number
  readonly position: Position
  readonly value: Uint8Array
  readonly expectedValue: Uint8Array
}

export function writeCommand(writer: ByteWriter, command: Command): void {
  writer.u8(command.operation)
  writer.u8(command.condition)
  writer.u16(command.position.length)
  writer.u32(command.value.length)
  writer.u32(command.expectedValue.length)
  writer.u32(command.boundsVersion)
  writer.u64(command.clientId)
  writer.u64(command.sequence)
  writer.u64(command.ackedBelow)
  writer.u64(command.expiresAt)
  writer.u64(command.expectedVersion)
  writer.u64(command.ttl)
  writer.raw(command.position)
  writer.raw(command.value)
  writer.raw(command.expectedValue)
}

export function encodeCommand(command: Command): Uint8Array {
  const writer = new ByteWriter(
    commandHeaderBytes +
      command.position.length +
      command.value.length +
      command.expectedValue.length,
  )
  writeCommand(writer, command)
  return writer.take()
}

/**
 * Reads commands in place: `at` moves the view to the command that begins at an offset, and the getters read its fields. One view serves a
 * whole entry, so that applying makes no object per command.
 */
export class CommandView implements OperationView {
  private bytes: Uint8Array = emptyBytes
  private base = 0

  /** `undefined`, or why no well-formed command begins at `offset`. Lengths are those of the bytes, not yet the product's limits. */
  static problem(bytes: Uint8Array, offset = 0): string | undefined {
    if (bytes.length - offset < commandHeaderBytes) return "shorter than a command header"
    const view = new CommandView()
    view.at(bytes, offset)
    if (view.end > bytes.length) return "shorter than its lengths say"
    if (view.condition > conditions.valueEquals) return `unknown condition ${view.condition}`
    for (const at of [16, 24, 32, 40, 48, 56]) {
      if (loadU32(bytes, offset + at + 4) >= 2 ** 21) return "a number above 2^53"
    }
    if (view.clientId === 0) return "client id 0"
    if (view.sequence === 0) return "sequence 0"
    if (view.operation !== operations.batch) return operationProblem(view)
    if (view.condition !== conditions.none || view.ttl !== 0 || view.expectedValueLength !== 0) {
      return "a batch with a condition or ttl of its own"
    }
    return BatchView.problem(view.value, view.position)
  }

  at(bytes: Uint8Array, offset: number): void {
    this.bytes = bytes
    this.base = offset
    assert(offset + commandHeaderBytes <= bytes.length, "a command begins inside its bytes")
  }

  private u64(offset: number): number {
    return loadU64(this.bytes, this.base + offset)
  }

  get operation(): number {
    return this.bytes[this.base] as number
  }
  get condition(): number {
    return this.bytes[this.base + 1] as number
  }
  get positionLength(): number {
    return (this.bytes[this.base + 2] as number) | ((this.bytes[this.base + 3] as number) << 8)
  }
  get valueLength(): number {
    return loadU32(this.bytes, this.base + 4)
  }
  get expectedValueLength(): number {
    return loadU32(this.bytes, this.base + 8)
  }
  get boundsVersion(): BoundsVersion {
    return loadU32(this.bytes, this.base + 12)
  }
  get clientId(): number {
    return this.u64(16)
  }
  get sequence(): number {
    return this.u64(24)
  }
  get ackedBelow(): number {
    return this.u64(32)
  }
  get expiresAt(): Version {
    return this.u64(40)
  }
  get expectedVersion(): Version {
    return this.u64(48)
  }
  get ttl(): number {
    return this.u64(56)
  }
  /** A view. */
  get position(): Position {
    const at = this.base + commandHeaderBytes
    return this.bytes.subarray(at, at + this.positionLength)
  }
  /** A view. */
  get value(): Uint8Array {
    const at = this.base + commandHeaderBytes + this.positionLength
    return this.bytes.subarray(at, at + this.valueLength)
  }
  /** Position and value as one view: they lie side by side. */
  get positionAndValue(): Uint8Array {
    const at = this.base + commandHeaderBytes
    return this.bytes.subarray(at, at + this.positionLength + this.valueLength)
  }
  /** A view. */
  get expectedValue(): Uint8Array {
    const at = this.base + commandHeaderBytes + this.positionLength + this.valueLength
    return this.bytes.subarray(at, at + this.expectedValueLength)
  }
  /** Offset of the byte after this command. */
  get end(): number {
    return (
      this.base +
      commandHeaderBytes +
      this.positionLength +
      this.valueLength +
      this.expectedValueLength
    )
  }
}
