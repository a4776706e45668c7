import { text } from "../../src/lib/bytes.ts"
import type { PeerMessage } from "../../src/server/peerMessage.ts"
import type { Reply } from "../../src/server/requests.ts"
import { defaultSettings, type StoreSettings } from "../../src/server/settings.ts"
import { SimulatedDisk } from "../sim/simulatedDisk.ts"
import { LoopNode } from "./loopNode.ts"

const stepMs = 5

/** Files of a size that a disk in memory makes quickly. */
const light: StoreSettings = {
  ...defaultSettings,
  journal: { segmentBytes: 256 * 1024, tailCacheBytes: 64 * 1024 },
  space: { reserveBytes: 512 * 1024, lowFreeBytes: 0 },
}

interface Sent {
  readonly from: number
  readonly to: number
  readonly message: PeerMessage
  readonly dueMs: number
}

/** Three nodes with one range, a network that loses and delays what the test says, and disks that the test may hold up. */
export class Trio {
  readonly nodes: Array<LoopNode>
  nowMs = 1000
  /** True for a message that is lost. */
  loses: (from: number, to: number, message: PeerMessage) => boolean = () => false
  delayMs = 0
  /** Nodes that do nothing at all. */
  readonly paused = new Set<number>()
  /** How long a journal write of a node takes; 0 at once. */
  readonly writeMs = new Map<number, number>()
  private readonly writeBegan = new Map<number, number>()
  private underWay: Array<Sent> = []

  private readonly settings: StoreSettings

  constructor(settings: Partial<StoreSettings> = {}) {
    this.settings = { ...light, ...settings }
    this.nodes = [1, 2, 3].map((id) => this.open(id, new SimulatedDisk()))
  }

  private open(id: number, disk: SimulatedDisk): LoopNode {
    const { settings, nowMs } = this
    return new LoopNode({ settings, nowMs, disk, id, nodes: [1, 2, 3] })
  }

  /** Starts a node again over its disk as that is. */
  restart(id: number): LoopNode {
    const node = this.open(id, this.node(id).disk)
    this.nodes[id - 1] = node
    return node
  }

  node(id: number): LoopNode {
    return this.nodes[id - 1] as LoopNode
  }

  /** Passes time for those that are awake; clocks of the others go on. */
  pass(ms: number): void {
    for (const end = this.nowMs + ms; this.nowMs < end; ) {
      this.nowMs += stepMs
      for (const node of this.nodes) {
        if (this.paused.has(node.id)) continue
        node.turn(this.nowMs - node.nowMs)
        for (let i = 0; i < 4; i++)
          for (const lane of ["engine", "journal"] as const) node.runJob(lane)
        this.write(node)
        for (const { to, message } of node.sends.splice(0)) {
          if (this.loses(node.id, to, message)) continue
          this.underWay.push({ from: node.id, to, message, dueMs: this.nowMs + this.delayMs })
        }
      }
      const due = this.underWay.filter(({ dueMs }) => dueMs <= this.nowMs)
      this.underWay = this.underWay.filter(({ dueMs }) => dueMs > this.nowMs)
      for (const { from, to, message } of due) {
        if (!this.paused.has(to)) this.node(to).loop.receive(from, message)
      }
    }
  }

  private write(node: LoopNode): void {
    if (node.journalWrite === undefined) return void this.writeBegan.delete(node.id)
    const began = this.writeBegan.get(node.id) ?? this.nowMs
    this.writeBegan.set(node.id, began)
    if (this.nowMs - began < (this.writeMs.get(node.id) ?? 0)) return
    this.writeBegan.delete(node.id)
    node.finishWrite()
  }

  /** The one that leads, once there is exactly one among those that are awake. */
  leader(): LoopNode {
    for (let i = 0; i < 1000; i++) {
      const leaders = this.nodes.filter((node) => node.isLeader && !this.paused.has(node.id))
      if (leaders.length === 1) return leaders[0] as LoopNode
      this.pass(stepMs)
    }
    throw new Error("no leader in five seconds")
  }

  follower(): LoopNode {
    const leader = this.leader()
    return this.nodes.find((node) => node !== leader && !this.paused.has(node.id)) as LoopNode
  }

  replyOf(node: LoopNode, token: number): Reply | undefined {
    return node.replies.find((reply) => reply.token === token)
  }

  /** Passes time until a request is answered. */
  answer(node: LoopNode, token: number): Reply {
    for (let i = 0; i < 2000; i++) {
      const reply = this.replyOf(node, token)
      if (reply !== undefined) return reply
      this.pass(stepMs)
    }
    throw new Error("a request was not answered in ten seconds")
  }

  put(key: string, value: string): Extract<Reply, { _tag: "Mutated" }> {
    const leader = this.leader()
    const reply = this.answer(leader, leader.mutate(key, { put: value }))
    if (reply._tag !== "Mutated") throw new Error(`put: ${said(reply)}`)
    return reply
  }
}

/** What a reply says, in a word. */
export function said(reply: Reply | undefined): string | undefined {
  if (reply?._tag === "Refused") return reply.refusal._tag
  if (reply?._tag !== "Value") return reply?._tag
  return reply.value === undefined ? "absent" : text(reply.value)
}
