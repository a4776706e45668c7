import { MalformedBytes } from "../lib/byteReader.ts"
import { equalBytes } from "../lib/bytes.ts"
import type { Ring } from "../topology/ring.ts"
import { decodeRing } from "../topology/ringCodec.ts"
import { SlotOwners } from "../topology/slotOwners.ts"
import type { MonotonicMs, NodeId, Slot, Version } from "../types.ts"
import type {
  Answer,
  ClosingNotice,
  NamespaceInfo,
  NodeAddresses,
  Routes,
} from "../wire/answers.ts"
import type { Welcome, WireRequest } from "../wire/native.ts"
import type { Waiting } from "./Connection.ts"
import { NodeLink } from "./NodeLink.ts"
import { RoutingTable } from "./routes.ts"

export type NodeAnswer = Exclude<Answer, ClosingNotice>

export interface DirectorySettings {
  readonly endpoints: ReadonlyArray<string>
  readonly connectionsPerNode: number
  readonly handshakeTimeoutMs: number
  /** This client speaks for a node of the cluster, and may write its system namespace. */
  readonly internal: boolean
  /** A copy not answered in this time is given up, and another sent. */
  readonly attemptTimeoutMs: number
  readonly nowMs: () => MonotonicMs
  /** 0 <= x < 1, with 53 bits. */
  readonly random: () => number
}

const reachPauseMs = 100

/**
 * What the client knows of the cluster, and how it learns it: addresses and links of nodes, namespaces, the routing table, the nodes'
 * clock. Any node that answers tells of all.
 */
export class Directory {
  private readonly settings: DirectorySettings
  readonly table = new RoutingTable()
  namespaces: ReadonlyArray<NamespaceInfo> = []
  private ring: { readonly bytes: Uint8Array; readonly ring: Ring } | undefined
  private readonly owners = new SlotOwners()
  private readonly byAddress = new Map<string, NodeLink>()
  private readonly byNode = new Map<NodeId, NodeLink>()
  /** Of the first node that answered; others are not talked to. */
  clusterId: string | undefined
  private clock: { readonly time: Version; readonly at: MonotonicMs } = { time: 0, at: 0 }
  private refreshing: Array<(reached: boolean) => void> | undefined
  private closed = false

  constructor(settings: DirectorySettings) {
    this.settings = settings
    for (const endpoint of settings.endpoints) this.linkTo(endpoint)
  }

  nowMs(): MonotonicMs {
    return this.settings.nowMs()
  }

  /** The nodes' clock as far as is known, in the unit of versions. */
  get time(): Version {
    return this.clock.time + Math.floor((this.settings.nowMs() - this.clock.at) * 1000)
  }

  private linkTo(address: string): NodeLink {
    const known = this.byAddress.get(address)
    if (known !== undefined) return known
    const link = new NodeLink(address, {
      connectionsPerNode: this.settings.connectionsPerNode,
      handshakeTimeoutMs: this.settings.handshakeTimeoutMs,
      internal: this.settings.internal,
      nowMs: this.settings.nowMs,
      random: this.settings.random,
      welcomed: (welcomedLink, welcome) => this.welcomed(welcomedLink, welcome),
    })
    this.byAddress.set(address, link)
    return link
  }

  private welcomed(link: NodeLink, welcome: Welcome): string | undefined {
    this.clusterId ??= welcome.clusterId
    if (welcome.clusterId !== this.clusterId) {
      return `${link.address} belongs to another cluster: ${welcome.clusterId}`
    }
    const nowMs = this.settings.nowMs()
    const known = this.clock.time + (nowMs - this.clock.at) * 1000
    if (welcome.time > known) this.clock = { time: welcome.time, at: nowMs }
    // An address that answers is better than one that is only advertised.
    const other = this.byNode.get(welcome.node)
    if (other === undefined || !other.isOpen) this.byNode.set(welcome.node, link)
    return undefined
  }

  /** The link to a node, if an address of it is known. */
  link(node: NodeId): NodeLink | undefined {
    return this.byNode.get(node)
  }

  private learnNodes(nodes: ReadonlyArray<NodeAddresses>): void {
    for (const { id, client } of nodes) {
      const known = this.byNode.get(id)
      if (known === undefined || (known.address !== client && !known.isOpen)) {
        this.byNode.set(id, this.linkTo(client))
      }
    }
    // One that is not of the cluster any more; one that answers is, whoever has not heard of it yet.
    for (const [id, link] of this.byNode) {
      if (!link.isOpen && !nodes.some((node) => node.id === id)) this.byNode.delete(id)
    }
  }

  /** Asks one node after another for routes; calls back once, with whether any answered. */
  refresh(callback: (reached: boolean) => void): void {
    if (this.refreshing !== undefined) {
      this.refreshing.push(callback)
      return
    }
    this.refreshing = [callback]
    const links = [...new Set([...this.byNode.values(), ...this.byAddress.values()])]
    const start = Math.floor(this.settings.random() * links.length)
    const candidates = [...links.slice(start), ...links.slice(0, start)]
    candidates.sort((left, right) => Number(right.isOpen) - Number(left.isOpen))
    this.refreshFrom(candidates, 0)
  }

  private refreshFrom(candidates: ReadonlyArray<NodeLink>, index: number): void {
    const link = candidates[index]
    if (link === undefined || this.closed) return this.refreshed(false)
    this.ask(link, "AskRoutes", (answer) => {
      if (answer?._tag !== "Routes") return this.refreshFrom(candidates, index + 1)
      this.namespaces = answer.routes.namespaces
      this.learn(answer.routes)
      this.refreshed(true)
    })
  }

  /** Those that own a slot of an eventual namespace now, in order of preference; none before the ring is known. */
  ownersOf(slot: Slot, copies: number): ReadonlyArray<NodeId> {
    const { ring, owners } = this
    if (ring === undefined) return []
    ring.ring.owners(slot, copies, owners)
    return [...owners.nodes.subarray(0, owners.count)].filter(
      (_, i) => (owners.oldMask & (1 << i)) !== 0,
    )
  }

  /** One of them, as `draw` (0 to 1) has it; `undefined` before the ring is known. */
  anyOwnerOf(slot: Slot, copies: number, draw: number): NodeId | undefined {
    const { ring, owners } = this
    if (ring === undefined) return undefined
    ring.ring.owners(slot, copies, owners)
    const start = Math.floor(draw * owners.count)
    for (let i = 0; i < owners.count; i++) {
      const place = (start + i) % owners.count
      if ((owners.oldMask & (1 << place)) !== 0) return owners.nodes[place]
    }
    return undefined
  }

  /** Every node that is known, in order. */
  nodeIds(): ReadonlyArray<NodeId> {
    return [...this.byNode.keys()].sort((left, right) => left - right)
  }

  private learnRing(bytes: Uint8Array): void {
    if (this.ring !== undefined && equalBytes(this.ring.bytes, bytes)) return
    try {
      const ring = decodeRing(bytes)
      const isOlder = this.ring !== undefined && ring.version <= this.ring.ring.version
      if (!isOlder) this.ring = { bytes: bytes.slice(), ring }
    } catch (error) {
      // A node of a newer build: its ring is not understood, and any node may be asked.
      if (!(error instanceof MalformedBytes)) throw error
    }
  }

  private learn(routes: Routes): void {
    if (routes.ring !== undefined) this.learnRing(routes.ring)
    this.learnNodes(routes.nodes)
    for (const report of routes.ranges) this.table.report(report)
  }

  /**
   * Asks every node for its routes, because one may not have heard yet of a namespace or range that another knows. Of two namespaces of one name the later
   * counts.
   */
  refreshFromAll(callback: () => void): void {
    this.askAll("AskRoutes", (answers) => {
      const namespaces = new Map<string, NamespaceInfo>()
      for (const answer of answers.values()) {
        if (answer?._tag !== "Routes") continue
        this.learn(answer.routes)
        for (const namespace of answer.routes.namespaces) {
          const known = namespaces.get(namespace.name)
          if (known === undefined || known.id < namespace.id) {
            namespaces.set(namespace.name, namespace)
          }
        }
      }
      if (namespaces.size > 0) this.namespaces = [...namespaces.values()]
      callback()
    })
  }

  namespace(name: string): NamespaceInfo | undefined {
    return this.namespaces.find((each) => each.name === name)
  }

  private refreshed(reached: boolean): void {
    const callbacks = this.refreshing ?? []
    this.refreshing = undefined
    for (const callback of callbacks) callback(reached)
  }

  /** One question to one node; `undefined` when it did not answer in time. */
  ask(
    link: NodeLink,
    question: "AskRoutes" | "AskStatus",
    callback: (answer: NodeAnswer | undefined) => void,
  ): void {
    const timeoutMs = this.settings.attemptTimeoutMs
    this.askOnce(link, { _tag: question, id: 0 }, timeoutMs, (answer) =>
      callback(answer === "unsent" ? undefined : answer),
    )
  }

  /**
   * One request to one node. `unsent`: it did not leave, as far as is known before the time is over; `undefined`: it left, and no answer came.
   */
  askOnce(
    link: NodeLink,
    request: WireRequest,
    timeoutMs: number,
    callback: (answer: NodeAnswer | "unsent" | undefined) => void,
  ): void {
    let open = true
    let sent = false
    const settle = (answer: NodeAnswer | "unsent" | undefined) => {
      if (!open) return
      open = false
      clearTimeout(timer)
      callback(answer)
    }
    const timer = setTimeout(() => settle(sent ? undefined : "unsent"), timeoutMs)
    const waiting: Waiting = { answered: settle, lost: () => settle(undefined) }
    link.want(
      (connection) => {
        if (!open) return
        sent = connection?.send(request, waiting) === true
        if (!sent) settle("unsent")
      },
      // Someone wants to know about this very node.
      { evenIfResting: request._tag !== "AskRoutes" },
    )
  }

  /** Every link known, those in use first. */
  links(): ReadonlyArray<NodeLink> {
    const links = [...new Set([...this.byNode.values(), ...this.byAddress.values()])]
    return links.sort((left, right) => Number(right.isOpen) - Number(left.isOpen))
  }

  /**
   * Refreshes, again and again while no node answers, until `deadlineMs` have passed. Calls back with what is wrong then, or
   * with nothing. Returns how to give up.
   */
  reach(deadlineMs: number, callback: (problem: string | undefined) => void): () => void {
    const deadlineAt = this.settings.nowMs() + deadlineMs
    let open = true
    let timer: ReturnType<typeof setTimeout> | undefined
    const settle = (problem: string | undefined) => {
      if (!open) return
      open = false
      clearTimeout(timer)
      clearTimeout(last)
      callback(problem)
    }
    const last = setTimeout(
      () => settle(`no node answered within ${deadlineMs} ms: ${this.reachability()}`),
      deadlineMs,
    )
    const again = () => {
      this.refresh((reached) => {
        if (!open) return
        if (reached) return settle(undefined)
        if (this.settings.nowMs() < deadlineAt) timer = setTimeout(again, reachPauseMs)
      })
    }
    again()
    return () => {
      open = false
      clearTimeout(timer)
      clearTimeout(last)
    }
  }

  /** One question to every node known, side by side; `undefined` for those that did not answer in time. In order of node. */
  askAll(
    question: "AskRoutes" | "AskStatus",
    callback: (answers: ReadonlyMap<NodeId, NodeAnswer | undefined>) => void,
  ): void {
    const nodes = [...this.byNode.keys()].sort((left, right) => left - right)
    const answers = new Map<NodeId, NodeAnswer | undefined>()
    for (const node of nodes) answers.set(node, undefined)
    let open = nodes.length
    if (open === 0) return callback(answers)
    for (const node of nodes) {
      this.ask(this.byNode.get(node) as NodeLink, question, (answer) => {
        answers.set(node, answer)
        if (--open === 0) callback(answers)
      })
    }
  }

  /** Why no node answered: each reason once, with the addresses that gave it. */
  reachability(): string {
    const byReason = new Map<string, Array<string>>()
    for (const { address, lastReason } of this.byAddress.values()) {
      const addresses = byReason.get(lastReason)
      if (addresses === undefined) byReason.set(lastReason, [address])
      else addresses.push(address)
    }
    return [...byReason].map(([reason, at]) => `${reason} (${at.join(", ")})`).join("; ")
  }

  close(): void {
    this.closed = true
    for (const link of this.byAddress.values()) link.close("the client was closed")
  }
}
