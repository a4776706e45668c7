import type { NamespaceId, NodeId, Slot } from "../../types.ts"
import type { SlotPlan } from "../coordinator/slotPlan.ts"
import type { EventualNamespace, OwnersView, RingPort } from "./ports.ts"

/** Makes the plans of one version of the ring, a slot's once: requests share it, and it never changes. */
export class Plans {
  readonly ring: RingPort
  private readonly node: NodeId
  private readonly newOwners: () => OwnersView
  private readonly byNamespace = new Map<NamespaceId, Array<SlotPlan | undefined>>()

  constructor(options: {
    readonly ring: RingPort
    readonly node: NodeId
    readonly newOwners: () => OwnersView
  }) {
    this.ring = options.ring
    this.node = options.node
    this.newOwners = options.newOwners
  }

  of({ id, copies }: EventualNamespace, slot: Slot): SlotPlan {
    let plans = this.byNamespace.get(id)
    if (plans === undefined) {
      plans = []
      this.byNamespace.set(id, plans)
    }
    plans[slot] ??= this.make(copies, slot)
    return plans[slot]
  }

  private make(copies: number, slot: Slot): SlotPlan {
    const { ring, node } = this
    const owners = this.newOwners()
    ring.owners(slot, copies, owners)
    const zone = ring.zoneOf(node)
    const localMask = ring.maskOfZone(owners, zone)
    const standIns = ring.standIns(slot, copies).map((other) => ({
      node: other,
      isLocal: ring.zoneOf(other) === zone,
    }))
    // Who coordinates as a stand-in holds what he writes in any case, so he is the first to count.
    const own = standIns.filter((standIn) => standIn.node === node)
    const others = standIns.filter((standIn) => standIn.node !== node)
    return {
      ringVersion: ring.version,
      copies,
      owners,
      localMask,
      readOrder: readOrder(owners, localMask, node),
      standIns: [...own, ...others],
    }
  }
}

function readOrder(owners: OwnersView, localMask: number, self: NodeId): ReadonlyArray<number> {
  const distance = (place: number) => {
    if (owners.nodes[place] === self) return 0
    return (localMask & (1 << place)) !== 0 ? 1 : 2
  }
  const places = Array.from({ length: owners.count }, (_, place) => place)
  return places.sort((left, right) => distance(left) - distance(right) || left - right)
}
