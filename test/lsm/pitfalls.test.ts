import { describe, expect, test } from "bun:test"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { compareBytes, toHex, utf8 } from "../../src/lib/bytes.ts"
import { Prng } from "../../src/lib/prng.ts"
import { Engine } from "../../src/lsm/engine.ts"
import type { Fragment } from "../../src/lsm/manifest/version.ts"
import { tablePath } from "../../src/lsm/table/format.ts"
import { Table } from "../../src/lsm/table/tableReader.ts"
import { SimulatedDisk } from "../sim/simulatedDisk.ts"
import { carryOut, contentOf, flushAll, sealWhenPossible, settle, step } from "./harness.ts"

/**
 * The 28 ways in which storage engines of this kind have failed, and for each the tests that fail when we do so too. Where the title begins with
 * "pitfall" the test is here.
 */
const pitfalls: ReadonlyArray<{
  readonly number: number
  readonly pitfall: string
  readonly tests: ReadonlyArray<readonly [file: string, title: string]>
}> = [
  {
    number: 1,
    pitfall: "a torn journal tail is read as data, or as an error",
    tests: [
      [
        "journal/recovery",
        "a tail cut at any byte of the last three batches leaves the batches before it",
      ],
      ["lsm/damage", "an edit cut off at any byte never happened; one cut off earlier is damage"],
    ],
  },
  {
    number: 2,
    pitfall: "corruption in the middle is taken for the end",
    tests: [
      [
        "journal/holes",
        "wherever the bit flips, its group says which entries it lost, and nobody is in doubt",
      ],
      [
        "lsm/damage",
        "a torn edit with a later one behind it is a hole, though every table is there",
      ],
    ],
  },
  {
    number: 3,
    pitfall: "what is appended after a bad tail is lost by the next recovery",
    tests: [
      [
        "journal/recovery",
        "garbage after the end is overwritten with zeros before anything is appended",
      ],
      ["lsm/damage", "after a torn edit the log goes on in a new manifest, and holds"],
    ],
  },
  {
    number: 4,
    pitfall: "a segment used before shows its old records",
    tests: [
      [
        "journal/recovery",
        "a whole batch behind a torn one is not part of the journal, and never comes back",
      ],
      ["journal/format", "a batch or record is believed only at the LSN for which it was written"],
      ["journal/recovery", "a segment under another one's name is refused"],
    ],
  },
  {
    number: 5,
    pitfall: "the folder is not synced after a name was made or changed",
    tests: [
      [
        "lsm/crashSweep",
        "after a crash at any disk operation the engine holds a prefix without holes",
      ],
      [
        "sim/simulatedDisk",
        "any of the unsynced changes to a folder can be lost, a later one kept without an earlier",
      ],
    ],
  },
  {
    number: 6,
    pitfall: "manifest and CURRENT do not change as one, or damage to them is not seen",
    tests: [
      [
        "lsm/crashSweep",
        "after a crash at any disk operation the engine holds a prefix without holes",
      ],
      ["lsm/damage", "one flipped bit in any byte of any file"],
    ],
  },
  {
    number: 7,
    pitfall: "a table is removed while a manifest, an iterator or a snapshot needs it",
    tests: [
      ["lsm/engine", "a file that a snapshot holds is kept until the snapshot is released"],
      [
        "lsm/crashSweep",
        "after a crash at any disk operation the engine holds a prefix without holes",
      ],
      ["lsm/metamorphic", "every option set, over a short trace"],
    ],
  },
  {
    number: 8,
    pitfall: "the journal lets go of what no table holds yet",
    tests: [
      [
        "lsm/crashSweep",
        "journal and engine as one lose no batch whose write was durable, and none in the middle",
      ],
      ["server/retention", "an entry whose state is not flushed is never released"],
    ],
  },
  {
    number: 9,
    pitfall: "a write is acknowledged before it is durable, or one of a group misses the error",
    tests: [
      ["server/storeLoop", "a mutation is answered only when its journal write is durable"],
      [
        "server/failedSync",
        "no member of a batch whose sync failed is acknowledged, and no later one",
      ],
    ],
  },
  {
    number: 10,
    pitfall: "a sync that failed is tried again and believed",
    tests: [
      ["server/failedSync", "a synchronous write whose sync failed throws, and is not tried again"],
      [
        "server/failedSync",
        "a failed sync stops the node, and all that was acknowledged survives any loss",
      ],
    ],
  },
  {
    number: 11,
    pitfall: "a delete is dropped while older data lies below it",
    tests: [
      ["lsm/metamorphic", "every option set, over a short trace"],
      ["lsm/engine", "deletes vanish with what they deleted once nothing can lie under them"],
    ],
  },
  {
    number: 12,
    pitfall: "a delete is dropped while a snapshot needs it",
    tests: [
      ["lsm/engine", "a snapshot and its iterators stay the same over 100 flushes and compactions"],
    ],
  },
  {
    number: 13,
    pitfall: "sequences are given up, and a snapshot reads the wrong version",
    tests: [
      [
        "lsm/codecs",
        "shows at each sequence what was there then, both ways, while its arena grows",
      ],
      ["lsm/metamorphic", "every option set, over a short trace"],
    ],
  },
  {
    number: 14,
    pitfall: "a key is split over two tables of a level, and a range tombstone with it",
    tests: [["lsm/pitfalls", "pitfall 14: in a level no key lies in two tables"]],
  },
  {
    number: 15,
    pitfall: "a range delete shows in a snapshot, or does not show after it",
    tests: [
      [
        "lsm/rangeTombstone",
        "says of every key what all tombstones together say, at every pinned moment",
      ],
      ["lsm/metamorphic", "every option set, over a short trace"],
    ],
  },
  {
    number: 16,
    pitfall: "an iterator sees a mixture of before and after",
    tests: [
      [
        "lsm/iterator",
        "walks both ways through what it began with, over 100 flushes and compactions",
      ],
    ],
  },
  {
    number: 17,
    pitfall: "going down and seeking to bounds go wrong",
    tests: [
      ["lsm/iterator", "keys and prefixes of 0xff bytes are where they belong"],
      [
        "lsm/table",
        "walks, seeks and turns as a sorted list does, in any bounds, over cut fragments",
      ],
    ],
  },
  {
    number: 18,
    pitfall: "a filter says no to a key that is there",
    tests: [
      ["lsm/codecs", "knows every key that was added"],
      ["lsm/table", "finds every key that it holds and no other, whatever its options and caches"],
      ["lsm/bitFlips", "one flipped bit in any kind of file is noticed, and never answered"],
    ],
  },
  {
    number: 19,
    pitfall: "a block of a removed table is served for a new one of its number",
    tests: [
      ["lsm/engine", "no file number is used twice, that of an orphan included"],
      [
        "lsm/caches",
        "never serve a block or a place of one table for another, nor of one that is closed",
      ],
    ],
  },
  {
    number: 20,
    pitfall: "a compaction does not look at checksums, and makes damage good",
    tests: [
      ["lsm/damage", "a compaction does not copy damage under a new checksum"],
      ["lsm/bitFlips", "one flipped bit in any kind of file is noticed, and never answered"],
    ],
  },
  {
    number: 21,
    pitfall: "a good block in the wrong place is believed",
    tests: [
      ["lsm/tableDamage", "a block in another block's place, though its own checksum is right"],
      ["lsm/tableDamage", "a good block of the same table, id and place, but of another write"],
    ],
  },
  {
    number: 22,
    pitfall: "a damaged length sizes an allocation",
    tests: [
      ["lsm/compression", "never make the expanded size that they claim the size of an allocation"],
      [
        "lsm/fuzz",
        "every decoder of stored bytes refuses what is malformed, and does nothing else",
      ],
    ],
  },
  {
    number: 23,
    pitfall: "a full disk is for ever, or a half-written table is adopted",
    tests: [
      ["lsm/engine", "a full disk loses nothing: the job is given up, and done once there is room"],
      [
        "server/localStorage",
        "a full disk refuses nothing that frees space, and all goes on when there is space again",
      ],
    ],
  },
  {
    number: 24,
    pitfall: "writers are stopped for ever, or what is to be compacted grows without end",
    tests: [
      ["lsm/pitfalls", "pitfall 24: writers that never rest are never stopped for good"],
      [
        "server/writeRate",
        "a writer faster than the engine is slowed to its rate by short waits, and never stopped",
      ],
    ],
  },
  {
    number: 25,
    pitfall: "recovery takes as long as the history",
    tests: [
      ["lsm/pitfalls", "pitfall 25: what opening reads does not grow with the data"],
      ["server/localStorage", "segments whose batches are flushed are given back"],
    ],
  },
  {
    number: 26,
    pitfall: "what expires is judged by the clock of a machine",
    tests: [
      ["lsm/pitfalls", "pitfall 26: a filter judges by the time it is given and by no clock"],
    ],
  },
  {
    number: 27,
    pitfall: "two processes open a directory",
    tests: [
      ["disk/DirectoryLock", "a second lock on a directory is refused until the first is released"],
      [
        "server/EmbeddedStore",
        "a second store in the directory is refused, and closing lets go of it",
      ],
    ],
  },
  {
    number: 28,
    pitfall: "views of memory that is used again, order by characters, short writes",
    tests: [
      ["lsm/engine", "a value that was handed out does not change when its arena is used again"],
      ["lsm/caches", "a value that was read stays as it was when its block has long left"],
      ["lsm/pitfalls", "pitfall 28: keys are in the order of their bytes, not of their characters"],
    ],
  },
]

describe("of the 28 pitfalls", () => {
  test("each has a test", () => {
    expect(pitfalls.map(({ number }) => number)).toEqual(
      Array.from({ length: 28 }, (_, i) => i + 1),
    )
    for (const { tests } of pitfalls) expect(tests.length).toBeGreaterThan(0)
  })

  test("every test that is named exists", () => {
    const texts = new Map<string, string>()
    for (const { number, tests } of pitfalls) {
      for (const [file, title] of tests) {
        const path = join(import.meta.dir, "..", `${file}.test.ts`)
        const text = texts.get(path) ?? readFileSync(path, "utf8")
        texts.set(path, text)
        const isThere = new RegExp(`test\\(\\s*"${escaped(title)}"`).test(text)
        expect(`${number} ${file}: ${title} ${isThere}`).toBe(`${number} ${file}: ${title} true`)
      }
    }
  })
})

function escaped(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")
}

const tiny = {
  memtableBytes: 600,
  blockBytes: 1,
  tableBytes: 200,
  compactionBytes: 800,
  baseBytes: 800,
  levelRatioMax: 2,
}

interface Inside {
  readonly maintenance: { readonly version: { readonly fragments: ReadonlyArray<Fragment> } }
}

test("pitfall 14: in a level no key lies in two tables", () => {
  const disk = new SimulatedDisk()
  const engine = Engine.open(disk, "engine", tiny)
  const prng = new Prng(14)
  const key = () => utf8(`key:${prng.int(10, 60)}`)
  let looked = 0
  for (let round = 0; round < 60; round++) {
    for (let i = 0; i < 10; i++) engine.put(key(), new Uint8Array(prng.int(0, 60)))
    const [lower, upper] = [key(), key()].sort(compareBytes) as [Uint8Array, Uint8Array]
    engine.deleteRange(lower, upper)
    sealWhenPossible(engine, disk)
    while (step(engine, disk)) {
      const owners = new Map<string, number>()
      for (const fragment of (engine as unknown as Inside).maintenance.version.fragments) {
        const path = tablePath("engine", fragment.fileNumber)
        const table = new Table({ disk, path, identity: fragment })
        // Tombstones are cut where their table ends, so that none reaches over what is not its own.
        for (const tombstone of table.tombstones) {
          expect(compareBytes(tombstone.lower, tombstone.upper)).toBeLessThan(0)
        }
        for (let block = 0; block < table.blockCount; block++) {
          // One entry a block.
          const last = table.lastKey(block)
          if (compareBytes(last, fragment.lower) < 0 || compareBytes(last, fragment.upper) >= 0) {
            continue
          }
          const place = `${fragment.level}/${fragment.run}/${toHex(last)}`
          expect(`${place} ${owners.get(place) ?? "none"}`).toBe(`${place} none`)
          owners.set(place, fragment.fileNumber)
          looked++
        }
        table.close()
      }
    }
  }
  expect(looked).toBeGreaterThan(5000)
}, 60_000)

test("pitfall 24: writers that never rest are never stopped for good", () => {
  const disk = new SimulatedDisk()
  const engine = Engine.open(disk, "engine", { ...tiny, maxLevel0Runs: 4, level0Trigger: 2 })
  const prng = new Prng(24)
  let most = 0
  for (let i = 0; i < 1500; i++) {
    const key = utf8(`key:${prng.int(0, 400)}`)
    const value = new Uint8Array(prng.int(0, 60))
    let waited = 0
    while (!engine.canWrite(key.length + value.length)) {
      // Backpressure always has a job that makes room.
      expect(step(engine, disk)).toBe(true)
      waited++
    }
    most = Math.max(most, waited)
    if (engine.needsSeal(key.length + value.length)) engine.seal()
    engine.put(key, value)
    const runs = new Set<number>()
    for (const fragment of (engine as unknown as Inside).maintenance.version.fragments) {
      if (fragment.level === 0) runs.add(fragment.run)
    }
    expect(runs.size).toBeLessThanOrEqual(4)
  }
  // Debt is bounded: what a writer waits for at once is a slice of the tree.
  expect(most).toBeLessThan(200)
  settle(engine, disk)
}, 60_000)

test("pitfall 25: what opening reads does not grow with the data", () => {
  const costs = [20, 200].map((rounds) => {
    const disk = new CountingDisk()
    const options = { memtableBytes: 4000, manifestBytes: 4096 }
    const engine = Engine.open(disk, "engine", options)
    for (let round = 0; round < rounds; round++) {
      for (let i = 0; i < 20; i++) engine.put(utf8(`key:${i}`), utf8(`value ${round}`))
      flushAll(engine, disk)
    }
    settle(engine, disk)
    engine.close()
    disk.kill()
    disk.readBytes = 0
    const again = Engine.open(disk, "engine", options)
    const { readBytes } = disk
    expect(contentOf(again).length).toBe(20)
    return readBytes
  })
  // The manifest is begun anew before it is long, and no table is read.
  expect(costs[1]).toBeLessThan(2 * 4096 + 4 * 1024)
  expect(costs[1] as number).toBeLessThan(4 * (costs[0] as number) + 4096)
})

class CountingDisk extends SimulatedDisk {
  readBytes = 0

  override open(path: string) {
    const file = super.open(path)
    const read = file.read.bind(file)
    file.read = (target, offset) => {
      const count = read(target, offset)
      this.readBytes += count
      return count
    }
    return file
  }
}

test("pitfall 26: a filter judges by the time it is given and by no clock", () => {
  const at = 1_000_000
  const held = [0, 10_000_000_000_000].map((nowMs) => {
    const disk = new SimulatedDisk()
    const engine = Engine.open(disk, "engine", {
      ...tiny,
      level0Trigger: 1,
      filters: () => [
        {
          lower: utf8("a"),
          upper: utf8("z"),
          rule: { _tag: "Expired", offset: 0, atOrBefore: at },
        },
      ],
    })
    for (const [name, expiry] of [
      ["before", at - 1],
      ["now", at],
      ["after", at + 1],
      ["never", 0],
    ] as const) {
      const value = new Uint8Array(8)
      new DataView(value.buffer).setUint32(0, expiry, true)
      engine.put(utf8(name), value)
    }
    engine.seal()
    // Whatever the machine's clock says, and however far it is from another one's.
    for (let job = engine.nextJob(nowMs); job !== undefined; job = engine.nextJob(nowMs)) {
      carryOut(engine, disk, job)
    }
    return contentOf(engine).map(([key]) => new TextDecoder().decode(key))
  })
  expect(held).toEqual([
    ["after", "never"],
    ["after", "never"],
  ])
})

test("pitfall 28: keys are in the order of their bytes, not of their characters", () => {
  const disk = new SimulatedDisk()
  const engine = Engine.open(disk, "engine", tiny)
  // U+FF5E is before U+1F600 in UTF-8 and behind it in UTF-16; "a" is behind "B" in bytes only.
  const words = ["\u{ff5e}", "\u{1f600}", "a", "B", "z", "ä"]
  const keys = [
    ...words.map(utf8),
    new Uint8Array([0x80]),
    new Uint8Array([0xff]),
    Uint8Array.of(0),
  ]
  for (const key of keys) engine.put(key, key)
  const expected = [...keys].sort((left, right) => Buffer.compare(left, right)).map(toHex)
  expect(contentOf(engine).map(([key]) => toHex(key))).toEqual(expected)
  flushAll(engine, disk)
  settle(engine, disk)
  expect(contentOf(engine).map(([key]) => toHex(key))).toEqual(expected)
})
