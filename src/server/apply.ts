import { assert } from "../lib/assert.ts"
import { compareBytes, equalBytes } from "../lib/bytes.ts"
import { crc32 } from "../lib/checksum.ts"
import { storeU64 } from "../lib/littleEndian.ts"
import type { LogIndex, RangeDescriptor, ReplicaId, Term, Version } from "../types.ts"
import {
  type CommandStatus,
  CommandView,
  commandStatuses,
  conditions,
  operations,
} from "../wire/command.ts"
import { dataKey } from "./engineKeys.ts"
import { entryBase, entryCount, entryHeaderBytes } from "./entryData.ts"
import type { RangeState } from "./rangeState.ts"
import { type SessionLimits, SessionTable } from "./sessions.ts"
import { recordValue, recordVersion, valueHeaderBytes, writeValueHeader } from "./valueRecord.ts"

/**
 * The longest life of a command in the unit of versions: the 120 s that a client may ask for, and a minute for its idea of the range's time. A
 * longer one would keep its session for as long, so it is refused, and its client makes it anew.
 */
export const commandLifetimeMax = 180_000_000

/** What applying needs of the engine. */
export interface KeyValues {
  get(key: Uint8Array): Uint8Array | undefined
  /** The record is `head ‖ tail`; both are copied. */
  putParts(key: Uint8Array, head: Uint8Array, tail: Uint8Array): void
  delete(key: Uint8Array): void
}

export interface AppliedEntry {
  readonly index: LogIndex
  readonly term: Term
  readonly kind: number
  readonly data: Uint8Array
}

/** Results of the last entry applied, command by command; arrays are reused by the next. */
export interface Outcomes {
  count: number
  readonly statuses: Array<CommandStatus>
  readonly versions: Array<Version>
}

/**
 * The replicated state machine of one range: given the same entries in the same order, every replica makes the same writes and
 * the same answers. It reads no clock: time is the entry's stamp.
 *
 * Invariants: an entry is applied once, in index order; versions rise from command to command; a refused command changes nothing.
 */
export class RangeMachine {
  readonly replica: ReplicaId
  readonly sessions: SessionTable
  descriptor: RangeDescriptor
  appliedIndex: LogIndex
  appliedTerm: Term
  rangeTime: Version
  chain: number
  readonly outcomes: Outcomes = { count: 0, statuses: [], versions: [] }

  private readonly engine: KeyValues
  private readonly command = new CommandView()
  private readonly head = new Uint8Array(valueHeaderBytes)
  private readonly mark = new Uint8Array(16)

  constructor(options: {
    state: RangeState
    engine: KeyValues
    limits: SessionLimits
    sessions?: new (limits: SessionLimits) => SessionTable
  }) {
    const { state } = options
    this.engine = options.engine
    this.sessions = new (options.sessions ?? SessionTable)(options.limits)
    this.replica = state.replica
    this.descriptor = state.descriptor
    this.appliedIndex = state.appliedIndex
    this.appliedTerm = state.appliedTerm
    this.rangeTime = state.rangeTime
    this.chain = state.chain
  }

  state(): RangeState {
    return {
      descriptor: this.descriptor,
      replica: this.replica,
      appliedIndex: this.appliedIndex,
      appliedTerm: this.appliedTerm,
      rangeTime: this.rangeTime,
      chain: this.chain,
    }
  }

  /** True when `position` lies inside the range's bounds. */
  contains(position: Uint8Array): boolean {
    const { start, end } = this.descriptor
    return (
      compareBytes(position, start) >= 0 && (end.length === 0 || compareBytes(position, end) < 0)
    )
  }

  /** Applies the next entry; `outcomes` then holds an answer for each of its commands. */
  apply(entry: AppliedEntry): void {
    assert(entry.index === this.appliedIndex + 1, () => `${entry.index} after ${this.appliedIndex}`)
    assert(entry.term >= this.appliedTerm, () => `term ${entry.term} after ${this.appliedTerm}`)
    this.outcomes.count = 0
    this.fold(entry.index, entry.term)
    if (entry.data.length > 0) this.applyCommands(entry.data)
    this.appliedIndex = entry.index
    this.appliedTerm = entry.term
  }

  private applyCommands(data: Uint8Array): void {
    const base = entryBase(data)
    const count = entryCount(data)
    const before = this.rangeTime
    assert(base > before, () => `an entry stamped ${base} after range time ${before}`)
    const { command, outcomes } = this
    let offset = entryHeaderBytes
    for (let j = 0; j < count; j++) {
      command.at(data, offset)
      outcomes.versions[j] = 0
      outcomes.statuses[j] = this.applyCommand(base + j, j)
      offset = command.end
    }
    assert(offset === data.length, "an entry holds its commands and nothing else")
    outcomes.count = count
    this.rangeTime = base + count - 1
    this.sessions.sweep(before, this.rangeTime)
  }

  /**
   * Reads all that applying the entry will read, and changes nothing: so damage is thrown before the first command of it was carried out, and the entry can
   * wait for the repair.
   */
  probe(data: Uint8Array): void {
    if (data.length === 0) return
    const { command } = this
    let offset = entryHeaderBytes
    for (let j = entryCount(data); j > 0; j--) {
      command.at(data, offset)
      const isPut = command.operation === operations.put
      if (!isPut || command.condition !== conditions.none) {
        this.engine.get(dataKey(command.position))
      }
      offset = command.end
    }
  }

  /** Carries out the command under the view, the one at place `at` of its entry; sets its version in `outcomes`. */
  private applyCommand(version: Version, at: number): CommandStatus {
    const { command, sessions, outcomes } = this
    const { clientId, sequence } = command
    const earlier = sessions.find(clientId, sequence)
    if (earlier !== undefined) {
      outcomes.versions[at] = earlier.version
      return earlier.status
    }
    const { expiresAt } = command
    const expired = expiresAt <= version || expiresAt - version > commandLifetimeMax
    if (expired || sessions.isForgotten(clientId, sequence)) return commandStatuses.expired
    if (command.boundsVersion !== this.descriptor.boundsVersion) return commandStatuses.rangeMoved
    const position = command.position
    if (!this.contains(position)) return commandStatuses.rangeMoved
    // Before room is asked for: what the client has answered may be what fills the table.
    sessions.acknowledge(clientId, Math.min(command.ackedBelow, sequence), command.expiresAt)
    if (sessions.isFull(clientId)) return commandStatuses.overloaded
    const key = dataKey(position)
    const status = this.decide(key, at)
    if (status === commandStatuses.done) {
      outcomes.versions[at] = version
      this.write(key, version)
    }
    sessions.record(clientId, sequence, {
      ackedBelow: command.ackedBelow,
      expiresAt: command.expiresAt,
      result: { status, version: outcomes.versions[at] as Version },
    })
    return status
  }

  private decide(key: Uint8Array, at: number): CommandStatus {
    const { command, outcomes } = this
    const isDelete = command.operation === operations.delete
    if (command.condition === conditions.none && !isDelete) return commandStatuses.done
    const record = this.engine.get(key)
    const present = record === undefined ? 0 : recordVersion(record)
    if (!this.conditionHolds(record, present)) {
      outcomes.versions[at] = present
      return commandStatuses.conditionFalse
    }
    return isDelete && record === undefined ? commandStatuses.absent : commandStatuses.done
  }

  private conditionHolds(record: Uint8Array | undefined, present: Version): boolean {
    const { command } = this
    switch (command.condition) {
      case conditions.none:
        return true
      case conditions.versionEquals:
        return present === command.expectedVersion
      case conditions.absent:
        return record === undefined
      default:
        return record !== undefined && equalBytes(recordValue(record), command.expectedValue)
    }
  }

  private write(key: Uint8Array, version: Version): void {
    const { command } = this
    if (command.operation === operations.put) {
      writeValueHeader(this.head, version)
      this.engine.putParts(key, this.head, command.value)
    } else {
      this.engine.delete(key)
    }
    this.fold(version, command.operation)
    this.chain = crc32(command.positionAndValue, this.chain)
  }

  /** Folds two numbers in the chain. */
  private fold(first: number, second: number): void {
    storeU64(this.mark, 0, first)
    storeU64(this.mark, 8, second)
    this.chain = crc32(this.mark, this.chain)
  }
}
