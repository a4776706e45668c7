import { describe, expect, test } from "bun:test"
import { text } from "../../src/lib/bytes.ts"
import { Prng } from "../../src/lib/prng.ts"
import type { Reply } from "../../src/server/requests.ts"
import type { StoreSettings } from "../../src/server/settings.ts"
import { SimulatedCrash, SimulatedDisk } from "../sim/simulatedDisk.ts"
import { drawSettings, Latecomer, segmentBytes } from "./latecomer.ts"
import { LoopNode, outcomeOf } from "./loopNode.ts"

const absent = undefined
type Value = string | typeof absent

/** What a key may hold: what was acknowledged last, or what a call of unknown outcome may have made of it since. */
interface Known {
  values: Array<Value>
  /** The call under way; there is at most one for a key. */
  call: { readonly token: number; readonly value: Value; readonly kind: Kind } | undefined
}

type Kind = "put" | "delete" | "get"

/** What all runs together met, so that a run that meets nothing is seen. */
const met = { full: 0, crashes: 0, acknowledged: 0, putsRefused: 0, deletes: 0 }
const jobsRefused = new Map<string, number>()

function addRefused({ refused }: LoopNode): void {
  for (const [job, count] of refused) jobsRefused.set(job, (jobsRefused.get(job) ?? 0) + count)
  refused.clear()
}

/** One store, from an empty disk over a full one to one with room again. */
class Life {
  readonly prng: Prng
  readonly disk = new SimulatedDisk()
  readonly settings: StoreSettings
  node: LoopNode
  private readonly known = new Map<string, Known>()
  private nextValue = 1
  /** Tokens of puts that no turn has seen yet. */
  private freshPuts: Array<number> = []

  constructor(seed: number) {
    this.prng = new Prng(seed)
    this.settings = drawSettings(this.prng)
    this.node = new LoopNode({ disk: this.disk, settings: this.settings })
    this.node.untilLeader()
    this.node.pass(1500)
  }

  private keyOf(number: number): Known & { readonly name: string } {
    const name = `k${number}`
    let known = this.known.get(name)
    if (known === undefined) {
      known = { values: [absent], call: undefined }
      this.known.set(name, known)
    }
    return Object.assign(known, { name })
  }

  private call(kind: Kind): void {
    const { node, prng } = this
    const key = this.keyOf(prng.int(0, 150))
    if (key.call !== undefined) return
    if (kind !== "get" && key.values.length > 1) return
    const value = kind === "put" ? `${this.nextValue++}`.padEnd(prng.int(8, 300), "v") : absent
    const token =
      kind === "get"
        ? node.read(key.name)
        : node.mutate(key.name, kind === "put" ? { put: value as string } : "delete")
    key.call = { token, value, kind }
    if (kind === "put") this.freshPuts.push(token)
  }

  /** Takes in what was answered. */
  private hear(): void {
    const { node } = this
    if (node.replies.length === 0) return
    const replies = new Map(node.replies.map((reply) => [reply.token, reply]))
    node.replies = []
    for (const [name, key] of this.known) {
      const reply = key.call && replies.get(key.call.token)
      if (reply !== undefined) this.answered(name, key, reply)
    }
  }

  private answered(name: string, key: Known, reply: Reply): void {
    const { call } = key
    if (call === undefined) return
    key.call = undefined
    const outcome = outcomeOf(reply)
    if (reply._tag === "Value") {
      const value = reply.value === undefined ? absent : text(reply.value)
      expect(key.values, `what ${name} holds`).toContain(value)
    } else if (outcome === "Mutated") {
      key.values = [call.value]
      met.acknowledged++
    } else if (outcome === "OutcomeUnknown") {
      key.values.push(call.value)
    } else if (outcome === "DiskFull") {
      expect(call.kind).toBe("put")
      met.putsRefused++
    } else {
      // While nothing can be written only waiting is left, and the deadline ends that.
      expect(["Overloaded", "QuorumUnavailable", "NotLeader"]).toContain(outcome)
    }
  }

  private drawKind(): Kind {
    const draw = this.prng.float()
    return draw < 0.7 ? "put" : draw < 0.8 ? "delete" : "get"
  }

  /** Calls and work at random, for so many turns. */
  load(turns: number): void {
    const { node, prng } = this
    for (let i = 0; i < turns; i++) {
      const wasFull = node.isFull
      for (let calls = prng.int(0, 2); calls > 0; calls--) this.call(this.drawKind())
      node.turn(prng.int(1, 20))
      if (wasFull) this.expectRefused()
      this.freshPuts = []
      this.hear()
      node.someWork(prng)
    }
  }

  /** A put that comes in while the disk is full is refused in the very turn. */
  private expectRefused(): void {
    for (const token of this.freshPuts) {
      const reply = this.node.replies.find((each) => each.token === token)
      expect(reply && outcomeOf(reply)).toBe("DiskFull")
    }
  }

  /** Power loss or kill; calls under way may have been done. */
  crash(): void {
    met.crashes++
    const { node, disk, prng } = this
    addRefused(node)
    this.hear()
    for (const key of this.known.values()) {
      if (key.call !== undefined && key.call.kind !== "get") key.values.push(key.call.value)
      key.call = undefined
    }
    const ending = prng.int(0, 3)
    if (ending === 0) disk.kill()
    else if (ending === 1) disk.loseAllUnsynced()
    else disk.crash(prng)
    const nowMs = node.nowMs + 100
    this.freshPuts = []
    // However full the disk is: opening is a matter of reading.
    this.node = new LoopNode({ disk, settings: this.settings, nowMs })
    try {
      this.node.untilLeader()
    } catch (error) {
      // A journal that was full to its last segment has no place for a vote; it goes on as soon as it is given some.
      if (!this.node.isFull || !this.node.refused.has("Segment")) throw error
      disk.capacityBytes += 4 * segmentBytes
      this.node.untilLeader()
    }
  }

  /** A crash in the middle of some operation on the disk. */
  crashInside(): void {
    const { disk, prng } = this
    disk.crashAfter(disk.operations + prng.int(1, 200))
    try {
      this.load(1000)
      disk.crashAfter(undefined)
    } catch (error) {
      if (!(error instanceof SimulatedCrash)) throw error
    }
    this.crash()
  }

  /** Every key, by a linearizable read; what was unknown is known then. */
  readAll(): void {
    for (const [name, key] of this.known) {
      const reply = this.node.answer(this.node.read(name))
      if (reply._tag !== "Value") throw new Error(`${name}: ${outcomeOf(reply)}`)
      const value = reply.value === undefined ? absent : text(reply.value)
      expect(key.values, `what ${name} holds`).toContain(value)
    }
    this.node.replies = []
  }

  /** Lets calls under way end. */
  settle(): void {
    for (let i = 0; i < 40; i++) {
      this.node.pass(100)
      this.hear()
    }
  }

  fill(): boolean {
    for (let i = 0; i < 60 && !this.node.isFull; i++) this.load(50)
    return this.node.isFull
  }

  /** No table but those in use: what a job began, and could not end, takes no space. */
  expectNoLeftovers(): void {
    const held = this.node.loop.storage.engine.heldFiles()
    const names = this.disk.list("engine").filter((name) => name.endsWith(".table"))
    for (const name of names) expect(held).toContain(`engine/${name}`)
  }

  /** All live tables are there, and whole. */
  expectWhole(): void {
    const { engine } = this.node.loop.storage
    engine.verify()
    for (const path of engine.liveFiles()) expect(this.disk.exists(path)).toBe(true)
  }

  /** Deletes and reads while the disk is full. */
  deleteSome(): void {
    const { node, prng } = this
    this.settle()
    node.rest()
    this.expectNoLeftovers()
    for (let i = 0; i < 20 && node.isFull; i++) {
      const key = this.keyOf(prng.int(0, 150))
      const outcome = outcomeOf(node.answer(node.mutate(key.name, "delete", 5000)))
      expect(outcome).toBe("Mutated")
      key.values = [absent]
      met.deletes++
    }
    node.replies = []
    this.readAll()
  }
}

/** From full to room again: puts must work within five seconds. */
function makeRoom(life: Life): void {
  life.disk.capacityBytes += 64 * segmentBytes
  const { node } = life
  const beganMs = node.nowMs
  for (;;) {
    const outcome = outcomeOf(node.answer(node.mutate("probe", { put: "x" }, 1000)))
    if (outcome === "Mutated") break
    if (node.nowMs - beganMs > 5000) throw new Error(`puts: ${outcome} after five seconds of room`)
    node.pass(50)
  }
  expect(node.isFull).toBe(false)
}

function run(seed: number): void {
  const life = new Life(seed)
  const { prng, disk, settings } = life
  disk.capacityBytes =
    disk.usedBytes +
    prng.int(0, 4 * segmentBytes) +
    (prng.chance(0.2) ? 0 : settings.space.reserveBytes)
  for (let round = prng.int(1, 3); round > 0; round--) {
    if (life.fill()) met.full++
    life.load(200)
    if (prng.chance(0.5)) life.deleteSome()
    if (prng.chance(0.6)) {
      if (prng.chance(0.5)) life.crashInside()
      else life.crash()
      life.readAll()
      life.load(100)
    }
    makeRoom(life)
    life.settle()
    life.readAll()
    // Full again in the next round.
    disk.capacityBytes = disk.usedBytes + prng.int(0, 2 * segmentBytes)
  }
  disk.capacityBytes = Number.POSITIVE_INFINITY
  makeRoom(life)
  life.settle()
  life.readAll()
  life.expectWhole()
  life.node.rest()
  life.expectNoLeftovers()
  addRefused(life.node)
}

const freshSeed = Number(process.env.KVORUM_SEED ?? Math.floor(performance.timeOrigin % 2 ** 31))

function eachSeed(fixed: number, run: (seed: number) => void): void {
  for (const seed of [...Array.from({ length: fixed }, (_, i) => i + 1), freshSeed]) {
    try {
      run(seed)
    } catch (error) {
      throw new Error(`KVORUM_SEED=${seed}: ${(error as Error).message}`, { cause: error })
    }
  }
}

describe("a disk that is full now and then", () => {
  test("refuses puts, answers the rest, loses nothing and goes on when there is room", () => {
    eachSeed(20, run)
    const kinds = [...jobsRefused.keys()]
    for (const kind of ["Flush", "Compact", "Manifest", "Segment"]) expect(kinds).toContain(kind)
    expect(met.full).toBeGreaterThan(20)
    expect(met.crashes).toBeGreaterThan(10)
    expect(met.acknowledged).toBeGreaterThan(5000)
    expect(met.putsRefused).toBeGreaterThan(1000)
    expect(met.deletes).toBeGreaterThan(50)
  })

  test("drops a snapshot that does not fit, and takes one when there is room", () => {
    eachSeed(6, (seed) => addRefused(new Latecomer(seed).run()))
    expect(jobsRefused.get("Spill")).toBeGreaterThan(5)
    console.log(
      `diskFull: fresh seed ${freshSeed}; jobs that found no space: ${words(jobsRefused)}`,
    )
  })
})

function words(counts: ReadonlyMap<string, number>): string {
  return [...counts].map(([name, count]) => `${name} ${count}`).join(", ")
}
