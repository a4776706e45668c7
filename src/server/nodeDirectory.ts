import { type Disk, DiskError } from "../disk/disk.ts"
import type { NodeId, RangeDescriptor, RingVersion } from "../types.ts"
import type { NamespaceInfo, NodeAddresses, RangeReport } from "../wire/answers.ts"
import { defaultNamespace, systemNamespace } from "./bootstrap.ts"
import {
  type Directory,
  directoryAsJson,
  emptyDirectory,
  type NamespaceRecord,
  type NodeRecord,
  tilingOf,
} from "./directory.ts"
import { keepDirectory, readDirectory } from "./directoryCache.ts"

export interface NodeDirectoryOptions {
  readonly disk: Disk
  readonly self: NodeRecord
  /** As this node was started with, itself included. */
  readonly founders: ReadonlyArray<NodeAddresses>
}

/** What a new directory means for others of this node. */
export interface DirectoryChange {
  /** Nodes that are new, or have another address. */
  readonly reachable: ReadonlyArray<NodeAddresses>
  readonly removed: ReadonlyArray<NodeId>
  /** Why this node must stop. */
  readonly verdict: string | undefined
}

const system: NamespaceInfo = {
  id: systemNamespace,
  name: "system",
  mode: "strong",
  partitioning: "ordered",
}
const byDefault: NamespaceInfo = {
  id: defaultNamespace,
  name: "default",
  mode: "strong",
  partitioning: "hash",
}

/** Rounds of learning, about a second each, in which a node that runs will have corrected its own record. */
const roundsOfFlags = 15

/**
 * The directory as one node knows it: what the meta group said last (directory.ts), kept on disk so that a node that starts while the meta
 * group is out of reach finds the others; before that, what it was started with.
 *
 * A cluster may be started again at other addresses. Then the records are old, and the meta group that could correct them is not reached by them: so
 * the addresses that a node was started with go before those of records, until the record changes or there was time to change it.
 */
export class NodeDirectory {
  private readonly disk: Disk
  private readonly self: NodeRecord
  /** As named at the start, and still to be believed. */
  private readonly named: Map<NodeId, NodeAddresses>
  private rounds = 0
  private known: Directory
  /** The same as text, to see whether another says anything new. */
  private text: string
  /** What is on disk. */
  private keptText: string
  /** The version of the ring on disk; 0: there is none. */
  keptRing: RingVersion
  /** What takes data, as the doors ask for it with every request. */
  namespaces: ReadonlyArray<NamespaceInfo>

  /** Throws `DiskError`. */
  constructor(options: NodeDirectoryOptions) {
    this.disk = options.disk
    this.self = options.self
    this.named = new Map(options.founders.map((founder) => [founder.id, founder]))
    this.known = readDirectory(options.disk) ?? emptyDirectory
    this.text = JSON.stringify(directoryAsJson(this.known))
    this.keptText = this.text
    this.keptRing = this.known.ring?.ring.version ?? 0
    this.namespaces = openNamespaces(this.known)
  }

  /** As bytes, for clients. */
  get ring(): Uint8Array | undefined {
    const encoded = this.known.ring?.encoded
    return encoded === undefined ? undefined : new Uint8Array(Buffer.from(encoded, "base64"))
  }

  get directory(): Directory {
    return this.known
  }

  record(node: NodeId): NodeRecord | undefined {
    return this.known.nodes.find((record) => record.id === node)
  }

  /** Every node that is not removed, in order of id. */
  nodes(): ReadonlyArray<NodeAddresses> {
    const byId = new Map(this.named)
    for (const record of this.known.nodes) {
      if (record.state === "removed") byId.delete(record.id)
      else byId.set(record.id, this.named.get(record.id) ?? addressesOf(record))
    }
    return [...byId.values()].sort((left, right) => left.id - right.id)
  }

  /** Forgets the names of the start that a record now says better. Returns nodes that are elsewhere than believed so far. */
  private settleNames(directory: Directory): ReadonlyArray<NodeAddresses> {
    this.rounds++
    const moved: Array<NodeAddresses> = []
    for (const record of directory.nodes) {
      const named = this.named.get(record.id)
      const before = this.record(record.id)
      const isOld = before === undefined || before.peer === record.peer
      if (named === undefined || (isOld && this.rounds < roundsOfFlags)) continue
      this.named.delete(record.id)
      if (named.peer !== record.peer && isOld) moved.push(addressesOf(record))
    }
    return moved.filter(({ id }) => id !== this.self.id)
  }

  /** What to route by, in order of start: the directory's ranges and what this node's own replicas say of theirs. */
  ranges(own: ReadonlyArray<RangeReport>): ReadonlyArray<RangeReport> {
    const byId = new Map(own.map((report) => [report.descriptor.id, report]))
    const descriptors = [...this.known.ranges, ...own.map(({ descriptor }) => descriptor)]
    return tilingOf(descriptors).map((descriptor) => {
      const report = byId.get(descriptor.id)
      const { leader, term, index } = report ?? { leader: undefined, term: 0, index: 0 }
      return { descriptor, leader, term, index }
    })
  }

  /**
   * Writes the copy on disk if it is old. It is only a copy: when the disk is full, or gone, the node goes on, and the next call tries again; but
   * a ring is not confirmed until then (NodeControl.ts). Returns why it could not be written.
   */
  keep(): string | undefined {
    if (this.keptText === this.text) return undefined
    try {
      keepDirectory(this.disk, this.known)
      this.keptText = this.text
      this.keptRing = this.known.ring?.ring.version ?? 0
      return undefined
    } catch (error) {
      if (error instanceof DiskError) return error.message
      throw error
    }
  }

  /** Takes over what the meta group says now; `keep` makes it outlive this process. */
  learn(directory: Directory): DirectoryChange {
    const before = this.known
    const moved = this.settleNames(directory)
    const text = directory === before ? this.text : JSON.stringify(directoryAsJson(directory))
    if (text === this.text) {
      this.known = directory
      return { reachable: moved, removed: [], verdict: this.verdict }
    }
    const reachable = [...moved]
    const removed: Array<NodeId> = []
    for (const record of directory.nodes) {
      const known = before.nodes.find(({ id }) => id === record.id)
      if (record.id === this.self.id) continue
      if (record.state === "removed") {
        if (known?.state !== "removed") removed.push(record.id)
      } else if (known?.peer !== record.peer && !this.named.has(record.id)) {
        reachable.push(addressesOf(record))
      }
    }
    this.known = directory
    this.text = text
    this.namespaces = openNamespaces(directory)
    return { reachable, removed, verdict: this.verdict }
  }

  /** Why this node must stop, by what is known. */
  get verdict(): string | undefined {
    const { id, incarnation } = this.self
    const own = this.record(id)
    if (own === undefined) return undefined
    if (own.incarnation !== incarnation) {
      return `n${id} is known to its cluster by another data directory (incarnation ${own.incarnation}, not ${incarnation}): start it with that one, or remove n${id} and join with an empty one`
    }
    if (own.state === "removed") {
      return `n${id} was removed from its cluster: its data directory is of no more use`
    }
    return undefined
  }
}

function addressesOf({ id, client, peer }: NodeRecord): NodeAddresses {
  return { id, client, peer }
}

function openNamespaces(directory: Directory): ReadonlyArray<NamespaceInfo> {
  if (!directory.founded) return [system, byDefault]
  const ready = directory.namespaces.filter(({ state }) => state === "ready")
  return [system, ...ready.map(infoOf)]
}

function infoOf(namespace: NamespaceRecord): NamespaceInfo {
  const { id, name, mode, partitioning } = namespace
  const common = { id, name, mode, partitioning }
  if (namespace.mode === "strong") return common
  const { conflict, replicas, write, read } = namespace
  return { ...common, eventual: { conflict, copies: replicas, write, read } }
}

/** Descriptors among `reports` whose range is led by `node`. */
export function ledBy(
  node: NodeId,
  reports: ReadonlyArray<RangeReport>,
): ReadonlyArray<RangeDescriptor> {
  return reports.filter(({ leader }) => leader === node).map(({ descriptor }) => descriptor)
}
