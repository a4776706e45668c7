import type { ConflictRule } from "../../../src/dynamo/elements.ts"
import { MerkleTree } from "../../../src/dynamo/merkleTree.ts"
import { CounterRetries } from "../../../src/dynamo/node/counterRetries.ts"
import { Epochs } from "../../../src/dynamo/node/epochs.ts"
import { EventualNode } from "../../../src/dynamo/node/eventualNode.ts"
import { ExchangeFills } from "../../../src/dynamo/node/exchangeFills.ts"
import { FormerSlots } from "../../../src/dynamo/node/formerSlots.ts"
import { GatedOutbox } from "../../../src/dynamo/node/gatedOutbox.ts"
import { Hints } from "../../../src/dynamo/node/hints.ts"
import { Owner } from "../../../src/dynamo/node/owner.ts"
import type { NodeHost } from "../../../src/dynamo/node/ports.ts"
import { Reaper } from "../../../src/dynamo/node/reaper.ts"
import type { EventualRequest } from "../../../src/dynamo/node/requests.ts"
import type { SlotTables } from "../../../src/dynamo/node/slotTables.ts"
import { Tenures } from "../../../src/dynamo/node/tenures.ts"
import { SlotClock } from "../../../src/dynamo/slotClock.ts"
import { SlotClocks } from "../../../src/dynamo/slotClocks.ts"
import { VersionVector } from "../../../src/dynamo/versionVector.ts"
import { HybridClock } from "../../../src/lib/hybridClock.ts"
import { Ring } from "../../../src/topology/ring.ts"
import { SlotOwners } from "../../../src/topology/slotOwners.ts"
import type { NamespaceId, NodeId, RingVersion, Slot } from "../../../src/types.ts"
import { type Mutant, together, withMethod } from "../mutants/mutant.ts"
import type { EventualParameters } from "./parameters.ts"

/** What rooms of the node have inside. */
interface Room {
  readonly owner: Owner
  readonly host: NodeHost
  options: { readonly windowMs: number }
}

interface Fills {
  readonly steps: ReadonlyMap<Slot, RingVersion>
}

export interface EventualMutant extends Omit<Mutant, "shows"> {
  /** Whether it can show at all in a world of these parameters: others are passed over, and count as tried. */
  readonly showsIn?: ((parameters: EventualParameters) => boolean) | undefined
}

const withRing = ({ rates }: EventualParameters) => rates.ring > 0

function withRule(...rules: ReadonlyArray<ConflictRule>): EventualMutant["showsIn"] {
  return ({ namespaces }) => namespaces.some(({ rule }) => rules.includes(rule))
}

/** Bugs of eventual mode that its world must find, as those of `../mutants` are for strong mode. */
export const eventualMutants: ReadonlyArray<EventualMutant> = [
  {
    name: "EA",
    title: "a stand-in keeps its epoch",
    plant: withMethod(Epochs, "next", () => () => 1),
  },
  {
    name: "EB",
    title: "a dot is sent before it is durable",
    plant: together(
      withMethod<GatedOutbox, Parameters<GatedOutbox["send"]>, void>(
        GatedOutbox,
        "send",
        (send) =>
          function (to, code, _, write) {
            send.call(this, to, code, 0, write)
          },
      ),
      withMethod<EventualNode, [], void>(
        EventualNode,
        "serve",
        (serve) =>
          function () {
            serve.call(this)
            this.coordinators.durable(Number.MAX_SAFE_INTEGER, this.clock.monotonicMs)
          },
      ),
    ),
  },
  {
    name: "EC",
    title: "deletes are reaped without waiting for the hint window",
    plant: withMethod<Room, [], void>(
      Reaper,
      "tick",
      (tick) =>
        function () {
          this.options = { ...this.options, windowMs: 0 }
          tick.call(this)
        },
    ),
  },
  {
    name: "ED",
    title: "a parting owner deletes a slot while the new one is still being filled",
    showsIn: withRing,
    plant: together(
      withMethod<Ring, [Slot, number, NodeId], boolean>(
        Ring,
        "isOwner",
        (isOwner) =>
          function (slot, copies, node) {
            const change = this.changeOf(slot)
            if (change?.from.includes(node) && !change.to.includes(node)) return false
            return isOwner.call(this, slot, copies, node)
          },
      ),
      withMethod<Room, [], void>(
        FormerSlots,
        "tick",
        () =>
          function () {
            for (const id of this.host.namespaces.keys()) {
              for (const slot of this.owner.leftOver(id)) this.owner.dropSlot(id, slot)
            }
          },
      ),
    ),
  },
  {
    name: "EE",
    title: "a set's vector covers the gap before a dot that it learns of",
    showsIn: withRule("set", "flag"),
    plant: withMethod<VersionVector, [number, number], boolean>(
      VersionVector,
      "covers",
      () =>
        function (actor, counter) {
          // What was seen of an actor once stands for all of it up to the next few.
          const known = this.counterOf(actor)
          return known > 0 && counter <= known + 2
        },
    ),
  },
  {
    name: "EF",
    title: "a slot's clock is reset at hand-off",
    showsIn: withRing,
    plant: withMethod<Owner, [NamespaceId, Slot, SlotClock], void>(
      Owner,
      "adopt",
      (adopt) =>
        function (namespace, slot, clock) {
          const tables = (
            this as unknown as { tablesOf: (id: NamespaceId) => SlotTables }
          ).tablesOf(namespace)
          tables.clocks.set(slot, new SlotClock())
          adopt.call(this, namespace, slot, clock)
        },
    ),
  },
  {
    name: "EG",
    title: "a stand-in says that it holds a hint, and does not",
    stalls: true,
    plant: withMethod(Hints, "hold", () => () => true),
  },
  {
    name: "EH",
    title: "an owner says that it holds a state, and does not",
    plant: withMethod(Owner, "merge", () => () => true),
  },
  {
    name: "EI",
    title: "dots of what is put are not added to the slot's clock",
    plant: withMethod(SlotClocks, "add", () => () => true),
  },
  {
    name: "EJ",
    title: "the log is read back without its records of clocks and epochs",
    stalls: true,
    plant: withMethod(Owner, "replayRecord", () => () => undefined),
  },
  {
    name: "EK",
    title: "clocks and trees are not sealed with the keys",
    plant: withMethod(Owner, "seal", () => () => undefined),
  },
  {
    name: "EN",
    title: "reads count a new owner that is not filled yet",
    showsIn: withRing,
    plant: together(
      withMethod<SlotOwners, [number, number], boolean>(
        SlotOwners,
        "readMet",
        () =>
          function (answered, copies) {
            return bits(answered & (this.oldMask | this.newMask)) >= copies
          },
      ),
      getter(SlotOwners, "readMask", function (this: SlotOwners) {
        return this.oldMask | this.newMask
      }),
    ),
  },
  {
    name: "EP",
    title: "a hint takes the place of the one before, of the same key",
    stalls: true,
    plant: withMethod<Room, Parameters<Hints["hold"]>, boolean>(
      Hints,
      "hold",
      (hold) =>
        function (place, hint) {
          const { store } = this.host
          const get = store.get.bind(store)
          // What is stored is not merged in.
          Object.defineProperty(store, "get", { value: () => undefined, configurable: true })
          try {
            return hold.call(this, place, hint)
          } finally {
            Object.defineProperty(store, "get", { value: get, configurable: true })
          }
        },
    ),
  },
  {
    name: "EQ",
    title: "a tenure's end is told although a hint of it was dropped",
    // Who is up has mostly been brought the hint before it is told; not here, once it has held another state of it.
    plant: together(
      withMethod(Tenures, "broken", () => () => undefined),
      withMethod<Hints, Parameters<Hints["hold"]>, boolean>(
        Hints,
        "hold",
        (hold) =>
          function (place, hint) {
            const { holders } = this as unknown as { holders: Map<string, unknown> }
            const before = [...holders]
            const isHeld = hold.call(this, place, hint)
            for (const [name, nodes] of before) holders.set(name, nodes)
            return isHeld
          },
      ),
    ),
  },
  {
    name: "ER",
    title: "a stand-in builds on what it no longer holds",
    showsIn: withRule("set", "flag", "counter"),
    plant: withMethod(Tenures, "parted", () => () => undefined),
  },
  {
    name: "ES",
    title: "a retried increment counts again",
    showsIn: withRule("counter"),
    plant: together(
      withMethod(CounterRetries, "isRetry", () => () => false),
      withMethod<EventualNode, [EventualRequest], void>(
        EventualNode,
        "request",
        (request) =>
          function (asked) {
            request.call(this, { ...asked, isRetry: false } as EventualRequest)
          },
      ),
    ),
  },
  {
    name: "EX",
    title: "what is put after a crash takes a dot that was used before it",
    plant: withMethod<Owner, Parameters<Owner["replayPut"]>, void>(
      Owner,
      "replayPut",
      () => () => undefined,
    ),
  },
  {
    name: "EY",
    title: "a write is answered before as many hold it as its level says",
    plant: withMethod<SlotOwners, [number, number], boolean>(
      SlotOwners,
      "writeMet",
      (met) =>
        function (answered, copies) {
          return met.call(this, answered, Math.max(1, copies - 1))
        },
    ),
  },
  {
    name: "EZ",
    title: "a read is answered by whoever answers first, whatever its level",
    plant: withMethod<SlotOwners, [number, number], boolean>(
      SlotOwners,
      "readMet",
      () => (answered) => answered !== 0,
    ),
  },
  {
    name: "FA",
    title: "a write replaces nothing, whatever its writer had read",
    plant: withMethod<EventualNode, [EventualRequest], void>(
      EventualNode,
      "request",
      (request) =>
        function (asked) {
          request.call(this, { ...asked, context: undefined } as EventualRequest)
        },
    ),
  },
  {
    name: "FB",
    title: "trees are not told of what goes",
    plant: withMethod(MerkleTree, "remove", () => () => undefined),
  },
  {
    name: "FC",
    title: "values are stamped by the bare wall clock",
    showsIn: withRule("lww", "register"),
    plant: withMethod<HybridClock, [number], number>(
      HybridClock,
      "stamp",
      () => (wallUs) => wallUs,
    ),
  },
  {
    name: "FD",
    title: "a new owner says that it is filled before it has been given anything",
    showsIn: withRing,
    plant: withMethod<Fills, [], ReadonlyArray<{ slot: Slot; since: RingVersion }>>(
      ExchangeFills,
      "filled",
      () =>
        function () {
          return [...this.steps].map(([slot, since]) => ({ slot, since }))
        },
    ),
  },
  {
    name: "FE",
    title: "a quorum of a zone counts owners of all zones",
    showsIn: ({ zones }) => zones > 1,
    plant: withMethod<SlotOwners, [number, number], boolean>(
      SlotOwners,
      "writeMetWithin",
      () => (answered, within) => 2 * bits(answered) > bits(within),
    ),
  },
]

function bits(mask: number): number {
  let count = 0
  for (let left = mask; left !== 0; left &= left - 1) count++
  return count
}

/** The same as `withMethod` of a property that is computed. */
function getter<This>(
  owner: { readonly prototype: object },
  name: string,
  get: (this: This) => unknown,
): () => () => void {
  return () => {
    const original = Object.getOwnPropertyDescriptor(owner.prototype, name)
    if (original === undefined) throw new Error(`no property ${name} to replace`)
    Object.defineProperty(owner.prototype, name, { get, configurable: true })
    return () => Object.defineProperty(owner.prototype, name, original)
  }
}
