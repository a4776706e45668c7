import type { ByteWriter } from "../../lib/byteWriter.ts"
import type { MonotonicMs, NamespaceId, NodeId, RingVersion, Slot, WallMs } from "../../types.ts"
import type { Level, SlotOwnersPort } from "../coordinator/slotPlan.ts"
import type { ConflictRule } from "../elements.ts"

/** What the eventual half of a node needs of the rest. The server implements it over journal, engine and ring. */

/** An eventual namespace, as the meta group has it. */
export interface EventualNamespace {
  readonly id: NamespaceId
  readonly rule: ConflictRule
  /** N. */
  readonly copies: number
  /** Levels of requests that name none. */
  readonly write: Level
  readonly read: Level
}

/**
 * The node's own bytes, in order of key; keys are of `keys.ts`. What is put shows at once, and is durable when `durableMark` has reached the mark that it was given. All that
 * one turn puts becomes durable together: a crash takes all of it or nothing.
 */
export interface NodeStore {
  /** Never changed or reused, so it may be kept; not to be written to. `skip`: without so many bytes at its beginning. */
  get(key: Uint8Array, skip?: number): Uint8Array | undefined
  /** The value is `head ‖ tail`. */
  put(key: Uint8Array, head: Uint8Array, tail?: Uint8Array): void
  delete(key: Uint8Array): void
  deleteRange(lower: Uint8Array, upper: Uint8Array): void
  /** Adds a record to the log that is no key's. When the log is read back it comes in its place among the puts (owner.ts). */
  log(record: Uint8Array): void
  /** There is no room for puts now; what is put all the same is kept. */
  readonly isFull: boolean
  /** Visits from `lower` to before `upper`, ascending, until `visit` returns false. Views; nothing may be put meanwhile. */
  scan(
    lower: Uint8Array,
    upper: Uint8Array,
    visit: (key: Uint8Array, value: Uint8Array) => boolean,
  ): void
  /** Of whatever was put last. It never goes down, also not over a restart. */
  readonly mark: number
  readonly durableMark: number
  /**
   * The last epoch that was given out (epochs.ts), kept apart from what is put, so that damage to the one leaves the other; 0: none is known. It is durable with what is put
   * next.
   */
  epoch: number
}

/** A version of the ring (`topology/ring.ts`). */
export interface RingPort {
  readonly version: RingVersion
  /** Fills `owners`. */
  owners(slot: Slot, copies: number, owners: OwnersView): void
  maskOfZone(owners: OwnersView, zone: string): number
  isOwner(slot: Slot, copies: number, node: NodeId): boolean
  standIns(slot: Slot, copies: number): ReadonlyArray<NodeId>
  /** Of what somebody with that version says about the slot. */
  verdictOf(slot: Slot, version: RingVersion): "current" | "moved" | "ahead"
  /** The version that last changed the slot: messages of older ones are `moved`. */
  changedAt(slot: Slot): RingVersion
  /** Whether a node is in the ring, and may keep hints. */
  isMember(node: NodeId): boolean
  /** Whether a member will never answer again. */
  isGone(node: NodeId): boolean
  zoneOf(node: NodeId): string
  /** All members, in order of id. */
  nodes(): ReadonlyArray<NodeId>
}

/** The owners of one slot (`topology/slotOwners.ts`). */
export interface OwnersView extends SlotOwnersPort {
  readonly nodes: Uint32Array
  count: number
  oldMask: number
  newMask: number
  indexOf(node: NodeId): number
}

export interface NodeClock {
  readonly monotonicMs: MonotonicMs
  readonly wallMs: WallMs
}

/**
 * What leaves for other nodes. A message is a body under a code, of the room that it is for (`opCodes.ts`); bodies to one node leave together, in order. None leaves before
 * `mark` is durable here; 0: it speaks of nothing that was put.
 */
export interface Outbox {
  send(to: NodeId, code: number, mark: number, write: (out: ByteWriter) => void): void
}

/** What all rooms of the node share. */
export interface NodeHost {
  readonly node: NodeId
  readonly clock: NodeClock
  readonly store: NodeStore
  readonly outbox: Outbox
  /** `undefined` until the node has learned one. */
  readonly ring: RingPort | undefined
  readonly namespaces: ReadonlyMap<NamespaceId, EventualNamespace>
  /** Whether a node was heard of lately, by the heartbeats of the strong mode. */
  isUp(node: NodeId): boolean
  /** Whether this node has lost data of the slot and holds less than it acknowledged (refills.ts): then it answers no reads. */
  isRefilling(slot: Slot): boolean
}
