import { Context } from "effect"
import type { EventualReply, EventualRequest } from "../dynamo/node/requests.ts"
import type { Belief } from "../topology/swim/messages.ts"
import type { NamespaceId, NodeId, Position, RangeDescriptor, RangeId, Version } from "../types.ts"
import type { NamespaceInfo, NodeAddresses, NodeStatus, Refusal } from "../wire/answers.ts"
import type { OddReplica } from "./comparison.ts"
import type { Directory, NodeRecord } from "./directory.ts"
import type { RingReport } from "./eventualHalf.ts"
import type { RangeMeasure } from "./load/rangeMeasures.ts"
import type { RangeReport, Reply, Request } from "./requests.ts"

/** Who a node is, for handshakes. */
export interface NodeIdentity {
  readonly node: NodeId
  readonly clusterId: string
  /** Made with the data directory (DESIGN section 2). */
  readonly incarnation: string
}

/** A procedure of the control plane that somebody asks for; arguments are any JSON. */
export interface AdminOrder {
  readonly verb: string
  readonly args: unknown
  readonly deadlineMs: number
}

export type AdminReply =
  | { readonly _tag: "Done"; readonly result: unknown }
  | { readonly _tag: "Refused"; readonly refusal: Refusal }

/** `reply` is called exactly once, and must not throw. */
export type Administrator = (order: AdminOrder, reply: (reply: AdminReply) => void) => void

/** What the doors need of the node's store. Every method is synchronous: no Effect per request. */
export interface StoreShape {
  readonly identity: NodeIdentity
  /**
   * Hands a request to the loop. `reply` is called exactly once, maybe before this returns, and must not throw. The
   * request's `token` is 0: the store gives its own. The loop keeps the bytes of a command.
   */
  readonly request: (request: Request, reply: (reply: Reply) => void) => void
  /** The same of an eventual namespace. */
  readonly eventual: (request: EventualRequest, reply: (reply: EventualReply) => void) => void
  /** The ring as bytes (topology/ringCodec.ts); `undefined` until it was learned. */
  readonly ring: () => Uint8Array | undefined
  /** Every range that this node knows of, in order of start. */
  readonly ranges: () => ReadonlyArray<RangeReport>
  /** Those that take data, `system` included. */
  readonly namespaces: () => ReadonlyArray<NamespaceInfo>
  /** Every node of the cluster that this node knows of, itself included, with the addresses it advertises. */
  readonly nodes: () => ReadonlyArray<NodeAddresses>
  readonly status: () => NodeStatus
  /** Hands an order to the control plane (admin/); `Overloaded` while there is none yet. */
  readonly administer: Administrator
  /** This node's clock in the unit of versions, for handshakes. */
  readonly time: () => Version
}

/**
 * What the control plane (admin/) needs of its node, beyond what any client has: the directory goes through here, from the meta group to
 * the door, the transport and the disk.
 */
export interface ControlShape {
  /** As this node advertises itself. */
  readonly self: Omit<NodeRecord, "state">
  /** The nodes of bootstrap as they were named at the start; only this node itself in one that joined. */
  readonly founders: ReadonlyArray<Omit<NodeRecord, "state" | "incarnation">>
  readonly clusterId: string
  /** `undefined` = this node has not met it. */
  readonly incarnationOf: (node: NodeId) => string | undefined
  /** As learned last. */
  readonly directory: () => Directory
  /** Takes over what the meta group says, newer than all before. Stops the node when it says that this node was removed. */
  readonly learn: (directory: Directory) => void
  /** What this node has taken over of the ring, for whoever makes its next version. */
  readonly ringReport: () => RingReport
  /** For how long this node has heard nothing of another one, in milliseconds; at most for as long as it runs. */
  readonly silentMs: (node: NodeId) => number
  /** What this node believes of another one's life, and for how long it has, in milliseconds; `undefined` of one that it does not know. */
  readonly believes: (
    node: NodeId,
  ) => { readonly belief: Belief; readonly forMs: number } | undefined
  /** Forgets an eventual namespace that is being deleted; true once that is durable. */
  readonly forget: (namespace: NamespaceId) => boolean
  /** Descriptors of the ranges led here. */
  readonly led: () => ReadonlyArray<RangeDescriptor>
  /** Those of them that say something new to a directory that knows so much. */
  readonly news: (known: ReadonlyArray<RangeDescriptor>) => ReadonlyArray<RangeDescriptor>
  /** What they hold, and what is asked of them. */
  readonly measures: () => ReadonlyArray<RangeMeasure>
  /** A position that halves what is asked of one of them, if there is one. */
  readonly cutOf: (range: RangeId) => Position | undefined
  /** Replicas of those ranges that hold other data than most, and are to be replaced. */
  readonly odd: () => ReadonlyArray<OddReplica>
  /** Who carries out orders; until then, and after `undefined`, they are refused. */
  readonly appoint: (administrator: Administrator | undefined) => void
  /** `refresh` is called when a node asks for entry that the directory does not know, or others know a newer ring: it should be read again soon. */
  readonly whenUnknown: (refresh: () => void) => void
}

export class Control extends Context.Service<Control, ControlShape>()("kvorum/server/Control") {}

export class Store extends Context.Service<Store, StoreShape>()("kvorum/server/Store") {}
