import { describe, expect, test } from "bun:test"
import { text, utf8 } from "../../src/lib/bytes.ts"
import { hashPosition, namespaceStart } from "../../src/lib/position.ts"
import { plainRead, type Reply } from "../../src/server/requests.ts"
import { defaultSettings } from "../../src/server/settings.ts"
import { versionOfWall } from "../../src/server/versionClock.ts"
import type { Consistency } from "../../src/types.ts"
import { conditions } from "../../src/wire/command.ts"
import { SimulatedDisk } from "../sim/simulatedDisk.ts"
import { command } from "./commands.ts"
import { LoopNode } from "./loopNode.ts"

const wallOriginMs = 1_700_000_000_000
const settings = { ...defaultSettings, journal: { segmentBytes: 64 * 1024, tailCacheBytes: 1024 } }

/** One node that leads a range, and what is asked of it. */
class Ticking {
  readonly node: LoopNode
  private token = 1_000_000
  private sequence = 0

  constructor(disk = new SimulatedDisk()) {
    this.node = new LoopNode({ disk, settings })
    this.node.untilLeader()
  }

  get now() {
    return versionOfWall(wallOriginMs + this.node.nowMs)
  }

  get machine() {
    return this.node.loop.replicas.get(1)!.machine
  }

  ask(request: Record<string, unknown>): number {
    const token = ++this.token
    const fields = { range: 1, deadlineMs: 3000, boundsVersion: 1, ...plainRead }
    this.node.loop.request({ ...fields, ...request, token } as never)
    return token
  }

  put(key: string, fields: Parameters<typeof command>[1] = {}): Reply {
    const sequence = ++this.sequence
    const expiresAt = this.now + 60_000_000
    const bytes = command(key, { text: key, ...fields, sequence, expiresAt })
    return this.node.answer(this.ask({ _tag: "Mutate", command: bytes }))
  }

  get(key: string, level: Consistency = "linearizable"): number {
    return this.ask({ _tag: "Get", level, position: hashPosition(1, utf8(key)) })
  }

  valueOf(token: number): string {
    const reply = this.node.answer(token)
    if (reply._tag !== "Value") throw new Error(reply._tag)
    return reply.value === undefined ? "absent" : text(reply.value)
  }
}

describe("expiry through the loop", () => {
  test("a read that finds a key past its expiry by the clock makes range time catch up, by one entry for any number of reads", () => {
    const subject = new Ticking()
    subject.put("a", { ttl: 100_000 })
    subject.put("b", { ttl: 150_000 })
    expect(subject.valueOf(subject.get("a"))).toBe("a")
    const { appliedIndex } = subject.machine
    subject.node.pass(400)
    expect(subject.machine.appliedIndex).toBe(appliedIndex)
    const reads = ["a", "b", "a", "b"].map((key) => subject.get(key))
    expect(reads.map((token) => subject.valueOf(token))).toEqual(Array(4).fill("absent"))
    expect(subject.machine.appliedIndex).toBe(appliedIndex + 1)
    expect(subject.valueOf(subject.get("a"))).toBe("absent")
    expect(subject.machine.appliedIndex).toBe(appliedIndex + 1)
  })

  test("a local read hides by the clock and proposes nothing; a condition sees its own stamp", () => {
    const subject = new Ticking()
    subject.put("a", { ttl: 100_000 })
    subject.node.pass(400)
    const { appliedIndex } = subject.machine
    expect(subject.valueOf(subject.get("a", "local"))).toBe("absent")
    expect(subject.machine.appliedIndex).toBe(appliedIndex)
    const reply = subject.put("a", { condition: conditions.absent, text: "new" })
    expect(reply).toMatchObject({ _tag: "Mutated", status: 0 })
    expect(subject.valueOf(subject.get("a"))).toBe("new")
  })

  test("a scan over keys that go on expiring waits for one tick, not for ever", () => {
    const subject = new Ticking()
    for (let i = 0; i < 40; i++) subject.put(`k${i}`, { ttl: 1_500_000 + i * 10_000 })
    subject.node.pass(1500)
    const { appliedIndex } = subject.machine
    const bounds = { lower: namespaceStart(1), upper: namespaceStart(2), limit: 100 }
    const reply = subject.node.answer(
      subject.ask({ _tag: "Scan", level: "linearizable", ...bounds }),
    )
    expect(reply._tag).toBe("Page")
    expect(subject.machine.appliedIndex).toBeLessThanOrEqual(appliedIndex + 1)
  })

  test("after a restart a key is as gone as it was, and one that lives keeps its expiry", () => {
    const subject = new Ticking()
    subject.put("a", { ttl: 100_000 })
    subject.put("b", { ttl: 60_000_000 })
    subject.node.pass(200)
    expect(subject.valueOf(subject.get("a"))).toBe("absent")
    const { rangeTime } = subject.machine
    const { disk } = subject.node
    disk.loseAllUnsynced()
    const again = new Ticking(disk)
    again.node.pass(100)
    expect(again.machine.rangeTime).toBe(rangeTime)
    expect(again.valueOf(again.get("b"))).toBe("b")
    // Its clock begins at the origin once more, before both expiries.
    expect(again.valueOf(again.get("a"))).toBe("absent")
  })
})
