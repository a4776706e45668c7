import { slotCount } from "../../lib/slot.ts"
import type { NamespaceId, NodeId, RingVersion, Slot } from "../../types.ts"
import type { Actor } from "../dot.ts"
import { slotsPerRun } from "./keys.ts"
import type { OwnerTables } from "./owner.ts"
import type { NodeHost } from "./ports.ts"

/** What a change of the ring brings to this node; the server implements it over `topology/ringChange.ts`. */
export interface HandOverPort {
  /** Slots of which this node has to say when it holds all of them (`reportersOf`), and the version of the ring that began the step. */
  pending(): ReadonlyArray<{ readonly slot: Slot; readonly since: RingVersion }>
  /** Who hands such a slot over to this node, for keys of so many copies (`transfersOf`). */
  sources(slot: Slot, copies: number): ReadonlyArray<NodeId>
}

/** A run of slots of a namespace. */
export interface RunTask {
  readonly namespace: NamespaceId
  /** First slot of the run. */
  readonly start: Slot
}

/** What was found out about some slots by a pull that came to its end. */
export interface PulledSlots {
  readonly namespace: NamespaceId
  readonly slots: ReadonlyArray<Slot>
  readonly source: NodeId
  /** Of the ring that the source worked by when it took its clocks. */
  readonly ringVersion: RingVersion
  /** Those of them that the source was refilling itself: it does not hold all that it ought to hand over. */
  readonly refilling: ReadonlyArray<Slot>
}

/** A slot of a namespace that is on its way to this node. */
interface Filling {
  /** As which this node owned the slot when it was pulled. */
  actor: Actor | undefined
  readonly since: RingVersion
  readonly sources: ReadonlyArray<NodeId>
  /** Sources that have been pulled from. */
  pulled: ReadonlyArray<NodeId>
  /** With it all that was pulled is durable. */
  mark: number
}

/**
 * Which of the slots that are on their way to this node are here. In memory: after a restart all are pulled once more, and mostly found equal.
 *
 * Invariants:
 * - a slot is filled when each source has been pulled from to the end, after it knew the version that began the step: from then on the source refuses writes of coordinators
 *   who do not know the new owner, so whatever counted the source alone is in what was pulled;
 * - a source that lacks data of the slot itself does not count, until it has been refilled (refills.ts);
 * - what was pulled counts when it is durable here: the ring may rely on it from then on;
 * - what was pulled for one step counts for no other, and what was pulled in one epoch of this node for no other: the slot may have been dropped in between.
 */
export class ExchangeFills {
  private readonly host: NodeHost
  private readonly owner: Pick<OwnerTables, "actorOf" | "markOf">
  private readonly handOver: HandOverPort
  /** Slots that are being filled, with their steps. */
  private steps = new Map<Slot, RingVersion>()
  /** By namespace, then slot; each slot that is being filled has its place. */
  private fillings = new Map<NamespaceId, ReadonlyArray<Filling | undefined>>()

  constructor(
    host: NodeHost,
    owner: Pick<OwnerTables, "actorOf" | "markOf">,
    handOver: HandOverPort,
  ) {
    this.host = host
    this.owner = owner
    this.handOver = handOver
  }

  /** The ring or the namespaces have changed. */
  ringChanged(): void {
    const { namespaces } = this.host
    const pending = this.handOver.pending()
    this.steps = new Map(pending.map(({ slot, since }) => [slot, since]))
    const before = this.fillings
    this.fillings = new Map()
    for (const [namespace, { copies }] of namespaces) {
      const known = before.get(namespace)
      const fillings = new Array<Filling | undefined>(slotCount).fill(undefined)
      for (const { slot, since } of pending) {
        const sources = this.handOver.sources(slot, copies)
        const same = known?.[slot]?.since === since ? known[slot] : undefined
        const { actor, pulled, mark } = same ?? nothingPulled
        fillings[slot] = { actor, since, sources, pulled, mark }
      }
      this.fillings.set(namespace, fillings)
    }
  }

  note({ namespace, slots, source, ringVersion, refilling }: PulledSlots): void {
    const fillings = this.fillings.get(namespace)
    for (const slot of slots) {
      if (refilling.includes(slot)) continue
      const filling = fillings?.[slot]
      const actor = this.owner.actorOf(namespace, slot)
      if (filling === undefined || ringVersion < filling.since || actor === undefined) continue
      const pulled = filling.actor === actor ? filling.pulled : []
      filling.mark = Math.max(pulled.length === 0 ? 0 : filling.mark, this.markOf(namespace, slot))
      filling.actor = actor
      filling.pulled = pulled.includes(source) ? pulled : [...pulled, source]
    }
  }

  protected markOf(namespace: NamespaceId, slot: Slot): number {
    return this.owner.markOf(namespace, slot)
  }

  /** Whether all of the slot is here, by the step that version `since` began. */
  isFilled(namespace: NamespaceId, slot: Slot, since: RingVersion): boolean {
    return this.steps.get(slot) === since && this.isHere(namespace, slot)
  }

  /** Slots of which all is here, of every namespace. */
  filled(): ReadonlyArray<{ readonly slot: Slot; readonly since: RingVersion }> {
    const found: Array<{ slot: Slot; since: RingVersion }> = []
    const namespaces = [...this.host.namespaces.keys()]
    for (const [slot, since] of this.steps) {
      if (namespaces.every((id) => this.isHere(id, slot))) found.push({ slot, since })
    }
    return found
  }

  private isHere(namespace: NamespaceId, slot: Slot): boolean {
    const filling = this.fillings.get(namespace)?.[slot]
    if (filling === undefined) return false
    const { sources, mark } = filling
    if (sources.some((source) => this.misses(filling, namespace, slot, source))) return false
    return mark <= this.host.store.durableMark
  }

  private misses(
    { actor, pulled }: Filling,
    namespace: NamespaceId,
    slot: Slot,
    source: NodeId,
  ): boolean {
    return !pulled.includes(source) || actor !== this.owner.actorOf(namespace, slot)
  }

  /** Runs with slots that are still to be pulled, by source. */
  tasks(): ReadonlyMap<NodeId, ReadonlyArray<RunTask>> {
    const tasks = new Map<NodeId, Array<RunTask>>()
    for (const namespace of this.host.namespaces.keys()) {
      for (let start = 0; start < slotCount; start += slotsPerRun) {
        for (const source of this.wantedOf(namespace, start)) {
          const list = tasks.get(source)
          if (list === undefined) tasks.set(source, [{ namespace, start }])
          else list.push({ namespace, start })
        }
      }
    }
    return tasks
  }

  private wantedOf(namespace: NamespaceId, start: Slot): ReadonlySet<NodeId> {
    const wanted = new Set<NodeId>()
    const fillings = this.fillings.get(namespace)
    for (let slot = start; slot < start + slotsPerRun; slot++) {
      const filling = fillings?.[slot]
      for (const source of filling?.sources ?? none) {
        if (filling !== undefined && this.misses(filling, namespace, slot, source)) {
          wanted.add(source)
        }
      }
    }
    return wanted
  }

  /** Whether anything of a run is still to be pulled from a source. */
  wants({ namespace, start }: RunTask, source: NodeId): boolean {
    return this.wantedOf(namespace, start).has(source)
  }
}

const none: ReadonlyArray<NodeId> = []
const nothingPulled = { actor: undefined, pulled: none, mark: 0 } as const
