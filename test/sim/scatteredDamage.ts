import { recordTypes } from "../../src/journal/format.ts"
import type { Prng } from "../../src/lib/prng.ts"
import type { Lsn, NodeId } from "../../src/types.ts"
import { type Place, records } from "../server/journalRecords.ts"
import type { SimulatedDisk } from "./simulatedDisk.ts"
import type { Ending, SimulatedNode } from "./simulatedNode.ts"
import type { Trace } from "./trace.ts"

/** Which records of which node damage takes, in a seed that has such damage. */
export interface ScatterParameters {
  /** How often it strikes in a run. */
  readonly strikes: number
  /** Share of a node's own part of all entries that it loses at a strike. */
  readonly share: number
  /** Share of nodes that go down for it; the others meet it while they run. */
  readonly stopRate: number
  /** Decides whose part an entry is. */
  readonly offset: number
}

export interface ScatterWorld {
  readonly now: number
  readonly trace: Trace
  readonly nodes: ReadonlyMap<NodeId, SimulatedNode>
  schedule(time: number, run: () => void): void
}

/** What a record's checksum and its length take up. Without its length, those behind it are lost too. */
const lengthEndBytes = 8

/**
 * Damages the journals of all nodes, but no entry on two of them: every entry is one node's to lose, for the whole run, whichever nodes hold it. What a majority
 * has is then still held by somebody, so nothing that was acknowledged may be lost, no node may stop for good, and all must end as if nothing had been.
 */
export class ScatteredDamage {
  private readonly world: ScatterWorld
  private readonly parameters: ScatterParameters
  private readonly prng: Prng
  private readonly stop: (node: SimulatedNode, ending: Ending) => void
  /** Records damaged so far. */
  count = 0

  constructor(options: {
    world: ScatterWorld
    parameters: ScatterParameters
    prng: Prng
    /** Ends a node's process, to be started again later. */
    stop: (node: SimulatedNode, ending: Ending) => void
  }) {
    this.world = options.world
    this.parameters = options.parameters
    this.prng = options.prng
    this.stop = options.stop
  }

  /** Strikes at random until `endUs`. */
  start(endUs: number): void {
    const { world, prng, parameters } = this
    for (let i = 0; i < parameters.strikes; i++) {
      world.schedule(prng.int(endUs / 20, endUs - 1), () => this.strike())
    }
  }

  private strike(): void {
    const { world, prng, parameters } = this
    for (const node of world.nodes.values()) {
      if (prng.chance(parameters.stopRate)) this.stop(node, prng.chance(0.5) ? "power" : "kill")
      this.damage(node)
    }
  }

  private damage(node: SimulatedNode): void {
    const { world, prng, parameters } = this
    const places = records(node.disk)
    const durableLsn = surelyStated(places)
    const own = places.filter(
      ({ endLsn, type, range, index }) =>
        endLsn <= durableLsn &&
        (type === recordTypes.append || type === recordTypes.rewrite) &&
        (range + index + parameters.offset) % world.nodes.size === node.id - 1,
    )
    node.isDamaged = true
    for (const { path, start, end } of own) {
      if (!prng.chance(parameters.share)) continue
      node.disk.corrupt(path, prng.int(start + lengthEndBytes, end - 1), 1 << prng.int(0, 7))
      this.count++
    }
    world.trace.record("fault", world.now, scatterKind, node.id)
  }
}

/**
 * Up to where the journal will be known to have been durable, whatever else befalls it. What nothing behind it states to be durable cannot be told from a torn
 * tail: the last batch, for as long as it is the last. The statement of the last one may go with a power loss itself, and so may those that hold no record.
 */
export function surelyStated(places: ReadonlyArray<Place>): Lsn {
  const lastLsn = places.at(-1)?.endLsn ?? 0
  return places.reduce(
    (stated, place) => (place.endLsn < lastLsn ? Math.max(stated, place.statedLsn) : stated),
    0,
  )
}

/** Whether damage at this place of a journal could not be told from a torn tail, so that the node would forget what it acknowledged last. */
export function looksTorn(disk: SimulatedDisk, path: string, offset: number): boolean {
  const places = records(disk)
  const durableLsn = surelyStated(places)
  return places.some(
    (place) => place.path === path && place.endLsn > durableLsn && offset >= place.batchStart,
  )
}

/** In the trace, beside the kinds that the seed weighs. */
const scatterKind = 99
