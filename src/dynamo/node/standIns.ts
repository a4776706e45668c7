import type { NodeId } from "../../types.ts"
import type { MakeState, StandInPort } from "./coordinatorHost.ts"
import type { Hints } from "./hints.ts"
import type { KeyPlace } from "./owner.ts"
import type { NodeHost, OwnersView } from "./ports.ts"
import type { EventualRefusal } from "./requests.ts"
import type { Tenures } from "./tenures.ts"

/** This node as a stand-in that coordinates: it mints in a tenure, and owes what it writes to all owners. */
export class StandIns implements StandInPort {
  private readonly host: NodeHost
  private readonly hints: Hints
  private readonly tenures: Tenures
  private readonly owners: OwnersView

  constructor(parts: {
    readonly host: NodeHost
    readonly hints: Hints
    readonly tenures: Tenures
    readonly owners: OwnersView
  }) {
    this.host = parts.host
    this.hints = parts.hints
    this.tenures = parts.tenures
    this.owners = parts.owners
  }

  write(place: KeyPlace, copies: number, make: MakeState): Uint8Array | EventualRefusal {
    const { namespace, slot } = place
    const owners = this.ownersOf(place)
    if (!this.hints.hasRoom(owners, 0)) return full
    const local = this.hints.state(place)
    const made = make(local, this.tenures.next(namespace, slot))
    const isHeld =
      made instanceof Uint8Array && this.hints.hold(place, { state: made, owners, copies })
    if (isHeld) this.tenures.mint(namespace, slot)
    else this.tenures.giveUp(namespace, slot)
    return isHeld || !(made instanceof Uint8Array) ? made : full
  }

  keep(place: KeyPlace, copies: number, state: Uint8Array): boolean {
    const owners = this.ownersOf(place)
    return owners.length > 0 && this.hints.hold(place, { state, owners, copies })
  }

  private ownersOf({ namespace, slot }: KeyPlace): ReadonlyArray<NodeId> {
    const { ring, namespaces } = this.host
    const copies = namespaces.get(namespace)?.copies ?? 0
    ring?.owners(slot, copies, this.owners)
    return [...this.owners.nodes.subarray(0, this.owners.count)]
  }
}

const full: EventualRefusal = {
  _tag: "Overloaded",
  what: "what this node holds for owners that are out of reach",
}
