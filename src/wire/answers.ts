import type { Level } from "../dynamo/coordinator/slotPlan.ts"
import type { ConflictRule } from "../dynamo/elements.ts"
import type { EventualStatus } from "../dynamo/node/eventualStatus.ts"
import type { EventualReply } from "../dynamo/node/requests.ts"
import type {
  Consistency,
  LogIndex,
  Mode,
  NamespaceId,
  NodeId,
  Position,
  RangeDescriptor,
  RangeId,
  ReplicaId,
  Term,
  Version,
} from "../types.ts"
import type { CommandStatus } from "./command.ts"

/** What travels over the native door, as plain data; native.ts has its bytes. */

/** What an answer says of itself. */
export interface Receipt {
  readonly level: Consistency
  readonly node: NodeId
  readonly role: "leader" | "follower"
  readonly range: RangeId
  readonly term: Term
  /** Of a mutation: its entry. Of a read: the last index applied to the state that was read. */
  readonly index: LogIndex
  readonly replica: ReplicaId
  /** How old the state may be that was read, in milliseconds: 0 for a linearizable one, -1 when nobody knows. */
  readonly staleBoundMs: number
  /** Range time of the very state that was answered from: what a session must see again. */
  readonly stateTime: Version
}

/** Why a request was not carried out. Each names what the caller does next; Errors.ts says it to users. */
export type Refusal =
  | { readonly _tag: "NotLeader"; readonly range: RangeId; readonly leader: NodeId | undefined }
  | { readonly _tag: "RangeMoved"; readonly descriptors: ReadonlyArray<RangeDescriptor> }
  | { readonly _tag: "QuorumUnavailable"; readonly range: RangeId }
  | { readonly _tag: "Overloaded"; readonly what: string }
  | { readonly _tag: "DiskFull"; readonly node: NodeId }
  | { readonly _tag: "InvalidRequest"; readonly message: string }
  | { readonly _tag: "OutcomeUnknown"; readonly range: RangeId }
  | { readonly _tag: "StorageCorrupt"; readonly message: string }
  /** A procedure of the control plane stopped on its way; asked for again, it goes on from there. */
  | { readonly _tag: "Unfinished"; readonly message: string }
  /** Of orders only: requests for data name a namespace by its id. */
  | { readonly _tag: "NamespaceNotFound"; readonly namespace: string }

export interface PageEntry {
  readonly position: Position
  readonly value: Uint8Array
  readonly version: Version
}

interface Timed {
  /** The range's time (DESIGN section 3); 0 when unknown. */
  readonly rangeTime: Version
}

export interface MutatedAnswer extends Timed {
  readonly _tag: "Mutated"
  readonly status: CommandStatus
  readonly version: Version
  /** What `add` left; of a batch whose condition was false: which one. */
  readonly value: Uint8Array | undefined
  readonly receipt: Receipt
}

export interface ValueAnswer extends Timed {
  readonly _tag: "Value"
  /** `undefined` = absent. */
  readonly value: Uint8Array | undefined
  readonly version: Version
  readonly receipt: Receipt
}

export interface PageAnswer extends Timed {
  readonly _tag: "Page"
  readonly entries: ReadonlyArray<PageEntry>
  /** Keys of the page, also where they were only counted. */
  readonly count: number
  /** Where to go on inside the interval asked for; `undefined` when it is exhausted. */
  readonly next: Position | undefined
  readonly receipt: Receipt
}

export interface ChangedAnswer extends Timed {
  readonly _tag: "Changed"
  readonly descriptor: RangeDescriptor
  readonly receipt: Receipt
}

export interface RefusedAnswer extends Timed {
  readonly _tag: "Refused"
  readonly refusal: Refusal
}

export type DataAnswer = MutatedAnswer | ValueAnswer | PageAnswer | ChangedAnswer | RefusedAnswer

/** One range as one node sees it. */
export interface RangeReport {
  readonly descriptor: RangeDescriptor
  /** `undefined` when the node holds no replica, or knows of no leader. */
  readonly leader: NodeId | undefined
  readonly term: Term
  /** Applied there; 0 when the node holds no replica. */
  readonly index: LogIndex
}

export interface NamespaceInfo {
  readonly id: NamespaceId
  readonly name: string
  readonly mode: Mode
  readonly partitioning: "hash" | "ordered"
  /** Of an eventual one. */
  readonly eventual?: EventualPolicy
}

export interface EventualPolicy {
  readonly conflict: ConflictRule
  /** N. */
  readonly copies: number
  /** Levels of requests that name none. */
  readonly write: Level
  readonly read: Level
}

/** `host:port` of a node's listeners, as it advertises them. */
export interface NodeAddresses {
  readonly id: NodeId
  readonly client: string
  readonly peer: string
}

export interface NodeStatus {
  readonly id: NodeId
  readonly pid: number
  /** For people: "ready", "electing" or "disk full". */
  readonly state: string
  readonly addresses: { readonly client: string; readonly peer: string }
  readonly eventual: EventualStatus
}

/** Everything a client needs to route. */
export interface Routes {
  readonly nodes: ReadonlyArray<NodeAddresses>
  readonly namespaces: ReadonlyArray<NamespaceInfo>
  readonly ranges: ReadonlyArray<RangeReport>
  /** Of eventual namespaces (topology/ringCodec.ts); `undefined` while the node has not learned one. */
  readonly ring: Uint8Array | undefined
}

export interface RoutesAnswer {
  readonly _tag: "Routes"
  readonly routes: Routes
}

export interface StatusAnswer {
  readonly _tag: "Status"
  readonly status: NodeStatus
}

/** What a procedure of the control plane gives back. */
export interface AdminAnswer {
  readonly _tag: "Admin"
  /** Any JSON. */
  readonly result: unknown
}

/** Of a request to an eventual namespace. */
export interface EventualAnswer {
  readonly _tag: "Eventual"
  readonly reply: EventualReply
}

/** The last frame of a connection: why the node closes it. */
export interface ClosingNotice {
  readonly _tag: "Closing"
  readonly reason: string
}

export type Answer =
  | DataAnswer
  | RoutesAnswer
  | StatusAnswer
  | AdminAnswer
  | EventualAnswer
  | ClosingNotice
