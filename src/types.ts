/**
 * The nouns that every folder shares. No logic.
 *
 * Numeric ids are *flavoured*: a plain number is accepted where a `Term` is wanted, but a `LogIndex` is not, so
 * that mixing two of them up does not compile while arithmetic stays plain. All of them are safe integers.
 */
type Flavoured<Name extends string> = number & { readonly _flavour?: Name }

/** A `kvorum serve` process, from 1; written `n1`. */
export type NodeId = Flavoured<"NodeId">
/** A range and its Raft group, from 0 (the meta group); never used again. */
export type RangeId = Flavoured<"RangeId">
/** One replica of a range; never used again within its range. */
export type ReplicaId = Flavoured<"ReplicaId">
/** A Raft term; 0 before the first election. */
export type Term = Flavoured<"Term">
/** Position in a Raft log, from 1; 0 = none. */
export type LogIndex = Flavoured<"LogIndex">
/** Byte position in the node's journal. */
export type Lsn = Flavoured<"Lsn">
/** Version of a key: whole microseconds since 2020, below 2^53 (DESIGN section 3); 0 = absent. */
export type Version = Flavoured<"Version">
/** Milliseconds of the node's monotonic clock. Never compared between nodes. */
export type MonotonicMs = Flavoured<"MonotonicMs">
/** Milliseconds since 1970 of the node's wall clock. Orders nothing. */
export type WallMs = Flavoured<"WallMs">
/** 0 to 16383: CRC16/XMODEM of the hash tag or key. */
export type Slot = Flavoured<"Slot">
export type NamespaceId = Flavoured<"NamespaceId">
export type BoundsVersion = Flavoured<"BoundsVersion">
export type MembersVersion = Flavoured<"MembersVersion">
/** Of the ring of the eventual namespaces; from 1. */
export type RingVersion = Flavoured<"RingVersion">

/** A user's key: 1 to 2048 bytes. */
export type Key = Uint8Array
/** The bytes that place a key in the space of strong namespaces (DESIGN section 1). */
export type Position = Uint8Array

export type Mode = "strong" | "eventual"
/** Consistency level of a read in a strong namespace. `bounded`: no older than a bound that the request states. */
export type Consistency = "linearizable" | "bounded" | "local"

/**
 * `learner`: gets the log, has no vote. `incoming` and `outgoing` exist only while voters change (joint consensus, Raft paper 6): the voters
 * before are voter + outgoing, those after are voter + incoming, and both majorities decide.
 */
export type ReplicaRole = "voter" | "incoming" | "outgoing" | "learner"

/** Where a replica of a range lives, and what it is there. */
export interface ReplicaPlace {
  readonly node: NodeId
  readonly replica: ReplicaId
  readonly role: ReplicaRole
}

/** A half-open interval of positions and the Raft group that owns it. */
export interface RangeDescriptor {
  readonly id: RangeId
  /** 0 = system; `undefined` = belongs to no namespace and takes no data. */
  readonly namespace: NamespaceId | undefined
  readonly start: Position
  /** Exclusive; empty = to the end of the space. */
  readonly end: Position
  readonly boundsVersion: BoundsVersion
  readonly membersVersion: MembersVersion
  /** In order of replica id. */
  readonly replicas: ReadonlyArray<ReplicaPlace>
}
