import { equalBytes } from "../../src/lib/bytes.ts"
import { decimalOf, int64Of, isInt64, loadInt64, parseDecimal } from "../../src/lib/int64.ts"
import type { Position, Version } from "../../src/types.ts"
import { BatchView } from "../../src/wire/batch.ts"
import {
  type CommandView,
  commandStatuses,
  conditions,
  operations,
} from "../../src/wire/command.ts"
import type { OperationView } from "../../src/wire/commandCodes.ts"

/** Keys, values and expiries of a memory cluster, and what commands do to them. */
export interface Pair {
  readonly position: Position
  readonly value: Uint8Array
  readonly version: Version
  /** 0 = never. */
  readonly expiry: Version
}

type Change = Omit<OperationView, "positionAndValue">

export interface Result {
  readonly status: (typeof commandStatuses)[keyof typeof commandStatuses]
  readonly version: Version
  readonly value?: Uint8Array
}

export const nameOf = (position: Position) => Buffer.from(position).toString("latin1")

export class MemoryData {
  readonly pairs = new Map<string, Pair>()
  time: Version = 1_000_000

  present(position: Position): Pair | undefined {
    const pair = this.pairs.get(nameOf(position))
    return pair === undefined || (pair.expiry > 0 && pair.expiry <= this.time) ? undefined : pair
  }

  /** As it is now, for a replica that lags from here on. */
  copy(): MemoryData {
    const copy = new MemoryData()
    copy.time = this.time
    for (const [name, pair] of this.pairs) copy.pairs.set(name, pair)
    return copy
  }

  /** Carries out a command whose identity has been checked. */
  change(view: CommandView): Result {
    const changes: Array<Change> = []
    if (view.operation === operations.batch) {
      const batch = new BatchView()
      batch.begin(view.value)
      while (batch.next()) changes.push(copyOf(batch))
    } else changes.push(copyOf(view))
    const version = this.time + 1
    const isBatch = view.operation === operations.batch
    const steps: Array<() => Result> = []
    for (const [place, change] of changes.entries()) {
      const step = this.step(change, version)
      if (typeof step === "function") steps.push(step)
      else if (!isBatch) return step
      else return { ...step, value: Uint8Array.from([place & 255, place >>> 8]) }
    }
    this.time = version
    const results = steps.map((step) => step())
    return isBatch ? { status: commandStatuses.done, version } : (results[0] as Result)
  }

  /** What to do, or why nothing is done. */
  private step(change: Change, version: Version): Result | (() => Result) {
    const present = this.present(change.position)
    const found = present?.version ?? 0
    if (!holds(change, present)) return { status: commandStatuses.conditionFalse, version: found }
    const name = nameOf(change.position)
    const put = (value: Uint8Array, kept: Version) => {
      const expiry = change.ttl > 0 ? version + change.ttl : kept
      this.pairs.set(name, { position: change.position, value, version, expiry })
    }
    if (change.operation === operations.delete) {
      return () => {
        this.pairs.delete(name)
        const status = present === undefined ? commandStatuses.absent : commandStatuses.done
        return { status, version }
      }
    }
    if (change.operation === operations.put) {
      return () => {
        put(change.value, 0)
        return { status: commandStatuses.done, version }
      }
    }
    const before = present === undefined ? 0n : parseDecimal(present.value)
    const sum = before === undefined ? undefined : before + loadInt64(change.value)
    if (sum === undefined || !isInt64(sum)) {
      return { status: commandStatuses.notNumber, version: found }
    }
    return () => {
      put(decimalOf(sum), present?.expiry ?? 0)
      return { status: commandStatuses.done, version, value: int64Of(sum) }
    }
  }
}

/** Views end with the next request. */
function copyOf(view: OperationView): Change {
  const { operation, condition, expectedVersion, ttl, valueLength, expectedValueLength } = view
  return {
    ...{ operation, condition, expectedVersion, ttl, valueLength, expectedValueLength },
    position: view.position.slice(),
    value: view.value.slice(),
    expectedValue: view.expectedValue.slice(),
  }
}

function holds(view: Change, present: Pair | undefined): boolean {
  switch (view.condition) {
    case conditions.none:
      return true
    case conditions.versionEquals:
      return present !== undefined && present.version === view.expectedVersion
    case conditions.absent:
      return present === undefined
    default:
      return present !== undefined && equalBytes(present.value, view.expectedValue)
  }
}
