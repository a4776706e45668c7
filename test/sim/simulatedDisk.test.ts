import { expect, test } from "bun:test"
import { DiskError } from "../../src/disk/disk.ts"
import { text, utf8 } from "../../src/lib/bytes.ts"
import { Prng } from "../../src/lib/prng.ts"
import { SimulatedCrash, SimulatedDisk } from "./simulatedDisk.ts"

function content(disk: SimulatedDisk, path: string): string {
  const file = disk.open(path)
  const bytes = new Uint8Array(file.sizeBytes)
  file.read(bytes, 0)
  return text(bytes)
}

function durableFile(disk: SimulatedDisk, path: string, value: string) {
  const file = disk.create(path)
  file.write(utf8(value), 0)
  file.sync()
  disk.syncDirectory("")
  return file
}

test("synced bytes under a synced name survive every power loss", () => {
  for (let seed = 0; seed < 200; seed++) {
    const disk = new SimulatedDisk()
    durableFile(disk, "a", "hello").write(utf8("J"), 0)
    disk.crash(new Prng(seed))
    expect(["hello", "Jello"]).toContain(content(disk, "a"))
  }
})

test("what was not synced can be lost, kept, or torn, and only what was written can appear", () => {
  const seen = new Set<string>()
  for (let seed = 0; seed < 2_000; seed++) {
    const disk = new SimulatedDisk()
    const file = durableFile(disk, "a", "....")
    file.write(utf8("AA"), 0)
    file.write(utf8("BB"), 2)
    file.write(utf8("CC"), 4)
    disk.crash(new Prng(seed))
    seen.add(content(disk, "a"))
  }
  for (const outcome of ["....", "AABBCC", "AABB", "..BB", "A...", "....C", "AABBC"]) {
    expect(seen).toContain(outcome)
  }
  for (const outcome of seen) expect(outcome).toMatch(/^(\.\.|AA|A\.)(\.\.|BB|B\.)?(C|CC)?$/)
})

test("without tearing a write is kept whole or not at all", () => {
  for (let seed = 0; seed < 300; seed++) {
    const disk = new SimulatedDisk()
    durableFile(disk, "a", "....").write(utf8("AAAAAA"), 0)
    disk.crash(new Prng(seed), { tear: false })
    expect(["....", "AAAAAA"]).toContain(content(disk, "a"))
  }
})

test("a large write can lose sectors in its middle", () => {
  let holes = 0
  for (let seed = 0; seed < 300; seed++) {
    const disk = new SimulatedDisk()
    durableFile(disk, "a", "").write(new Uint8Array(4096).fill(1), 0)
    disk.crash(new Prng(seed))
    const file = disk.open("a")
    const bytes = new Uint8Array(file.sizeBytes)
    file.read(bytes, 0)
    const firstLost = bytes.indexOf(0)
    if (firstLost >= 0 && bytes.indexOf(1, firstLost) >= 0) {
      expect(firstLost % 512).toBe(0)
      holes++
    }
  }
  expect(holes).toBeGreaterThan(10)
})

test("a file whose name was not synced can vanish although its bytes were synced", () => {
  const disk = new SimulatedDisk()
  const file = disk.create("a")
  file.write(utf8("x"), 0)
  file.sync()
  expect(disk.isDurable("a")).toBe(false)
  disk.loseAllUnsynced()
  expect(disk.exists("a")).toBe(false)
})

test("any of the unsynced changes to a folder can be lost, a later one kept without an earlier", () => {
  const seen = new Set<string>()
  for (let seed = 0; seed < 300; seed++) {
    const disk = new SimulatedDisk()
    for (const name of ["a", "b", "c"]) durableFile(disk, name, name)
    disk.create("d").close()
    disk.rename("a", "e")
    disk.remove("b")
    disk.crash(new Prng(seed))
    seen.add(disk.list("").join(""))
  }
  // Each of the three is kept or not.
  expect([...seen].sort()).toEqual(["abc", "abcd", "ac", "acd", "bcde", "bce", "cde", "ce"].sort())
})

test("a rename that replaces a file shows the old file or the new one, never none", () => {
  for (let seed = 0; seed < 200; seed++) {
    const disk = new SimulatedDisk()
    durableFile(disk, "current", "1")
    const file = disk.create("next")
    file.write(utf8("2"), 0)
    file.sync()
    disk.rename("next", "current")
    disk.crash(new Prng(seed))
    expect(["1", "2"]).toContain(content(disk, "current"))
  }
})

test("what lies in a folder whose own name was never synced is lost", () => {
  const disk = new SimulatedDisk()
  disk.makeDirectory("d")
  const file = disk.create("d/a")
  file.write(utf8("x"), 0)
  file.sync()
  disk.syncDirectory("d")
  const other = disk.clone()
  disk.loseAllUnsynced()
  expect(disk.exists("d")).toBe(false)
  other.syncDirectory("")
  other.loseAllUnsynced()
  expect(content(other, "d/a")).toBe("x")
})

test("a removal that was not durable brings the file back", () => {
  const disk = new SimulatedDisk()
  durableFile(disk, "a", "x")
  disk.remove("a")
  expect(disk.usedBytes).toBe(0)
  disk.loseAllUnsynced()
  expect(content(disk, "a")).toBe("x")
  expect(disk.usedBytes).toBe(1)
})

test("a killed process loses nothing, but nothing becomes durable by it", () => {
  const disk = new SimulatedDisk()
  durableFile(disk, "a", "x").write(utf8("yz"), 0)
  disk.kill()
  expect(content(disk, "a")).toBe("yz")
  disk.loseAllUnsynced()
  expect(content(disk, "a")).toBe("x")
})

test("handles of a dead process are dead", () => {
  const disk = new SimulatedDisk()
  const file = durableFile(disk, "a", "x")
  disk.keepAll()
  expect(() => file.read(new Uint8Array(1), 0)).toThrow("dead process")
})

test("a crash asked for by number strikes that operation and all after it", () => {
  const run = (disk: SimulatedDisk) => {
    const file = disk.create("a")
    file.write(utf8("xyz"), 0)
    file.sync()
    disk.syncDirectory("")
    disk.rename("a", "b")
    disk.syncDirectory("")
    disk.remove("b")
  }
  const whole = new SimulatedDisk()
  run(whole)
  expect(whole.operations).toBe(7)
  for (let at = 1; at <= whole.operations; at++) {
    const disk = new SimulatedDisk()
    disk.crashAfter(at)
    expect(() => run(disk)).toThrow(SimulatedCrash)
    expect(disk.operations).toBe(at)
    expect(() => disk.exists("a")).toThrow(SimulatedCrash)
    disk.loseAllUnsynced()
    expect(disk.list("")).toEqual(at < 5 ? [] : at < 7 ? ["a"] : ["b"])
  }
})

test("a full disk refuses with no-space and keeps what it had", () => {
  const disk = new SimulatedDisk({ capacityBytes: 10 })
  const file = disk.create("a")
  file.write(new Uint8Array(8), 0)
  let refusal: unknown
  try {
    file.write(new Uint8Array(8), 4)
  } catch (error) {
    refusal = error
  }
  expect(refusal).toBeInstanceOf(DiskError)
  expect((refusal as DiskError).reason).toBe("no-space")
  // As on a real disk, what fits has been written.
  expect(file.sizeBytes).toBe(10)
  expect(disk.freeBytes()).toBe(0)
  file.write(new Uint8Array(10), 0)
  disk.link("a", "other")
  disk.remove("a")
  expect(disk.freeBytes()).toBe(0)
  disk.create("b")
  disk.rename("b", "other")
  expect(disk.freeBytes()).toBe(10)
  disk.create("c").write(new Uint8Array(10), 0)
  disk.capacityBytes = 12
  expect(disk.freeBytes()).toBe(2)
})

test("a link is durable with its folder, and a power loss counts a file with two names once", () => {
  const disk = new SimulatedDisk({ capacityBytes: 100 })
  disk.makeDirectory("d")
  disk.syncDirectory("")
  durableFile(disk, "a", "xyz")
  disk.link("a", "d/b")
  const lost = disk.clone()
  lost.loseAllUnsynced()
  expect(lost.exists("d/b")).toBe(false)
  expect(lost.usedBytes).toBe(3)
  disk.syncDirectory("d")
  disk.loseAllUnsynced()
  expect(content(disk, "d/b")).toBe("xyz")
  expect(disk.usedBytes).toBe(3)
  disk.remove("a")
  expect(disk.usedBytes).toBe(3)
  disk.remove("d/b")
  expect(disk.usedBytes).toBe(0)
})

test("corrupt flips bits for every later reader", () => {
  const disk = new SimulatedDisk()
  durableFile(disk, "a", "abc")
  disk.corrupt("a", 1, 1)
  expect(content(disk, "a")).toBe("acc")
  disk.loseAllUnsynced()
  expect(content(disk, "a")).toBe("acc")
})

test("overlapping and sparse writes are undone to the durable bytes, whatever the order", () => {
  for (let seed = 0; seed < 300; seed++) {
    const prng = new Prng(seed)
    const disk = new SimulatedDisk()
    let file = disk.create("a")
    disk.syncDirectory("")
    for (let round = 0; round < 4; round++) {
      const steps = prng.int(0, 6)
      for (let i = 0; i < steps; i++) {
        const bytes = new Uint8Array(prng.int(0, 30)).fill(prng.int(1, 255))
        file.write(bytes, prng.int(0, 60))
      }
      file.sync()
      const durable = content(disk, "a")
      for (let i = prng.int(0, 6); i > 0; i--) {
        file.write(new Uint8Array(prng.int(1, 30)).fill(prng.int(1, 255)), prng.int(0, 90))
      }
      const copy = disk.clone()
      disk.loseAllUnsynced()
      expect(content(disk, "a")).toBe(durable)
      copy.loseAllUnsynced()
      expect(content(copy, "a")).toBe(durable)
      file = disk.open("a")
    }
  }
})

test("the same seed loses the same bytes", () => {
  const outcome = (seed: number) => {
    const disk = new SimulatedDisk()
    const file = durableFile(disk, "a", "")
    for (let i = 0; i < 20; i++) file.write(utf8(`${i};`), file.sizeBytes)
    disk.crash(new Prng(seed))
    return content(disk, "a")
  }
  for (let seed = 0; seed < 20; seed++) expect(outcome(seed)).toBe(outcome(seed))
})
