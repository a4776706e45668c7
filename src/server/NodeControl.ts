import type { Disk } from "../disk/disk.ts"
import type { NamespaceId, NodeId, RangeDescriptor } from "../types.ts"
import type { NodeAddresses, RangeReport } from "../wire/answers.ts"
import type { PeerHello } from "../wire/peer.ts"
import type { OddReplica } from "./comparison.ts"
import { type Directory, type NodeRecord, takesReport } from "./directory.ts"
import type { RingReport } from "./eventualHalf.ts"
import type { Identity } from "./Identity.ts"
import type { RangeMeasure } from "./load/rangeMeasures.ts"
import { ledBy, NodeDirectory } from "./nodeDirectory.ts"
import type { PeerAddress, PeerTransportShape } from "./PeerTransport.ts"
import type { Administrator, ControlShape } from "./StoreService.ts"

export interface NodeControlOptions {
  readonly identity: Identity
  readonly self: Omit<NodeRecord, "state">
  readonly founders: ReadonlyArray<Omit<NodeRecord, "state" | "incarnation">>
  readonly disk: Disk
  /** As the loop sees them. */
  readonly ranges: () => ReadonlyArray<RangeReport>
  readonly odd: () => ReadonlyArray<OddReplica>
  readonly measures: () => ReadonlyArray<RangeMeasure>
  readonly cutOf: ControlShape["cutOf"]
  /** The loop takes note of ranges that it does not hold, for those who ask for them here. */
  readonly learnRange: (descriptor: RangeDescriptor) => void
  /** The eventual half learns the ring and its namespaces. */
  readonly learnEventual: (directory: Directory) => void
  /** This node is not of its cluster, or no more: the eventual half takes nothing. */
  readonly resign: () => void
  readonly ringReport: () => RingReport
  readonly silentMs: (node: NodeId) => number
  readonly believes: ControlShape["believes"]
  /** Who belongs to the cluster, for whoever watches over their lives. */
  readonly learnMembers: (nodes: ReadonlyArray<NodeId>) => void
  readonly forget: (namespace: NamespaceId) => boolean
  /** A line for the operator. */
  readonly warn: (line: string) => void
  /** A file could not be written: the node cannot go on. */
  readonly fail: (error: unknown) => void
  /** The node must stop, for a reason that is nobody's failure. */
  readonly stop: (reason: string) => void
}

/** So long an answer to the order that removed this node has to leave. */
const farewellMs = 500

/** The control plane's hold on its node: where the directory meets the transport, the door and the identity. */
export class NodeControl implements ControlShape {
  readonly self: ControlShape["self"]
  readonly founders: ControlShape["founders"]
  readonly known: NodeDirectory
  transport: PeerTransportShape | undefined
  private readonly options: NodeControlOptions
  private administrator: Administrator | undefined
  private refresh: () => void = () => {}
  private stopping = false
  private problem: string | undefined

  /** Throws `DiskError`. */
  constructor(options: NodeControlOptions) {
    const { disk, self, founders } = options
    this.options = options
    this.self = self
    this.founders = founders
    const own: NodeRecord = { ...self, state: "member" }
    this.known = new NodeDirectory({ disk, self: own, founders: founders.map(addressesOf) })
    const { verdict } = this.known
    this.learnMembers()
    if (verdict === undefined) options.learnEventual(this.known.directory)
    else this.resign(verdict)
  }

  get clusterId(): string {
    return this.options.identity.clusterId
  }

  /** Every other node to keep a connection to. */
  peers(): ReadonlyArray<PeerAddress> {
    const others = this.known.nodes().filter(({ id }) => id !== this.self.id)
    return others.map(peerOf).filter((peer) => peer !== undefined)
  }

  /** Whether a peer may connect. */
  readonly admit = ({ node, incarnation }: PeerHello): string | undefined => {
    const record = this.known.record(node)
    // It may have joined since the directory was read last; it will call again.
    if (record === undefined) this.refresh()
    try {
      return this.options.identity.problemOfPeer(node, incarnation, record)
    } catch (error) {
      this.options.fail(error)
      return "this node stops"
    }
  }

  readonly administer: Administrator = (order, reply) => {
    if (this.administrator !== undefined) return this.administrator(order, reply)
    const what = `n${this.self.id}, which is starting or stopping`
    reply({ _tag: "Refused", refusal: { _tag: "Overloaded", what } })
  }

  readonly incarnationOf = (node: NodeId) => this.options.identity.incarnationOf(node)
  readonly directory = (): Directory => this.known.directory
  readonly led = (): ReadonlyArray<RangeDescriptor> => ledBy(this.self.id, this.options.ranges())

  /** A ring that is not kept would be forgotten at the next start: the steps of the ring count on it that nobody goes back. */
  readonly ringReport = (): RingReport => {
    const report = this.options.ringReport()
    return { ...report, confirmed: Math.min(report.confirmed, this.known.keptRing) }
  }
  readonly silentMs = (node: NodeId): number => this.options.silentMs(node)
  readonly believes: ControlShape["believes"] = (node) => this.options.believes(node)
  readonly forget = (namespace: NamespaceId): boolean => this.options.forget(namespace)

  readonly odd = (): ReadonlyArray<OddReplica> => this.options.odd()

  readonly measures = (): ReadonlyArray<RangeMeasure> => this.options.measures()
  readonly cutOf: ControlShape["cutOf"] = (range) => this.options.cutOf(range)

  readonly appoint = (administrator: Administrator | undefined): void => {
    this.administrator = administrator
  }

  readonly whenUnknown = (refresh: () => void): void => {
    this.refresh = refresh
  }

  news(known: ReadonlyArray<RangeDescriptor>): ReadonlyArray<RangeDescriptor> {
    return this.led().filter((descriptor) => takesReport(known, descriptor))
  }

  /** Others know more of the directory than this node: it is read again soon. */
  lookAgain(): void {
    this.refresh()
  }

  /** A ring was not learned because the copy on disk could not be written. */
  private isRingOwed = false

  readonly learn = (directory: Directory): void => {
    try {
      const isNew = directory !== this.known.directory
      const { reachable, removed, verdict } = this.known.learn(directory)
      const problem = this.known.keep()
      this.report(problem)
      for (const peer of reachable.map(peerOf)) {
        if (peer !== undefined) this.transport?.setPeer(peer)
      }
      for (const node of removed) {
        this.transport?.removePeer(node, `n${node} was removed from this cluster`)
      }
      if (isNew) this.learnMembers()
      if (isNew) for (const descriptor of directory.ranges) this.options.learnRange(descriptor)
      if (verdict !== undefined) return this.resign(verdict)
      if (isNew || this.isRingOwed) {
        // A ring that is not kept would be forgotten at the next start: nobody acts by it, and it is learned with a later round.
        this.isRingOwed = problem !== undefined
        this.options.learnEventual(this.isRingOwed ? withoutRing(directory) : directory)
      }
    } catch (error) {
      this.options.fail(error)
    }
  }

  private learnMembers(): void {
    this.options.learnMembers(this.known.nodes().map(({ id }) => id))
  }

  /** Once per problem. */
  private report(problem: string | undefined): void {
    if (problem !== undefined && problem !== this.problem) {
      this.options.warn(`the copy of the directory could not be written: ${problem}`)
    }
    this.problem = problem
  }

  /** By what was kept, too: the meta group may be out of reach when such a node starts again. */
  private resign(verdict: string): void {
    if (this.stopping) return
    this.stopping = true
    this.options.resign()
    setTimeout(() => this.options.stop(verdict), farewellMs)
  }
}

function withoutRing(directory: Directory): Directory {
  return { ...directory, ring: undefined }
}

function addressesOf({ id, client, peer }: NodeAddresses): NodeAddresses {
  return { id, client, peer }
}

/** `undefined` for an address that nobody can call. */
function peerOf({ id, peer }: NodeAddresses): PeerAddress | undefined {
  const colon = peer.lastIndexOf(":")
  const port = Number(peer.slice(colon + 1))
  if (colon < 1 || !Number.isInteger(port)) return undefined
  return { node: id, host: peer.slice(0, colon).replace(/^\[(.*)\]$/, "$1"), port }
}
