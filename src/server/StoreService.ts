import { Context } from "effect"
import type { NodeId, Version } from "../types.ts"
import type { NamespaceInfo, NodeAddresses, NodeStatus } from "../wire/answers.ts"
import type { RangeReport, Reply, Request } from "./requests.ts"

/** Who a node is, for handshakes. */
export interface NodeIdentity {
  readonly node: NodeId
  readonly clusterId: string
  /** Made with the data directory (DESIGN section 2). */
  readonly incarnation: string
}

/** What the doors need of the node's store. Every method is synchronous: no Effect per request. */
export interface StoreShape {
  readonly identity: NodeIdentity
  /**
   * Hands a request to the loop. `reply` is called exactly once, maybe before this returns, and must not throw. The
   * request's `token` is 0: the store gives its own. The loop keeps the bytes of a command.
   */
  readonly request: (request: Request, reply: (reply: Reply) => void) => void
  /** Every range that this node knows of, in order of start. */
  readonly ranges: () => ReadonlyArray<RangeReport>
  readonly namespaces: () => ReadonlyArray<NamespaceInfo>
  /** Every node of the cluster that this node knows of, itself included, with the addresses it advertises. */
  readonly nodes: () => ReadonlyArray<NodeAddresses>
  readonly status: () => NodeStatus
  /** This node's clock in the unit of versions, for handshakes. */
  readonly time: () => Version
}

export class Store extends Context.Service<Store, StoreShape>()("kvorum/server/Store") {}
