import { describe, expect, test } from "bun:test"
import { Prng } from "../../src/lib/prng.ts"
import type { Entry } from "../../src/raft/message.ts"
import { RaftLog } from "../../src/raft/raftLog.ts"
import { MemoryLog } from "./memoryLog.ts"
import { entry } from "./messages.ts"

function emptyLog() {
  const storage = new MemoryLog()
  return { storage, log: new RaftLog({ storage, commitIndex: 0, appliedIndex: 0 }) }
}

describe("the log over asynchronous storage", () => {
  test("the end of a write of entries since replaced does not make the new ones durable", () => {
    const { storage, log } = emptyLog()
    log.append([entry("1@1"), entry("2@1=a")])
    const first = log.takeUnwritten()
    log.append([entry("2@2=b")])
    const second = log.takeUnwritten()
    storage.append(first)
    log.persisted(2, 1)
    expect(log.durableIndex).toBe(1)
    storage.append(second)
    log.persisted(2, 2)
    expect(log.durableIndex).toBe(2)
  })

  test("entries that come back wait for the write that ends like them", () => {
    const { storage, log } = emptyLog()
    log.append([entry("1@1=a")])
    const first = log.takeUnwritten()
    log.append([entry("1@2=b")])
    const second = log.takeUnwritten()
    log.append([entry("1@1=a")])
    expect(log.hasUnwritten).toBe(true)
    expect(log.mustAwaitWrite).toBe(true)
    storage.append(first)
    log.persisted(1, 1)
    expect(log.durableIndex).toBe(0)
    expect(log.mustAwaitWrite).toBe(false)
    const third = log.takeUnwritten()
    storage.append(second)
    log.persisted(1, 2)
    expect(log.durableIndex).toBe(0)
    storage.append(third)
    log.persisted(1, 1)
    expect(log.durableIndex).toBe(1)
  })

  test("one call may stand for all writes up to it", () => {
    const { storage, log } = emptyLog()
    for (let index = 1; index <= 3; index++) {
      log.append([entry(`${index}@1`)])
      storage.append(log.takeUnwritten())
    }
    log.persisted(3, 1)
    expect(log.durableIndex).toBe(3)
    log.persisted(2, 1)
    expect(log.durableIndex).toBe(3)
  })

  test("storage that has other entries than it was given is found out", () => {
    const { storage, log } = emptyLog()
    log.append([entry("1@2")])
    log.takeUnwritten()
    storage.append([entry("1@1")])
    expect(() => log.persisted(1, 2)).toThrow("storage has term 1, not 2, at 1")
  })

  test("a committed entry is never replaced, nor an entry appended behind a gap", () => {
    const { log } = emptyLog()
    log.append([entry("1@1"), entry("2@1")])
    log.commitTo(2)
    expect(() => log.append([entry("2@2")])).toThrow("would replace committed 2")
    expect(() => log.append([entry("4@2")])).toThrow("leaves a gap after 2")
    expect(() => log.commitTo(3)).toThrow("beyond the log's end")
  })

  test("a replica does not start over storage that lacks what it has applied or committed", () => {
    const storage = new MemoryLog([entry("5@1")], { index: 4, term: 1 })
    expect(() => new RaftLog({ storage, commitIndex: 0, appliedIndex: 3 })).toThrow(
      "before the log",
    )
    expect(() => new RaftLog({ storage, commitIndex: 6, appliedIndex: 5 })).toThrow("beyond")
    expect(new RaftLog({ storage, commitIndex: 0, appliedIndex: 4 }).commitIndex).toBe(4)
  })

  test("the last index up to a term is found as by walking back", () => {
    const prng = new Prng(4)
    for (let run = 0; run < 500; run++) {
      const entries: Array<Entry> = []
      let term = 1
      const before = prng.int(0, 5)
      for (let index = before + 1; index < before + prng.int(1, 12); index++) {
        term += prng.int(0, 2)
        entries.push(entry(`${index}@${term}`))
      }
      const storage = new MemoryLog(entries.slice(0, prng.int(0, entries.length)), {
        index: before,
        term: 1,
      })
      const log = new RaftLog({ storage, commitIndex: 0, appliedIndex: before })
      log.append(entries.slice(storage.lastIndex - before))
      const index = prng.int(before, log.lastIndex + 3)
      const wanted = prng.int(1, term + 1)
      let expected = Math.min(index, log.lastIndex)
      while (expected > before && (log.term(expected) as number) > wanted) expected--
      expect(log.lastIndexUpToTerm(index, wanted)).toBe(expected)
    }
  })

  test("random appends, truncations and late writes leave what a plain array has", () => {
    const prng = new Prng(5)
    for (let run = 0; run < 300; run++) {
      const { storage, log } = emptyLog()
      const visibleAtOnce = prng.chance(0.5)
      const model: Array<Entry> = []
      const writes: Array<ReadonlyArray<Entry>> = []
      const onDisk = new MemoryLog()
      for (let step = 0; step < 60; step++) {
        switch (prng.int(0, 3)) {
          case 0: {
            const from = prng.int(Math.max(log.commitIndex + 1, model.length - 2), model.length + 1)
            // Few terms, so that entries often come back as they were.
            const floor = model[from - 2]?.term ?? 1
            const added = Array.from({ length: prng.int(1, 2) }, (_, i) =>
              entry(`${from + i}@${floor + (prng.chance(0.3) ? 1 : 0)}=x`),
            ).filter(({ term }, i, all) => i === 0 || term >= (all[i - 1] as Entry).term)
            model.splice(from - 1, model.length, ...added)
            log.append(added)
            break
          }
          case 1:
            if (!log.mustAwaitWrite && log.hasUnwritten) {
              const taken = log.takeUnwritten()
              if (visibleAtOnce) storage.append(taken)
              writes.push(taken)
            }
            break
          case 2: {
            const write = writes.shift()
            if (write === undefined) break
            onDisk.append(write)
            if (!visibleAtOnce) storage.append(write)
            const last = write.at(-1) as Entry
            log.persisted(last.index, last.term)
            break
          }
          default:
            if (prng.chance(0.2)) log.commitTo(prng.int(0, log.lastIndex))
        }
        expect(log.lastIndex).toBe(model.length)
        for (const { index, term } of model) expect(log.term(index)).toBe(term)
        // What is called durable is on the disk, as it is in the log.
        for (let index = 1; index <= log.durableIndex; index++) {
          expect(onDisk.term(index)).toBe((model[index - 1] as Entry).term)
        }
      }
    }
  })
})
