import { assert } from "../lib/assert.ts"
import { compareBytes } from "../lib/bytes.ts"
import { namespaceOfInterval } from "../lib/position.ts"
import { entryKinds } from "../raft/message.ts"
import type { LogIndex, Position, RangeDescriptor, Term, Version } from "../types.ts"
import { BatchView } from "../wire/batch.ts"
import {
  type CommandStatus,
  CommandView,
  commandStatuses,
  conditions,
  operations,
} from "../wire/command.ts"
import type { OperationView } from "../wire/commandCodes.ts"
import { metaRange } from "./bootstrap.ts"
import { dataEnd, dataKey } from "./engineKeys.ts"
import { type AppliedEntry, entryBase, entryCount, entryHeaderBytes } from "./entryData.ts"
import { type KeyValues, KeyWriter } from "./keyWriter.ts"
import { MergingMachine } from "./merge/mergingMachine.ts"
import { checkTick, decodeClear, decodeMembersChange, decodeSplit } from "./rangeEntries.ts"
import type { RangeState } from "./rangeState.ts"
import { type SessionLimits, SessionTable } from "./sessions.ts"

export type { AppliedEntry } from "./entryData.ts"
export type { KeyValues } from "./keyWriter.ts"

/**
 * The longest life of a command in the unit of versions: the 120 s that a client may ask for, and a minute for its idea of the range's time. A
 * longer one would keep its session for as long, so it is refused, and its client makes it anew.
 */
export const commandLifetimeMax = 180_000_000

/** Where the log of a range begins that a split makes, and one of a new cluster: a replica without a log is before it, and needs a snapshot. */
export const firstIndex = 1
export const firstTerm = 1

/** Results of the last entry applied, command by command; arrays are reused by the next. */
export interface Outcomes {
  count: number
  readonly statuses: Array<CommandStatus>
  readonly versions: Array<Version>
  readonly values: Array<Uint8Array | undefined>
}

/** What the last entry did to the range itself; `merge`: a step of one; `refused`: its versions no longer fitted, and it did nothing. */
export type RangeChange = "members" | "split" | "clear" | "merge" | "refused"

interface MachineOptions {
  readonly state: RangeState
  readonly engine: KeyValues
  readonly limits: SessionLimits
  readonly sessions?: new (limits: SessionLimits) => SessionTable
}

/**
 * The replicated state machine of one range: given the same entries in the same order, every replica makes the same writes and
 * the same answers. It reads no clock: time is the entry's stamp, and command j sees the entry's base + j. Its part in merges is that of its base.
 *
 * Invariants: an entry is applied once, in index order; versions rise from command to command; a refused command changes nothing.
 */
export class RangeMachine extends MergingMachine {
  appliedIndex: LogIndex
  appliedTerm: Term
  readonly outcomes: Outcomes = { count: 0, statuses: [], versions: [], values: [] }
  /** Of the last entry. */
  changed: RangeChange | undefined
  /** The right half, when the last entry was a split that took effect; nothing of it is stored yet but its data. */
  child: RangeMachine | undefined

  private readonly options: MachineOptions
  private readonly command = new CommandView()
  private readonly batch = new BatchView()

  constructor(options: MachineOptions) {
    const { state, engine, limits, sessions = SessionTable } = options
    super(state, new KeyWriter(engine, state.chain), new sessions(limits))
    this.options = options
    this.appliedIndex = state.appliedIndex
    this.appliedTerm = state.appliedTerm
  }

  state(): RangeState {
    return {
      descriptor: this.descriptor,
      replica: this.replica,
      appliedIndex: this.appliedIndex,
      appliedTerm: this.appliedTerm,
      rangeTime: this.rangeTime,
      chain: this.chain,
      lastReplica: this.lastReplica,
      merge: this.merge,
      absorbed: this.absorbed,
    }
  }

  /** True when `position` lies inside the range's bounds. */
  contains(position: Uint8Array): boolean {
    const { start, end } = this.descriptor
    return (
      compareBytes(position, start) >= 0 && (end.length === 0 || compareBytes(position, end) < 0)
    )
  }

  /**
   * Applies the next entry; `outcomes` then holds an answer for each of its commands, `changed`, `child` and `taken` what else became of it. `source`: the range that
   * an entry takes in which commits a merge, applied up to where it was prepared.
   */
  apply(entry: AppliedEntry, source?: RangeMachine): void {
    assert(entry.index === this.appliedIndex + 1, () => `${entry.index} after ${this.appliedIndex}`)
    assert(entry.term >= this.appliedTerm, () => `term ${entry.term} after ${this.appliedTerm}`)
    this.outcomes.count = 0
    this.changed = undefined
    this.child = undefined
    this.taken = undefined
    this.keys.fold(entry.index, entry.term)
    const { data } = entry
    if (entry.kind === entryKinds.commands) this.applyCommands(data)
    else if (entry.kind === entryKinds.merge) {
      this.changed = this.applyMerge(entry, source) ? "merge" : "refused"
    } else if (entry.kind !== entryKinds.empty) this.applyChange(entry.kind, data)
    this.appliedIndex = entry.index
    this.appliedTerm = entry.term
  }

  /**
   * Reads all that applying the entry will read, and changes nothing: so damage is thrown before the first command of it was carried out, and the entry can
   * wait for the repair.
   */
  probe(entry: { readonly kind: number; readonly data: Uint8Array }): void {
    if (entry.kind !== entryKinds.commands) return
    const { data } = entry
    const { command, batch } = this
    let offset = entryHeaderBytes
    for (let j = entryCount(data); j > 0; j--) {
      command.at(data, offset)
      if (command.operation === operations.batch) {
        batch.begin(command.value)
        while (batch.next()) this.probeKey(batch)
      } else {
        this.probeKey(command)
      }
      offset = command.end
    }
  }

  private probeKey(view: OperationView): void {
    if (view.operation === operations.put && view.condition === conditions.none) return
    this.options.engine.get(dataKey(view.position))
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
      outcomes.values[j] = undefined
      outcomes.statuses[j] = this.applyCommand(base + j, j)
      offset = command.end
    }
    assert(offset === data.length, "an entry holds its commands and nothing else")
    outcomes.count = count
    if (this.isPrepared) return
    this.rangeTime = base + count - 1
    this.sessions.sweep(before, this.rangeTime)
  }

  /** Carries out the command under the view, the one at place `at` of its entry; sets its version and value in `outcomes`. */
  private applyCommand(version: Version, at: number): CommandStatus {
    const { command, sessions, outcomes } = this
    const { clientId, sequence } = command
    if (this.isPrepared) return commandStatuses.rangeMoved
    const earlier = sessions.find(clientId, sequence)
    if (earlier !== undefined) {
      outcomes.versions[at] = earlier.version
      outcomes.values[at] = earlier.value
      return earlier.status
    }
    const { expiresAt } = command
    const expired = expiresAt <= version || expiresAt - version > commandLifetimeMax
    if (expired || sessions.isForgotten(clientId, sequence)) return commandStatuses.expired
    if (command.boundsVersion !== this.descriptor.boundsVersion) return commandStatuses.rangeMoved
    const isBatch = command.operation === operations.batch
    const position = command.position
    const isInside = isBatch ? this.containsBatch() : this.contains(position)
    if (!isInside) return commandStatuses.rangeMoved
    // Before room is asked for: what the client has answered may be what fills the table.
    sessions.acknowledge(clientId, Math.min(command.ackedBelow, sequence), command.expiresAt)
    if (sessions.isFull(clientId)) return commandStatuses.overloaded
    const status = isBatch ? this.applyBatch(version, at) : this.applySingle(version, at, position)
    sessions.record(clientId, sequence, {
      ackedBelow: command.ackedBelow,
      expiresAt: command.expiresAt,
      result: { status, version: outcomes.versions[at] as Version, value: outcomes.values[at] },
    })
    return status
  }

  private applySingle(version: Version, at: number, position: Position): CommandStatus {
    const { command, keys, outcomes } = this
    const status = keys.judge(command, version, position)
    if (status === commandStatuses.done) {
      keys.carryOut(command, version)
      outcomes.versions[at] = version
      outcomes.values[at] = keys.result
    } else if (status !== commandStatuses.absent) {
      outcomes.versions[at] = keys.present
    }
    return status
  }

  private containsBatch(): boolean {
    const { batch } = this
    batch.begin(this.command.value)
    while (batch.next()) if (!this.contains(batch.position)) return false
    return true
  }

  /** All of a batch at one version, or nothing of it. Its keys are different ones, so that each is judged by the state before the batch. */
  private applyBatch(version: Version, at: number): CommandStatus {
    const { batch, keys, outcomes } = this
    const { done, absent } = commandStatuses
    batch.begin(this.command.value)
    for (let place = 0; batch.next(); place++) {
      const status = keys.judge(batch, version)
      if (status === done || status === absent) continue
      outcomes.versions[at] = keys.present
      outcomes.values[at] = Uint8Array.of(place, place >>> 8)
      return status
    }
    batch.begin(this.command.value)
    while (batch.next()) if (keys.judge(batch, version) === done) keys.carryOut(batch, version)
    outcomes.versions[at] = version
    return done
  }

  /** An entry that is no command: it moves range time to its stamp, and does what its kind says. */
  private applyChange(kind: number, data: Uint8Array): void {
    const base = entryBase(data)
    const before = this.rangeTime
    assert(base > before, () => `an entry stamped ${base} after range time ${before}`)
    this.keys.fold(base, kind)
    if (this.isPrepared) {
      // Nothing else is proposed, and it could not be undone: members count from when their entry is in a log.
      assert(kind !== entryKinds.members, "the members of a prepared range stay")
      this.changed = "refused"
      return
    }
    this.rangeTime = base
    this.sessions.sweep(before, base)
    switch (kind) {
      case entryKinds.members:
        this.changed = this.changeMembers(data)
        break
      case entryKinds.split:
        this.changed = this.split(data)
        break
      case entryKinds.clear:
        this.changed = this.clear(data)
        break
      default:
        assert(kind === entryKinds.tick, () => `an entry of kind ${kind}`)
        checkTick(data)
    }
  }

  /** The core has decided that this is the group's membership; here it becomes what the range says of itself. */
  private changeMembers(data: Uint8Array): RangeChange {
    const { membersVersion, replicas } = decodeMembersChange(data)
    const present = this.descriptor.membersVersion
    assert(this.merge === undefined, "the members of a range that is being merged stay")
    assert(membersVersion > present, () => `members version ${membersVersion} after ${present}`)
    this.descriptor = { ...this.descriptor, membersVersion, replicas }
    for (const { replica } of replicas) {
      if (replica > this.lastReplica) this.lastReplica = replica
    }
    return "members"
  }

  /**
   * Cuts the range in two: the left half goes on under its id, the right half begins as `child`, with the same replicas, sessions, chain and range time, at the
   * first index of its own log. Data stays where it is, because both halves keep theirs in the same engine.
   */
  private split(data: Uint8Array): RangeChange {
    const order = decodeSplit(data)
    const { descriptor } = this
    if (!this.maySplit(order)) return "refused"
    const { at } = order
    const { start, end } = descriptor
    const boundsVersion = descriptor.boundsVersion + 1
    const half = (id: number, from: Position, to: Position): RangeDescriptor => {
      const namespace = namespaceOfInterval(from, to)
      return { ...descriptor, id, start: from, end: to, boundsVersion, namespace }
    }
    this.keys.foldBytes(at)
    const right = half(order.child, at, end)
    this.descriptor = half(descriptor.id, start, at)
    // A replica that came by a snapshot from before it was a member has no right to the other half.
    const isMember = descriptor.replicas.some(({ replica }) => replica === this.replica)
    if (isMember) this.child = this.begin(right)
    return "split"
  }

  /** A range that begins with what this one is by now. */
  private begin(descriptor: RangeDescriptor): RangeMachine {
    const first = { appliedIndex: firstIndex, appliedTerm: firstTerm }
    // Who holds the child has dealt with all that its parent had taken in.
    const absorbed = this.absorbed.map((each) => ({ ...each, since: firstIndex }))
    const state = { ...this.state(), ...first, descriptor, absorbed }
    const child = new (this.constructor as typeof RangeMachine)({ ...this.options, state })
    this.sessions.copyTo(child.sessions)
    return child
  }

  private maySplit(order: ReturnType<typeof decodeSplit>): boolean {
    const { id, start, boundsVersion, membersVersion, replicas } = this.descriptor
    return (
      id !== metaRange &&
      this.merge === undefined &&
      order.child !== id &&
      order.boundsVersion === boundsVersion &&
      order.membersVersion === membersVersion &&
      replicas.every(({ role }) => role === "voter" || role === "learner") &&
      compareBytes(order.at, start) > 0 &&
      this.contains(order.at)
    )
  }

  /** Removes all data; sessions stay, so that no retry finds its command forgotten. */
  private clear(data: Uint8Array): RangeChange {
    const { boundsVersion, start, end } = this.descriptor
    if (decodeClear(data).boundsVersion !== boundsVersion) return "refused"
    this.options.engine.deleteRange(dataKey(start), dataEnd(end))
    return "clear"
  }
}
