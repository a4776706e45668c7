import { expect } from "bun:test"
import { text } from "../../src/lib/bytes.ts"
import { Prng } from "../../src/lib/prng.ts"
import { defaultSettings, type StoreSettings } from "../../src/server/settings.ts"
import { spillDirectory } from "../../src/server/spill.ts"
import { SimulatedDisk } from "../sim/simulatedDisk.ts"
import { LoopNode, outcomeOf } from "./loopNode.ts"

export const segmentBytes = 8192

/** A few hundred puts meet every limit. */
export function drawSettings(prng: Prng): StoreSettings {
  const reserveBytes = prng.pick([2 * segmentBytes, 3 * segmentBytes, 4 * segmentBytes])
  return {
    ...defaultSettings,
    retentionBytes: 0,
    retentionMs: 0,
    retainedEntries: 0,
    sessions: { results: 64, clients: 4 },
    snapshotFrameBytes: 2048,
    journal: { segmentBytes, tailCacheBytes: 1024 },
    engine: { memtableBytes: 4096, blockBytes: 256, manifestBytes: 2048 },
    space: { reserveBytes, lowFreeBytes: prng.pick([0, 0, 1024, segmentBytes]) },
    journalScrub: { bytesPerSecond: 0, sliceBytes: 1024 },
  }
}

/** Three nodes of which the third comes late, to a disk too small for the snapshot that it is sent. */
export class Latecomer {
  private readonly prng: Prng
  private readonly settings: StoreSettings
  private readonly nodes = new Map<number, LoopNode>()

  constructor(seed: number) {
    this.prng = new Prng(seed)
    this.settings = { ...drawSettings(this.prng), snapshotGiveUpMs: 2000 }
    for (const id of [1, 2]) this.start(id)
  }

  private start(id: number): LoopNode {
    const { settings } = this
    const nowMs = this.nodes.get(1)?.nowMs ?? 1000
    const node = new LoopNode({
      disk: new SimulatedDisk(),
      settings,
      nowMs,
      id,
      nodes: [1, 2, 3],
    })
    this.nodes.set(id, node)
    return node
  }

  private pass(ms: number): void {
    for (let passed = 0; passed < ms; passed += 10) {
      for (const node of this.nodes.values()) {
        node.turn(10)
        node.someWork(this.prng)
        this.expectNoSpill(node)
        for (const { to, message } of node.sends.splice(0)) {
          this.nodes.get(to)?.loop.receive(node.id, message)
        }
      }
    }
  }

  /** A frame that did not fit takes the whole file with it. */
  private expectNoSpill(node: LoopNode): void {
    const path = node.refusedSpill
    if (path === undefined) return
    node.refusedSpill = undefined
    node.rest()
    expect(node.disk.exists(path)).toBe(false)
  }

  private get leader(): LoopNode {
    for (let i = 0; i < 500; i++) {
      for (const node of this.nodes.values()) if (node.isLeader) return node
      this.pass(10)
    }
    throw new Error("no leader in five seconds")
  }

  private put(key: string, value: string): void {
    const { leader } = this
    const token = leader.mutate(key, { put: value })
    for (let i = 0; i < 300; i++) {
      const reply = leader.replies.find((each) => each.token === token)
      if (reply !== undefined) return expect(outcomeOf(reply)).toBe("Mutated")
      this.pass(10)
    }
    throw new Error(`${key} was not answered`)
  }

  private index(node: LoopNode): number {
    return node.loop.replicas.get(1)?.machine.appliedIndex ?? 0
  }

  /** Returns the node that came late, at its end. */
  run(): LoopNode {
    for (let i = 0; i < 120; i++) this.put(`k${i}`, `${i}`.padEnd(200, "v"))
    this.pass(1000)
    const { leader } = this
    const late = this.start(3)
    this.pass(100)
    const { disk } = late
    disk.capacityBytes = disk.usedBytes + this.prng.int(0, 3 * segmentBytes)
    this.pass(6000)
    disk.capacityBytes = Number.POSITIVE_INFINITY
    for (let i = 0; i < 200 && this.index(late) < this.index(leader); i++) this.pass(100)
    expect(this.index(late)).toBe(this.index(leader))
    this.pass(1000)
    for (let i = 0; i < 120; i++) {
      const reply = late.answer(late.read(`k${i}`, { level: "local" }))
      const value = reply._tag === "Value" && reply.value !== undefined && text(reply.value)
      expect(value).toBe(`${i}`.padEnd(200, "v"))
    }
    expect(disk.list(spillDirectory)).toEqual([])
    late.loop.storage.engine.verify()
    return late
  }
}
