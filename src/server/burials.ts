import type { Replica } from "./replica.ts"
import type { ReplicaSet } from "./replicaSet.ts"
import type { Storage } from "./storage.ts"
import type { Tombstone } from "./tombstone.ts"

interface Burial {
  readonly replica: Replica
  readonly tombstone: Tombstone
  /** The seal that must be flushed first; `undefined` until the memtable could be sealed. */
  generation: number | undefined
  started: boolean
}

/**
 * The end of replicas, behind a barrier (DESIGN section 3): all that was written of the range is flushed, then ONE edit of the manifest hides the
 * interval and the range-local keys and leaves the tombstone; last goes the log in the journal. A crash before the edit brings the whole replica back, to be
 * told again that it is gone; one after it finds the tombstone, and drops the log that it may still find.
 */
export class Burials {
  private readonly storage: Storage
  private readonly set: ReplicaSet
  private readonly underWay = new Set<Burial>()

  constructor(storage: Storage, set: ReplicaSet) {
    this.storage = storage
    this.set = set
  }

  begin(replica: Replica, tombstone: Tombstone): void {
    this.set.remove(replica)
    this.underWay.add({ replica, tombstone, generation: undefined, started: false })
  }

  /** Call once a turn. */
  advance(): void {
    for (const burial of this.underWay) this.advanceOne(burial)
  }

  private advanceOne(burial: Burial): void {
    if (burial.started || !this.barrierPassed(burial)) return
    burial.started = true
    const { replica, tombstone } = burial
    const held = replica.isEmpty ? undefined : replica.machine.descriptor
    const done = () => {
      this.underWay.delete(burial)
      this.set.buried(replica)
    }
    this.storage.bury(replica.range, tombstone, { held, done })
  }

  private barrierPassed(burial: Burial): boolean {
    const { engine } = this.storage
    if (burial.generation === undefined) {
      if (!engine.canSeal) return false
      // With the state of the one that goes: whatever a crash leaves of its data has a state key of the same age beside it.
      burial.generation = this.storage.seal(this.set.all)
    }
    return engine.flushedThrough >= burial.generation
  }
}
