import type { Position, Version } from "../types.ts"

/** The numbers of commands (command.ts) and of the operations in a batch (batch.ts). Sent and stored: do not change. */
export const operations = { put: 1, delete: 2, add: 3, batch: 4 } as const
export const conditions = { none: 0, versionEquals: 1, absent: 2, valueEquals: 3 } as const
export type Operation = (typeof operations)[keyof typeof operations]
export type Condition = (typeof conditions)[keyof typeof conditions]

/** What became of a command. Sent and stored in session tables: do not change. */
export const commandStatuses = {
  done: 0,
  /**
   * The condition did not hold; `version` is the key's present one, 0 when absent. Of a batch: `value` is the place of the first operation whose condition
   * did not hold, a u16, and `version` that of its key.
   */
  conditionFalse: 1,
  /** A delete of a key that was not there. */
  absent: 2,
  /** Refused, no trace left: the range's bounds changed since. */
  rangeMoved: 3,
  /** Refused, no trace left: its sequence is below what the client acknowledged, or it expired. */
  expired: 4,
  /** Refused, no trace left: the range's session table is full. */
  overloaded: 5,
  /**
   * An add to what is not the decimal text of a signed 64-bit number, or whose sum is none; `version` is the key's present one. Of a batch: `value` says
   * which operation, as for a condition.
   */
  notNumber: 6,
} as const
export type CommandStatus = (typeof commandStatuses)[keyof typeof commandStatuses]

/** The statuses that are results, kept in the session table: a retry gets the same again. The others are refusals. */
export function isResult(status: CommandStatus): boolean {
  return (
    status === commandStatuses.done ||
    status === commandStatuses.conditionFalse ||
    status === commandStatuses.absent ||
    status === commandStatuses.notNumber
  )
}

/** Bytes of what an add adds, and of the sum that its result carries: a signed number, little-endian. */
export const numberBytes = 8

/** The longest ttl, in microseconds: 71 years. Version and ttl together stay exact. */
export const ttlMax = 2 ** 51

/** One change of one key, as it lies in a command or in a batch. Byte strings are views. */
export interface OperationView {
  readonly operation: number
  readonly condition: number
  readonly expectedVersion: Version
  /** Microseconds; 0 = none. */
  readonly ttl: number
  readonly valueLength: number
  readonly expectedValueLength: number
  readonly position: Position
  readonly value: Uint8Array
  /** They lie side by side. */
  readonly positionAndValue: Uint8Array
  readonly expectedValue: Uint8Array
}

/** Why the parts of a put, delete or add do not fit together, or `undefined`. */
export function operationProblem(view: OperationView): string | undefined {
  const { operation, condition, ttl } = view
  if (operation < operations.put || operation > operations.add) {
    return `unknown operation ${operation}`
  }
  if (condition > conditions.valueEquals) return `unknown condition ${condition}`
  if (operation === operations.delete && view.valueLength !== 0) return "delete with a value"
  if (operation === operations.delete && ttl !== 0) return "delete with a ttl"
  if (operation === operations.add && view.valueLength !== numberBytes) {
    return `add of ${view.valueLength} bytes, not ${numberBytes}`
  }
  return ttl > ttlMax ? `a ttl above ${ttlMax} microseconds` : undefined
}
