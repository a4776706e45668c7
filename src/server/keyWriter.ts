import { emptyBytes, equalBytes } from "../lib/bytes.ts"
import { crc32 } from "../lib/checksum.ts"
import { decimalOf, int64Of, isInt64, loadInt64, parseDecimal } from "../lib/int64.ts"
import { storeU64 } from "../lib/littleEndian.ts"
import type { Version } from "../types.ts"
import {
  type CommandStatus,
  commandStatuses,
  conditions,
  type OperationView,
  operations,
} from "../wire/commandCodes.ts"
import { dataKey } from "./engineKeys.ts"
import {
  expiringHeaderBytes,
  isExpired,
  recordExpiry,
  recordValue,
  recordVersion,
  valueHeaderBytes,
  writeExpiringHeader,
  writeValueHeader,
} from "./valueRecord.ts"

/** What applying needs of the engine. */
export interface KeyValues {
  get(key: Uint8Array): Uint8Array | undefined
  /** The record is `head ‖ tail`; both are copied. */
  putParts(key: Uint8Array, head: Uint8Array, tail: Uint8Array): void
  delete(key: Uint8Array): void
  /** All keys of [lower, upper). */
  deleteRange(lower: Uint8Array, upper: Uint8Array): void
}

/**
 * Judges and carries out operations on single keys, and folds what they write into the range's chain. An operation is judged by the state as it is and by the time
 * that its command sees: what has expired by then is absent, whether it is still stored or not.
 */
export class KeyWriter {
  /** Running checksum over the writes; equal at equal index on all replicas. */
  chain: number
  /** Version of the key judged last; 0 = absent, or not looked at. */
  present: Version = 0
  /** What the operation carried out last leaves its client: the sum of an add. */
  result: Uint8Array | undefined

  private readonly engine: KeyValues
  private key: Uint8Array = emptyBytes
  /** Of an add judged: what it comes to, and until when it lives without a ttl of its own. */
  private sum = 0n
  private kept: Version = 0
  private readonly head = new Uint8Array(valueHeaderBytes)
  private readonly expiringHead = new Uint8Array(expiringHeaderBytes)
  private readonly mark = new Uint8Array(16)

  constructor(engine: KeyValues, chain: number) {
    this.engine = engine
    this.chain = chain
  }

  /**
   * What would become of the operation at `time`; `done`: then it may be carried out, at once. Changes nothing. `position` is that of the view, for a caller
   * that has it already.
   */
  judge(view: OperationView, time: Version, position = view.position): CommandStatus {
    const { operation, condition } = view
    this.key = dataKey(position)
    this.present = 0
    if (operation === operations.put && condition === conditions.none) return commandStatuses.done
    const stored = this.engine.get(this.key)
    const record = stored === undefined || isExpired(stored, time) ? undefined : stored
    if (record !== undefined) this.present = recordVersion(record)
    if (!this.conditionHolds(view, record)) return commandStatuses.conditionFalse
    if (operation === operations.add) return this.add(view, record)
    const isNothing = operation === operations.delete && record === undefined
    return isNothing ? commandStatuses.absent : commandStatuses.done
  }

  private conditionHolds(view: OperationView, record: Uint8Array | undefined): boolean {
    switch (view.condition) {
      case conditions.none:
        return true
      case conditions.versionEquals:
        return this.present === view.expectedVersion
      case conditions.absent:
        return record === undefined
      default:
        return record !== undefined && equalBytes(recordValue(record), view.expectedValue)
    }
  }

  private add(view: OperationView, record: Uint8Array | undefined): CommandStatus {
    const present = record === undefined ? 0n : parseDecimal(recordValue(record))
    if (present === undefined) return commandStatuses.notNumber
    const sum = present + loadInt64(view.value)
    if (!isInt64(sum)) return commandStatuses.notNumber
    this.sum = sum
    this.kept = record === undefined ? 0 : recordExpiry(record)
    return commandStatuses.done
  }

  /** Carries out the operation that was judged last and found `done`. */
  carryOut(view: OperationView, version: Version): void {
    const { operation } = view
    this.result = undefined
    this.fold(version, operation)
    if (operation === operations.delete) {
      this.engine.delete(this.key)
      this.chain = crc32(view.positionAndValue, this.chain)
      return
    }
    const expiry = expiryOf(version, view.ttl)
    if (operation === operations.put) {
      this.put(version, expiry, view.value)
      this.chain = crc32(view.positionAndValue, this.chain)
      return
    }
    const text = decimalOf(this.sum)
    this.put(version, expiry === 0 ? this.kept : expiry, text)
    this.chain = crc32(text, crc32(view.position, this.chain))
    this.result = int64Of(this.sum)
  }

  private put(version: Version, expiry: Version, value: Uint8Array): void {
    if (expiry === 0) {
      writeValueHeader(this.head, version)
      this.engine.putParts(this.key, this.head, value)
      return
    }
    writeExpiringHeader(this.expiringHead, version, expiry)
    this.engine.putParts(this.key, this.expiringHead, value)
    this.fold(version, expiry)
  }

  /** Folds two numbers in the chain. */
  fold(first: number, second: number): void {
    storeU64(this.mark, 0, first)
    storeU64(this.mark, 8, second)
    this.chain = crc32(this.mark, this.chain)
  }

  foldBytes(bytes: Uint8Array): void {
    this.chain = crc32(bytes, this.chain)
  }
}

/** 0 = never. What would lie beyond the last exact number is that number, which no range time reaches. */
function expiryOf(version: Version, ttl: number): Version {
  if (ttl === 0) return 0
  return ttl >= Number.MAX_SAFE_INTEGER - version ? Number.MAX_SAFE_INTEGER : version + ttl
}
