import { StorageCorruption } from "../disk/disk.ts"
import type { JournalGroup } from "../journal/group.ts"
import { assert } from "../lib/assert.ts"
import { entryKinds } from "../raft/message.ts"
import type { LogIndex, MonotonicMs, RangeId, ReplicaId } from "../types.ts"
import type { RangeMachine } from "./apply.ts"
import type { Asleep } from "./beats.ts"
import { lists, overlap } from "./descriptors.ts"
import { dataEnd, dataKey } from "./engineKeys.ts"
import { eventualLog } from "./eventualStore.ts"
import type { Absorbed } from "./merge/state.ts"
import { firstIndex, firstTerm, ReplicaOpener } from "./openReplicas.ts"
import { decodeSplit } from "./rangeEntries.ts"
import type { RangeState } from "./rangeState.ts"
import type { Replica } from "./replica.ts"
import type { Storage } from "./storage.ts"
import type { StoreLoopOptions } from "./storeLoop.ts"
import { type AbsorbedBy, buries, tombstoneOf } from "./tombstone.ts"

/** Logs of one range that are kept at a time; more are of no use, but a hundred contests for one node come to it. */
const restingMax = 64

/**
 * The replicas of a node: those that live, those on their way out, and those that exist only in the journal. They come by bootstrap, by the split of their
 * parent, or empty, to be filled by a snapshot; they go by burial.
 *
 * A split makes the child at apply, in memory: its state key is sealed with its parent's, its log begins in the journal. After a crash the engine may be older
 * than the split while the journal holds the child's log already. Such a log waits (`awaited`) until its parent has replayed the split. That it exists proves
 * that the split was committed, so the parent replays it without being told, and takes no snapshot and no grave before it has. Where damage keeps the parent from it
 * for good, the log is given up when somebody of the child's group writes: what is left is an empty replica, bound by all that it had promised (`voteFloor`).
 *
 * Invariants:
 * - intervals of replicas on a node are disjoint; an empty replica has none;
 * - one replica of a range lives here at a time, and none up to the id in the range's tombstone ever again;
 * - a split never touches a child that has state: it is at least as new as what the split would make.
 */
export class ReplicaSet {
  readonly byRange = new Map<RangeId, Replica>()
  /** On their way out: they answer nobody, but hold their interval until they are buried. */
  readonly dying = new Map<RangeId, Replica>()
  /** Logs whose range is made by a split that is replayed still. */
  readonly awaited = new Map<RangeId, ReplicaId>()
  /** Of each awaited range: the one whose log has its split; or all those that may have it, where damage has taken entries. */
  private readonly makers = new Map<RangeId, ReadonlyArray<RangeId>>()
  private inOrder: ReadonlyArray<Replica> = []
  private withDying: ReadonlyArray<Replica> = []
  private inTurn: ReadonlyArray<Replica> | undefined
  /** Until then a child could have followed a leader just before this start, without a trace in the journal. */
  private readonly silentUntilMs: MonotonicMs
  private readonly storage: Storage
  private readonly opener: ReplicaOpener
  /** By range: the last split in its log that is known to have been applied once. */
  private readonly replayed = new Map<RangeId, LogIndex>()
  /** By range: the last entry missing from its log, which may be a split. */
  private readonly lastMissing = new Map<RangeId, LogIndex>()

  /** Opens what the directory holds, or what bootstrap places here. Throws `StorageCorruption`. */
  constructor(options: StoreLoopOptions, storage: Storage) {
    this.storage = storage
    this.opener = new (options.parts?.ReplicaOpener ?? ReplicaOpener)(options, storage)
    const stored = storage.loadMachines()
    const isNew = stored.length === 0 && storage.tombstones.size === 0
    const mayBootstrap = isNew && options.bootstrap !== false
    const machines = mayBootstrap ? this.opener.bootstrapMachines() : stored
    this.buryAbsorbed(machines)
    const empty = this.sortOutLogs(new Map(machines.map((each) => [each.descriptor.id, each])))
    if (this.awaited.size > 0) this.findSplits(machines)
    const nowMs = options.clock.monotonicMs
    this.silentUntilMs = nowMs + options.settings.voteSilenceMs
    for (const machine of machines) {
      const committed = this.replayed.get(machine.descriptor.id) ?? 0
      this.add(this.opener.open(machine, { nowMs, committed }))
    }
    for (const [range, replica] of empty) {
      if (this.mayCreate(range, replica)) this.createEmpty(range, replica, nowMs)
    }
  }

  /** The edit that brought a snapshot hid what was here of ranges that it had taken in; their tombstones, put after it, may be lost. */
  private buryAbsorbed(machines: ReadonlyArray<RangeMachine>): void {
    const here = new Set(machines.map(({ descriptor }) => descriptor.id))
    for (const each of machines.flatMap(({ absorbed }) => absorbed)) {
      const { id } = each.source
      if (here.has(id) || this.storage.tombstones.get(id)?.absorbedBy !== undefined) continue
      this.storage.leaveTombstone(id, tombstoneOf(each))
    }
  }

  /** In order of range id. */
  get sorted(): ReadonlyArray<Replica> {
    return this.inOrder
  }

  /** Those that do not sleep, in the same order: whom a turn visits. */
  get awake(): ReadonlyArray<Replica> {
    this.inTurn ??= this.inOrder.filter(({ asleep }) => asleep === undefined)
    return this.inTurn
  }

  /** Those and the dying: all whose state may change. */
  get changing(): ReadonlyArray<Replica> {
    return this.dying.size === 0 ? this.awake : [...this.awake, ...this.dying.values()]
  }

  fallAsleep(replica: Replica, asleep: Asleep): void {
    replica.asleep = asleep
    this.storage.sleeps(replica)
    this.inTurn = undefined
  }

  wake(replica: Replica): void {
    replica.asleep = undefined
    this.storage.wakes(replica)
    this.inTurn = undefined
  }

  /** Those and the dying: all whose state lies in the engine. */
  get all(): ReadonlyArray<Replica> {
    return this.withDying
  }

  private add(replica: Replica): void {
    this.byRange.set(replica.range, replica)
    this.sort()
  }

  private sort(): void {
    this.inOrder = [...this.byRange.values()].sort((left, right) => left.range - right.range)
    this.withDying = [...this.inOrder, ...this.dying.values()]
    this.inTurn = undefined
  }

  // ---- What the journal holds of ranges without state

  /** Drops logs of the buried, finds those that await a split; returns the replicas that had no log yet, but perhaps a vote. */
  private sortOutLogs(
    machines: ReadonlyMap<RangeId, RangeMachine>,
  ): ReadonlyArray<readonly [RangeId, ReplicaId]> {
    const empty: Array<JournalGroup> = []
    for (const group of this.storage.journal.list()) {
      const { range, replica } = group.key
      if (range === eventualLog.range) continue
      if (this.isBuried(range, replica)) group.destroy()
      else if (machines.has(range)) forgetRested(group, machines.get(range) as RangeMachine)
      else if (group.lastIndex === 0) empty.push(group)
      else this.awaited.set(range, replica)
    }
    // Of several that rest (`rest`) the one that heard last is the likeliest to be wanted; the others are made again when somebody asks for them.
    empty.sort((left, right) => right.hardState.term - left.hardState.term)
    return empty.map(({ key }) => [key.range, key.replica])
  }

  /** Looks for the splits that make the awaited ranges, in the logs of their parents, who may be awaited themselves. */
  private findSplits(machines: ReadonlyArray<RangeMachine>): void {
    const wanted = new Set(this.awaited.keys())
    const logs = [
      ...machines.map(({ descriptor, replica, appliedIndex }) => {
        return { range: descriptor.id, replica, appliedIndex }
      }),
      ...[...this.awaited].map(([range, replica]) => {
        return { range, replica, appliedIndex: firstIndex }
      }),
    ]
    for (const { range, replica, appliedIndex } of logs) {
      const log = this.storage.journal.group({ range, replica })
      for (
        let index = Math.max(appliedIndex + 1, log.firstIndex);
        index <= log.lastIndex;
        index++
      ) {
        const entry =
          log.firstMissing(index) === index ? undefined : log.entries(index, index + 1, 1)[0]
        if (entry === undefined) this.lastMissing.set(range, index)
        if (entry?.kind !== entryKinds.split) continue
        const { child } = decodeSplit(entry.data)
        // The first that names the child: one after it can be a proposal that was never committed.
        if (!wanted.delete(child)) continue
        this.replayed.set(range, index)
        this.makers.set(child, [range])
      }
    }
    for (const range of wanted) {
      const makers = [...this.lastMissing.keys()].filter((maker) => maker !== range)
      // A log that was cut off where damage had made a gap has lost the split with the rest.
      if (makers.length > 0 || this.storage.journal.list().some(isHurt)) {
        this.makers.set(range, makers)
        continue
      }
      throw new StorageCorruption({
        path: "journal",
        offset: 0,
        expected: `the state of range ${range}, or the split that makes it`,
        actual: "its log alone",
      })
    }
  }

  /**
   * True while a range has a split ahead of it that makes an awaited one: until that is replayed nothing may take the place of its log, neither a snapshot nor
   * the grave. Stored bytes that can't be read may keep it from that for long, so damage ends the wait.
   */
  replays(range: RangeId): boolean {
    const replica = this.byRange.get(range)
    if (replica === undefined || replica.isEmpty) return false
    if (replica.damage !== undefined || replica.lacksSource) return false
    const index = Math.max(this.replayed.get(range) ?? 0, this.lastMissing.get(range) ?? 0)
    if (replica.machine.appliedIndex >= index) return false
    return [...this.awaited.keys()].some((child) => this.makers.get(child)?.includes(range))
  }

  /** Gives up what the range was to make, as far as no other can. */
  giveUpChildren(range: RangeId, isHopeless: (replica: Replica) => boolean): void {
    for (const [child, makers] of [...this.makers]) {
      if (makers.includes(range)) this.giveUpAwaited(child, isHopeless)
    }
  }

  /**
   * A snapshot has to wait: the split is in the log, or may be in a gap of it. Where the log was cut off before it, or never comes to it, the snapshot may be all there
   * is to come: then what it was to make is given up, also when nobody of that range writes any more.
   */
  refusesSnapshots(range: RangeId, isHopeless: (replica: Replica) => boolean): boolean {
    this.giveUpChildren(range, isHopeless)
    const index = Math.max(this.replayed.get(range) ?? 0, this.lastMissing.get(range) ?? 0)
    return this.replays(range) && (this.byRange.get(range)?.log.lastIndex ?? 0) >= index
  }

  /**
   * A replica of an awaited range's group writes, or a snapshot would skip the split. When no range here can replay the split that makes it, its log is given up: where it ended, its term and its
   * vote still bind the empty replica that may be made in its place. `isHopeless`: a replica misses entries that nobody has.
   */
  giveUpAwaited(range: RangeId, isHopeless: (replica: Replica) => boolean): void {
    const replica = this.awaited.get(range)
    if (replica === undefined || this.mayBeMade(range, isHopeless)) return
    this.storage.journal.group({ range, replica }).forsake()
    this.storage.note(
      `range ${range}, replica ${replica}: damage keeps the split that makes it from being replayed; it waits for a snapshot`,
    )
    this.arrived(range)
  }

  /** `behind`: ranges that wait for this one. Where it is not known which log has a split, two may seem to wait for each other. */
  private mayBeMade(
    range: RangeId,
    isHopeless: (replica: Replica) => boolean,
    behind: ReadonlyArray<RangeId> = [],
  ): boolean {
    return (this.makers.get(range) ?? []).some((maker) => {
      if (behind.includes(maker)) return false
      if (this.awaited.has(maker)) return this.mayBeMade(maker, isHopeless, [...behind, range])
      const replica = this.byRange.get(maker)
      return replica !== undefined && this.replays(maker) && !isHopeless(replica)
    })
  }

  private arrived(range: RangeId): void {
    this.awaited.delete(range)
    this.makers.delete(range)
  }

  // ---- Coming

  isBuried(range: RangeId, replica: ReplicaId): boolean {
    const tombstone = this.storage.tombstones.get(range)
    return tombstone !== undefined && buries(tombstone, replica)
  }

  /** Whether one more replica without data may rest: the journal keeps a record of each. */
  mayRest(range: RangeId): boolean {
    const groups = this.storage.journal.list().filter(({ key }) => key.range === range)
    if (groups.length < restingMax) return true
    this.storage.note(
      `range ${range}: ${restingMax} replicas that came to nothing are kept here; no other is made while the present one waits for its data`,
    )
    return false
  }

  /** True when a replica with this id may be made: none of the range is here, none with it or a later id was buried. */
  mayCreate(range: RangeId, replica: ReplicaId): boolean {
    const isHere = this.byRange.has(range) || this.dying.has(range) || this.awaited.has(range)
    return !isHere && !this.isBuried(range, replica)
  }

  /** A replica without data, for a leader to send a snapshot to. */
  createEmpty(range: RangeId, replica: ReplicaId, nowMs: MonotonicMs): Replica {
    assert(this.mayCreate(range, replica), () => `range ${range} replica ${replica} may be made`)
    const created = this.opener.openEmpty(range, replica, nowMs)
    this.add(created)
    return created
  }

  /**
   * A replica without data is set aside, as if it were down: the journal keeps what it has promised, and it goes on from there when it is made again. Nobody
   * needs a proof for that, so it also ends replicas of memberships that were never committed, of which nobody can tell that they are none.
   */
  rest(replica: Replica): void {
    assert(replica.isEmpty && !replica.installing, () => `range ${replica.range} has no state`)
    assert(this.byRange.get(replica.range) === replica, () => `range ${replica.range} is here`)
    this.byRange.delete(replica.range)
    this.sort()
  }

  /**
   * The parent has applied a split. Returns the right half's replica if it begins here and now; `undefined` when there is a later one, or none is to be.
   * `collect` takes what a core has to hand out.
   */
  splitOff(
    child: RangeMachine,
    nowMs: MonotonicMs,
    collect: (replica: Replica) => void,
  ): Replica | undefined {
    const { descriptor, replica } = child
    const range = descriptor.id
    const present = this.byRange.get(range)
    if (present !== undefined && !present.isEmpty) return undefined
    const isOurs = descriptor.replicas.some((place) => place.replica === replica)
    const isLater = present !== undefined && present.machine.replica > replica
    const dies = (this.dying.get(range)?.machine.replica ?? 0) >= replica
    if (!isOurs || isLater || dies || this.isBuried(range, replica)) {
      // Nobody here owns it any more.
      this.storage.engine.deleteRange(dataKey(descriptor.start), dataEnd(descriptor.end))
      return undefined
    }
    if (present !== undefined && present.machine.replica === replica) {
      collect(present)
      return this.fill(present, child, nowMs)
    }
    const isNew = !this.awaited.has(range) && nowMs >= this.silentUntilMs
    this.arrived(range)
    const committed = this.replayed.get(range) ?? 0
    const opened = this.opener.open(child, { nowMs, isNew, committed })
    this.add(opened)
    return opened
  }

  /** An empty replica, which may have voted, is the child that a split makes: its core begins anew, with its term and vote. */
  private fill(present: Replica, child: RangeMachine, nowMs: MonotonicMs): Replica {
    present.log.resetTo(firstIndex, firstTerm)
    present.begin(child, this.opener.raftOf(child, present.log, { nowMs }))
    return present
  }

  /** The replica's log has been mended: a core over all of it takes over. */
  restart(replica: Replica, nowMs: MonotonicMs): void {
    replica.restart(this.opener.raftOf(replica.machine, replica.log, { nowMs }))
  }

  /**
   * Whether a snapshot with this state may come in now: no other replica holds a part of its interval, and none is on its way out from there. Replicas of ranges that
   * it has taken in go with its coming (`absorbedHere`), unless the log of the one that took them needs them still.
   */
  hasRoomFor({ descriptor, absorbed }: RangeState): boolean {
    const goes = this.absorbedHere(descriptor.id, absorbed)
    return this.withDying.every((held) => {
      const isOther = held.range !== descriptor.id || this.dying.get(held.range) === held
      if (!isOther || held.isEmpty || goes.includes(held)) return true
      return !overlap(held.machine.descriptor, descriptor)
    })
  }

  /** Replicas here of ranges that `range` has taken in, and that nothing here is to take in any more. */
  absorbedHere(range: RangeId, absorbed: ReadonlyArray<Absorbed>): ReadonlyArray<Replica> {
    return absorbed.flatMap(({ source, lastReplica, target, boundsVersion, targetReplica }) => {
      const held = this.byRange.get(source.id)
      if (held === undefined || held.installing || held.machine.replica > lastReplica) return []
      const taker = { range: target, boundsVersion, lastReplica: targetReplica }
      if (range !== target && this.isYetToTake(taker)) return []
      return [held]
    })
  }

  /** The range that took in another one is here, and its state does not show that yet. */
  isYetToTake({ range, boundsVersion, lastReplica }: AbsorbedBy): boolean {
    if (this.awaited.has(range) || this.dying.has(range)) return true
    const taker = this.byRange.get(range)
    if (taker === undefined) return false
    // One without data may still get it from before, unless its replica is a later one.
    if (taker.isEmpty) return taker.machine.replica <= lastReplica
    return taker.machine.descriptor.boundsVersion < boundsVersion
  }

  /**
   * True when a message for a range that is not here may be early: the split that makes it here is still to come. A child has the replica ids of its
   * parent.
   */
  maySplitOff(range: RangeId, replica: ReplicaId): boolean {
    if (this.awaited.has(range)) return true
    return this.inOrder.some((held) => !held.isEmpty && held.machine.replica === replica)
  }

  // ---- Going

  /** The replica is no member any more: from here on it does nothing. Call `buried` when nothing of it is left. */
  remove(replica: Replica): void {
    assert(this.byRange.get(replica.range) === replica, () => `range ${replica.range} is here`)
    this.byRange.delete(replica.range)
    // What it had to replay is not its successor's.
    this.replayed.delete(replica.range)
    this.lastMissing.delete(replica.range)
    this.dying.set(replica.range, replica)
    this.sort()
  }

  /** A range here has taken this one in. Its log must be kept until that is in tables. */
  takenIn(replica: Replica): void {
    assert(this.byRange.get(replica.range) === replica, () => `range ${replica.range} is here`)
    this.byRange.delete(replica.range)
    this.replayed.delete(replica.range)
    this.lastMissing.delete(replica.range)
    this.sort()
  }

  buried(replica: Replica): void {
    this.dying.delete(replica.range)
    this.sort()
    replica.log.destroy()
  }
}

/** The log of a replica that rested and that a later one of its node has outlived: its id is gone for ever, and the later one's tombstone will say so. */
function forgetRested(group: JournalGroup, { descriptor, replica }: RangeMachine): void {
  const { key } = group
  if (key.replica >= replica || !lists(descriptor, replica)) return
  if (!lists(descriptor, key.replica)) group.destroy()
}

/** Damage has taken entries from the log, and not all that it had promised is there again. */
function isHurt({ voteFloor }: JournalGroup): boolean {
  return voteFloor !== undefined
}
