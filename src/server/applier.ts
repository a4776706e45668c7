import { StorageCorruption } from "../disk/disk.ts"
import { entryKinds } from "../raft/message.ts"
import type { AppliedEntry, RangeMachine } from "./apply.ts"
import type { Comparison } from "./comparison.ts"
import type { Merges } from "./merge/merges.ts"
import type { RangeChanges } from "./rangeChanges.ts"
import type { RangeLife } from "./rangeLife.ts"
import type { Replica } from "./replica.ts"
import type { ReplicaSet } from "./replicaSet.ts"
import type { RequestQueue } from "./requestQueue.ts"
import type { StoreSettings } from "./settings.ts"
import type { Storage } from "./storage.ts"
import type { Ticks } from "./ticks.ts"

/** What applying needs of the loop. */
export interface ApplyHost {
  readonly storage: Storage
  readonly settings: StoreSettings
  readonly set: ReplicaSet
  readonly queue: RequestQueue
  readonly life: RangeLife
  readonly changes: RangeChanges
  readonly comparison: Comparison
  readonly ticks: Ticks
  readonly merges: Merges
}

/** Applies what is committed and durable here, a slice a turn, every range in its turn. */
export class Applier {
  private readonly host: ApplyHost
  private turns = 0

  constructor(host: ApplyHost) {
    this.host = host
  }

  /** Applies within the turn's budget. True when more is left that could be applied now. */
  applyCommitted(): boolean {
    const { storage, settings, set } = this.host
    const { engine } = storage
    this.turns++
    // A split adds to the set: the child has its turn in the next.
    const { awake } = set
    let budget = settings.applyBytesPerTurn
    for (let i = 0; i < awake.length; i++) {
      // Another range is first in each turn, so that none starves behind a busy one.
      const replica = awake[(i + this.turns) % awake.length] as Replica
      entries: while (replica.machine.appliedIndex < replica.applyLimit && !replica.installing) {
        if (budget <= 0) return true
        const from = replica.machine.appliedIndex + 1
        const entries = replica.log.entries(from, replica.applyLimit + 1, budget)
        // Lost in damage: it waits until others have given it back.
        if (entries.length === 0) break
        for (const entry of entries) {
          // Without room for it the rest waits for a flush, whose end calls for a turn.
          if (!engine.canWrite(entry.data.length)) return false
          if (engine.needsSeal(entry.data.length)) storage.seal(set.all)
          // The others' turn; this one is looked at again in the next, and calls for none itself: it may lag for ever.
          if (!this.isReadable(replica, entry)) break entries
          const source = this.sourceOf(replica, entry)
          if (source === "waits") break entries
          this.applyOne(replica, entry, source)
          budget -= entry.data.length + 64
        }
      }
    }
    return false
  }

  /** The range that the entry takes in, if it does. */
  private sourceOf(replica: Replica, entry: AppliedEntry): RangeMachine | "waits" | undefined {
    return entry.kind === entryKinds.merge ? this.host.merges.sourceOf(replica, entry) : undefined
  }

  private applyOne(replica: Replica, entry: AppliedEntry, source?: RangeMachine): void {
    const { queue, life, changes, comparison, ticks, merges } = this.host
    const before = replica.machine.descriptor
    queue.applyEntry(replica, entry, source)
    replica.raft.applied(entry.index)
    comparison.applied(replica)
    if (entry.kind === entryKinds.commands || entry.kind === entryKinds.empty) return
    if (entry.kind === entryKinds.tick) ticks.applied(replica)
    life.changed(replica, before)
    if (entry.kind === entryKinds.merge) merges.applied(replica, entry)
    changes.applied(replica, entry)
  }

  /** Whether all that the entry reads is there; else the replica lags, and the damage is reported once. */
  private isReadable(replica: Replica, entry: AppliedEntry): boolean {
    try {
      replica.machine.probe(entry)
      replica.damage = undefined
      return true
    } catch (error) {
      if (!(error instanceof StorageCorruption)) throw error
      if (replica.damage?.message !== error.message) this.host.storage.report(error)
      replica.damage = error
      return false
    }
  }
}
