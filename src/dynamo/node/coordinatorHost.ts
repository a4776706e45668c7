import type { NamespaceId, Slot } from "../../types.ts"
import type { SlotPlan } from "../coordinator/slotPlan.ts"
import type { NewDot } from "../crdt/set.ts"
import type { CounterRetries } from "./counterRetries.ts"
import type { KeyPlace, Owner } from "./owner.ts"
import type { EventualNamespace, NodeHost } from "./ports.ts"
import type { EventualRefusal, EventualReply } from "./requests.ts"

/** Gives the next state of a key, or refuses. */
export type MakeState = (local: Uint8Array | undefined, dot: NewDot) => Uint8Array | EventualRefusal

/** This node as a stand-in: what it writes and holds for owners that are out of reach (hints.ts, tenures.ts). */
export interface StandInPort {
  /** Writes under a dot of its tenure, owed to all owners. */
  write(place: KeyPlace, copies: number, make: MakeState): Uint8Array | EventualRefusal
  /** Holds a state for whoever owns its slot by this node's ring; false: there is no room. */
  keep(place: KeyPlace, copies: number, state: Uint8Array): boolean
}

export interface CoordinatorOptions {
  /** An owner that is silent for longer is stood in for, or a spare is asked. */
  readonly patienceMs: number
  /** Requests under way here; beyond, they are refused as overloaded. */
  readonly requestsMax: number
  /** Stamps further ahead of this node's clock are refused. */
  readonly clockAheadMaxMs: number
}

/** What reads and writes share. */
export interface CoordinatorHost {
  readonly host: NodeHost
  readonly owner: Owner
  readonly standIn: StandInPort
  readonly options: CoordinatorOptions
  readonly retries: CounterRetries
  readonly hasRoom: boolean
  /** By the ring in force; `undefined` until one is known. */
  planOf(namespace: EventualNamespace, slot: Slot): SlotPlan | undefined
  /** Whether the slot has changed since the plan was made, by the ring in force. */
  isOutdated(plan: SlotPlan, slot: Slot): boolean
  nextId(): number
  /** The answer to a request, and to the retries of one that was written. */
  answer(reply: EventualReply, wasWritten: boolean): void
}

export function unknownNamespace(namespace: NamespaceId): EventualRefusal {
  return { _tag: "InvalidRequest", message: `there is no eventual namespace ${namespace} here` }
}

export const noRing: EventualRefusal = {
  _tag: "Overloaded",
  what: "this node has not learned the ring yet",
}
export const tooMany: EventualRefusal = {
  _tag: "Overloaded",
  what: "too many requests are under way",
}
