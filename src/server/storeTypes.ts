import type { Disk } from "../disk/disk.ts"
import type { EventualReply } from "../dynamo/node/requests.ts"
import type { JournalWrite } from "../journal/journal.ts"
import type { Prng } from "../lib/prng.ts"
import type { RaftNode } from "../raft/raftNode.ts"
import type { MonotonicMs, NodeId, RangeDescriptor, WallMs } from "../types.ts"
import type { Beats } from "./beats.ts"
import type { Merges } from "./merge/merges.ts"
import type { ReplicaOpener } from "./openReplicas.ts"
import type { PeerMessage } from "./peerMessage.ts"
import type { Replica } from "./replica.ts"
import type { Reply } from "./requests.ts"
import type { StoreSettings } from "./settings.ts"
import type { SnapshotExchange } from "./snapshotExchange.ts"
import type { StorageParts } from "./storage.ts"
import type { StoreJob } from "./storeJobs.ts"

/** A reading of the node's clocks, taken by the driver. */
export interface ClockReading {
  readonly monotonicMs: MonotonicMs
  readonly wallMs: WallMs
}

/** Classes that a simulator may replace, to plant a bug and see it found. */
export interface StoreParts extends StorageParts {
  readonly RaftNode?: typeof RaftNode
  readonly SnapshotExchange?: typeof SnapshotExchange
  readonly ReplicaOpener?: typeof ReplicaOpener
  readonly Beats?: typeof Beats
  readonly Merges?: typeof Merges
  /** Is shown every replica that is opened, at the start and later. */
  readonly opened?: (replica: Replica) => void
}

export interface StoreLoopOptions {
  readonly node: NodeId
  readonly disk: Disk
  readonly prng: Prng
  /** Of the eventual half alone. */
  readonly eventualPrng?: Prng
  readonly settings: StoreSettings
  /** Of the whole cluster; an empty directory begins with the replicas that they place on this node. */
  readonly descriptors: ReadonlyArray<RangeDescriptor>
  /** False for a node that joined a cluster later: it begins without replicas, whatever the descriptors say. */
  readonly bootstrap?: boolean
  readonly clock: ClockReading
  readonly parts?: StoreParts
}

export interface StoreOutput {
  /** Write at its offset, sync if it says so, then call `journalDurable`. */
  readonly journal: JournalWrite | undefined
  readonly sends: ReadonlyArray<{ readonly to: NodeId; readonly message: PeerMessage }>
  readonly replies: ReadonlyArray<Reply>
  /** Of requests to eventual namespaces. */
  readonly eventualReplies: ReadonlyArray<EventualReply>
  /** Carry out in order, after all those of the same lane given out before; then call `jobDone` for each. */
  readonly jobs: ReadonlyArray<StoreJob>
  /** Damage to stored bytes, each said once: lines for the operator. */
  readonly reports: ReadonlyArray<string>
  /** Proposals wait for so long: call `turn` again then; 0 = none do. */
  readonly waitMs: number
  /** There is work left: call `turn` again without waiting. */
  readonly more: boolean
}
