import { describe, expect, test } from "bun:test"
import { recordTypes } from "../../src/journal/format.ts"
import { text } from "../../src/lib/bytes.ts"
import { defaultSettings, type StoreSettings } from "../../src/server/settings.ts"
import { SimulatedDisk } from "../sim/simulatedDisk.ts"
import { type Place, records } from "./journalRecords.ts"
import { LoopNode } from "./loopNode.ts"

const settings: StoreSettings = {
  ...defaultSettings,
  retentionBytes: 0,
  retentionMs: 0,
  retainedEntries: 0,
  journal: { segmentBytes: 16 * 1024, tailCacheBytes: 0 },
  engine: { memtableBytes: 4096, blockBytes: 256, blockCacheBytes: 0 },
  space: { reserveBytes: 0, lowFreeBytes: 0 },
  journalScrub: { bytesPerSecond: 0, sliceBytes: 4096 },
}

/** A node with two hundred keys in tables, and what they hold. */
function filled(given = settings): { node: LoopNode; expected: Map<string, string> } {
  const node = new LoopNode({ disk: new SimulatedDisk(), settings: given })
  node.pass(1000)
  const expected = new Map<string, string>()
  for (let i = 0; i < 200; i++) {
    const value = `${i}`.padEnd(100, String.fromCharCode(97 + (i % 26)))
    expect(node.answer(node.mutate(`k${i}`, { put: value }))._tag).toBe("Mutated")
    expected.set(`k${i}`, value)
  }
  node.pass(2000)
  return { node, expected }
}

/** Damages a data block of the table with the most bytes, where keys of callers lie; returns its path. */
function damageTable(node: LoopNode): string {
  const size = (path: string) => {
    const file = node.disk.open(path)
    const { sizeBytes } = file
    file.close()
    return sizeBytes
  }
  const [path] = [...node.loop.storage.engine.liveFiles()].sort((a, b) => size(b) - size(a))
  if (path === undefined) throw new Error("no table")
  node.disk.corrupt(path, Math.floor(size(path) * 0.6), 1)
  return path
}

/** Which keys are refused as damaged; all others must hold what was written. */
function damagedKeys(node: LoopNode, expected: ReadonlyMap<string, string>, path: string) {
  const damaged: Array<string> = []
  for (const [key, value] of expected) {
    const reply = node.answer(node.read(key))
    if (reply._tag === "Refused" && reply.refusal._tag === "StorageCorrupt") {
      expect(reply.refusal.message).toContain(`${path} at byte`)
      damaged.push(key)
    } else if (reply._tag === "Value") {
      expect(reply.value === undefined ? undefined : text(reply.value)).toBe(value)
    } else {
      throw new Error(`${reply._tag}`)
    }
  }
  return damaged
}

describe("damage to a table of a running node", () => {
  test("reads of what it holds are refused by file and place, all others are answered, and one line says so", () => {
    const { node, expected } = filled()
    const path = damageTable(node)
    const damaged = damagedKeys(node, expected, path)
    expect(damaged.length).toBeGreaterThan(0)
    expect(damaged.length).toBeLessThan(expected.size)
    const lines = node.reports.filter((line) => line.includes(path))
    expect(lines).toHaveLength(1)
    // All of the table's interval is out of reach once the damage was met, for as long as it is there.
    const later = damagedKeys(node, expected, path)
    expect(later).toEqual(expect.arrayContaining(damaged))
    expect(later.length).toBeLessThan(expected.size)
    expect(damagedKeys(node, expected, path)).toEqual(later)
    expect(node.reports.filter((line) => line.includes(path))).toHaveLength(1)
  })

  test("puts go on, and no compaction copies the damage or stops the node", () => {
    const { node, expected } = filled()
    const path = damageTable(node)
    for (let i = 0; i < 300; i++) {
      const key = `n${i}`
      expect(node.answer(node.mutate(key, { put: key.repeat(20) }))._tag).toBe("Mutated")
      expected.set(key, key.repeat(20))
    }
    node.pass(3000)
    expect(damagedKeys(node, expected, path).length).toBeLessThan(expected.size / 2)
  })

  test("a mutation that must read what is damaged is not carried out, nor any after it", () => {
    const { node, expected } = filled()
    const path = damageTable(node)
    const [key] = damagedKeys(node, expected, path) as [string]
    const applied = node.loop.replicas.get(1)?.machine.appliedIndex
    const token = node.mutate(key, "delete")
    node.pass(200)
    expect(node.replies.some((reply) => reply.token === token)).toBe(false)
    expect(node.loop.replicas.get(1)?.machine.appliedIndex).toBe(applied as number)
    const next = node.answer(node.mutate("other", { put: "x" }))
    expect(next).toMatchObject({ _tag: "Refused", refusal: { _tag: "StorageCorrupt" } })
    expect(node.answer(token)).toMatchObject({
      _tag: "Refused",
      refusal: { _tag: "OutcomeUnknown" },
    })
  })
})

describe("damage to a closed segment of the journal", () => {
  test("the scrub finds it, one line names file and place, and the node goes on", () => {
    const scrubbed = {
      ...settings,
      // Nothing is flushed, so that the journal keeps all.
      engine: { memtableBytes: 1024 * 1024 },
      // A segment a second.
      journalScrub: { bytesPerSecond: 16 * 1024, sliceBytes: 16 * 1024 },
    }
    const { node } = filled(scrubbed)
    const clean = new LoopNode({ disk: node.disk.clone(), settings: scrubbed })
    clean.pass(9000)
    expect(clean.reports).toEqual([])
    const entries = records(node.disk).filter(({ type }) => type === recordTypes.append)
    const { path, start } = entries[Math.floor(entries.length / 2)] as Place
    const again = node.disk.clone()
    again.corrupt(path, start + 60, 1)
    const running = new LoopNode({ disk: node.disk.clone(), settings: scrubbed })
    // Applied, so that only the scrub looks there again; and it has not come so far.
    running.untilLeader()
    running.pass(100)
    running.disk.corrupt(path, start + 60, 1)
    running.pass(5000)
    expect(running.reports.filter((line) => line.includes(`${path} at byte`))).toHaveLength(1)
    expect(running.answer(running.mutate("a", { put: "1" }))).toMatchObject({ _tag: "Mutated" })
    // At a start what is lost is needed, and a range with one replica has nobody to get it from.
    const alone = new LoopNode({ disk: again, settings: scrubbed })
    alone.pass(3000)
    expect(alone.isLeader).toBe(false)
    const said = alone.reports.join("\n")
    expect(said).toContain(`${path} at byte`)
    expect(said).toContain("there is no other replica to ask")
  })
})
