import { describe, expect, test } from "bun:test"
import { recordTypes } from "../../src/journal/format.ts"
import type { JournalGroup } from "../../src/journal/group.ts"
import { utf8 } from "../../src/lib/bytes.ts"
import type { AppendRequest } from "../../src/raft/message.ts"
import { HoleFilling } from "../../src/server/holeFilling.ts"
import type { EntriesFound, EntriesWanted } from "../../src/server/lostEntries.ts"
import type { PeerMessage } from "../../src/server/peerMessage.ts"
import type { Replica } from "../../src/server/replica.ts"
import { JournalDriver, smallOptions } from "../journal/driver.ts"
import { SimulatedDisk } from "../sim/simulatedDisk.ts"
import { records } from "./journalRecords.ts"

const key = { range: 1, replica: 1 }

/** A log with these terms from index 1 on; of the entries in `lost` the records are damaged. */
function logOf(terms: ReadonlyArray<number>, lost: ReadonlyArray<number>): JournalDriver {
  const disk = new SimulatedDisk()
  const driver = new JournalDriver(disk, { ...smallOptions, segmentBytes: 65_536 })
  const group = driver.journal.group(key)
  group.setHardState({ term: Math.max(...terms), vote: 0, commit: 0 })
  for (const [i, term] of terms.entries()) {
    group.append([{ index: i + 1, term, kind: 1, data: utf8(`entry ${i + 1} of ${term}`) }])
    driver.commit()
  }
  driver.seal()
  disk.keepAll()
  for (const { path, start, type, index } of records(disk)) {
    if (type === recordTypes.append && lost.includes(index)) disk.corrupt(path, start + 54, 1)
  }
  driver.recover()
  return driver
}

/** As much of a replica as filling looks at: one of three, that has applied nothing. */
function replicaOf(log: JournalGroup): Replica {
  const membership = { voters: [1, 2, 3], outgoing: [], learners: [] }
  const raft = { membership, term: log.hardState.term, lastIndex: log.lastIndex, reportLost() {} }
  const fake = {
    range: 1,
    log,
    raft,
    flushedIndex: 0,
    machine: { replica: 1, appliedIndex: 0 },
    nodeOf: (replica: number) => replica,
  }
  return fake as unknown as Replica
}

function fillingWith() {
  const sent: Array<PeerMessage> = []
  const notes: Array<string> = []
  const restarted: Array<Replica> = []
  const clock = { monotonicMs: 0 }
  const filling = new HoleFilling({
    clock,
    maxBytes: 1024,
    firstSequence: 100,
    send: (_node, message) => void sent.push(message),
    note: (message) => void notes.push(message),
    flush: () => {},
    restart: (replica) => void restarted.push(replica),
  })
  return { filling, sent, notes, clock, restarted }
}

function wanted(first: number, last: number, anchor: { index: number; term: number }) {
  const ids = { range: 1, from: 2, to: 1, sequence: 1, readableTo: 0 }
  return { _tag: "EntriesWanted", ...ids, first, last, anchor } satisfies EntriesWanted
}

/** Indexes with which a replica that has this log answers. */
function answer(log: JournalDriver, question: EntriesWanted): ReadonlyArray<number> {
  const { filling, sent } = fillingWith()
  filling.asked(replicaOf(log.journal.group(key)), question, 2)
  const [found] = sent as Array<EntriesFound>
  return (found as EntriesFound).entries.map(({ index }) => index)
}

describe("pitfall 36: a replica that is asked for entries", () => {
  test("gives those before an entry that it has, and only of the very same term", () => {
    const log = logOf([1, 1, 2, 2, 3], [])
    expect(answer(log, wanted(2, 3, { index: 4, term: 2 }))).toEqual([2, 3])
    expect(answer(log, wanted(2, 3, { index: 4, term: 3 }))).toEqual([])
    expect(answer(log, wanted(5, 5, { index: 5, term: 3 }))).toEqual([5])
    expect(answer(log, wanted(6, 7, { index: 8, term: 3 }))).toEqual([])
    log.journal.group(key).release(2)
    expect(answer(log, wanted(2, 3, { index: 4, term: 2 }))).toEqual([])
  })

  test("gives none where it misses some itself up to the entry that proves them", () => {
    const log = logOf([1, 1, 1, 1, 2, 2], [4])
    expect(answer(log, wanted(2, 3, { index: 5, term: 2 }))).toEqual([])
    expect(answer(log, wanted(2, 2, { index: 3, term: 1 }))).toEqual([2])
    expect(answer(log, wanted(5, 5, { index: 6, term: 2 }))).toEqual([5])
  })
})

describe("pitfall 36: entries of the term of the one that proves them", () => {
  test("are given without it, as far as they follow each other: one leader wrote them all", () => {
    const log = logOf([1, 2, 2, 2, 2, 2], [5])
    expect(answer(log, wanted(3, 4, { index: 9, term: 2 }))).toEqual([3, 4])
    expect(answer(log, wanted(3, 6, { index: 9, term: 2 }))).toEqual([3, 4])
    expect(answer(log, wanted(1, 2, { index: 9, term: 2 }))).toEqual([])
    expect(answer(log, wanted(3, 4, { index: 9, term: 3 }))).toEqual([])
    expect(answer(log, wanted(5, 5, { index: 6, term: 2 }))).toEqual([])
  })
})

describe("pitfall 36: a replica that asks", () => {
  /** Asks, and gets this answer from replica 2. */
  function asking(log: JournalDriver) {
    const { filling, sent, notes, clock, restarted } = fillingWith()
    const replica = replicaOf(log.journal.group(key))
    filling.tick([replica])
    const question = sent[0] as EntriesWanted
    const reply = (from: number, over: Partial<EntriesFound>) => {
      const last = { index: 5, term: 3 }
      const ids = { range: 1, from, to: 1, sequence: question.sequence }
      const said = { isSure: true, term: 3, last, previousTerm: 1, entries: [] }
      filling.answered(replica, { _tag: "EntriesFound", ...ids, ...said, ...over })
    }
    return { filling, replica, sent, question, reply, notes, clock, restarted }
  }

  test("asks all others once, and again only after a while, each time a longer one", () => {
    const { filling, replica, sent, clock } = asking(logOf([1, 1, 2, 3, 3], [3]))
    expect(sent.map((message) => (message as EntriesWanted).to)).toEqual([2, 3])
    expect(sent[0]).toMatchObject({ first: 3, last: 3, anchor: { index: 3, term: 2 } })
    const times: Array<number> = []
    for (; clock.monotonicMs < 20_000; clock.monotonicMs += 10) {
      const before = sent.length
      filling.tick([replica])
      if (sent.length > before) times.push(clock.monotonicMs)
    }
    const waits = times.map((time, i) => time - (times[i - 1] ?? 0))
    expect(waits.every((wait, i) => wait >= (waits[i - 1] ?? 0))).toBe(true)
    expect(Math.max(...waits)).toBeLessThanOrEqual(5000)
  })

  test("takes what fits, and gives up entries before it that the other has otherwise", () => {
    const found = [{ index: 3, term: 3, kind: 1, data: utf8("three") }]
    const log = logOf([1, 1, 3, 3, 3], [3])
    const { replica, reply } = asking(log)
    reply(2, { previousTerm: 1, entries: found })
    log.commit()
    expect(replica.log.missingCount).toBe(0)

    const other = logOf([1, 1, 3, 3, 3], [3])
    const second = asking(other)
    second.reply(2, { previousTerm: 2, entries: found })
    other.commit()
    expect(second.replica.log.gaps).toMatchObject([{ from: 1, to: 3 }])
  })

  test("lets no leader replace what it has behind a gap before that one has said that it lacks what is missing", () => {
    const append = (from: number, previousIndex: number, count: number) => {
      const entries = Array.from({ length: count }, (_, i) => {
        return { index: previousIndex + 1 + i, term: 3, kind: 1, data: utf8("x") }
      })
      const ids = { from, to: 1, term: 3, session: 1, commit: 0, previousTerm: 1 }
      return { _tag: "AppendRequest", ...ids, previousIndex, entries } as AppendRequest
    }
    const { filling, replica, reply } = asking(logOf([1, 1, 2, 2, 2], [3]))
    expect(filling.keepsFrom(replica, append(2, 2, 1))).toBe(true)
    expect(filling.keepsFrom(replica, append(2, 1, 2))).toBe(true)
    // What the core refuses anyway, or has already.
    expect(filling.keepsFrom(replica, append(2, 3, 1))).toBe(false)
    expect(filling.keepsFrom(replica, append(2, 1, 1))).toBe(false)
    expect(filling.keepsFrom(replica, append(2, 2, 0))).toBe(false)
    reply(2, {})
    expect(filling.keepsFrom(replica, append(2, 2, 1))).toBe(false)
    expect(filling.keepsFrom(replica, append(3, 2, 1))).toBe(true)
    // Nothing good is behind it.
    const last = asking(logOf([1, 1, 2, 2, 2], [5]))
    expect(last.filling.keepsFrom(last.replica, append(2, 4, 1))).toBe(false)
  })

  test("takes the very entry that is missing from a leader's append, and keeps what is behind it", () => {
    const log = logOf([1, 1, 2, 3, 3], [3])
    const { filling, replica } = asking(log)
    const group = log.journal.group(key)
    const entry = (term: number) => ({ index: 3, term, kind: 1, data: utf8(`3 of ${term}`) })
    const ids = {
      from: 2,
      to: 1,
      term: 4,
      session: 1,
      commit: 0,
      previousIndex: 2,
      previousTerm: 1,
    }
    const append = (term: number): AppendRequest =>
      ({ _tag: "AppendRequest", ...ids, entries: [entry(term)] }) as AppendRequest
    expect(filling.keepsFrom(replica, append(2))).toBe(true)
    log.commit()
    expect([group.missingCount, group.lastIndex]).toEqual([0, 5])
    const other = asking(logOf([1, 1, 2, 3, 3], [3]))
    expect(other.filling.keepsFrom(other.replica, append(4))).toBe(true)
    expect(other.replica.log.missingCount).toBe(1)
  })

  test("no append goes to a core that does not know of entries put back: one that does takes its place first", () => {
    const { filling, replica, restarted } = asking(logOf([1, 1, 2, 2, 2], [5]))
    const append = (previousIndex: number): AppendRequest => {
      const entries = [{ index: previousIndex + 1, term: 2, kind: 1, data: utf8("x") }]
      const ids = { from: 2, to: 1, term: 2, session: 1, commit: 0, previousTerm: 1 }
      return { _tag: "AppendRequest", ...ids, previousIndex, entries } as AppendRequest
    }
    for (const [lastIndex, durableIndex, held] of [
      [2, 2, 1],
      // It has just truncated its log, and has not written what it put there.
      [2, 1, 0],
      [4, 4, 0],
    ] as const) {
      restarted.length = 0
      Object.assign(replica.raft, { lastIndex, durableIndex })
      expect(filling.keepsFrom(replica, append(2))).toBe(held === 1)
      expect(restarted.length).toBe(held)
    }
    Object.assign(replica.raft, { lastIndex: 2, durableIndex: 2 })
    expect(filling.keepsFrom(replica, append(1))).toBe(false)
  })

  test("an answer that does not say what is before it counts where one leader wrote both, or what is before it is applied", () => {
    const found = [{ index: 3, term: 2, kind: 1, data: utf8("three") }]
    for (const [terms, taken] of [
      [[1, 2, 2, 2], true],
      [[1, 1, 2, 2], false],
    ] as const) {
      const log = logOf(terms, [3])
      const { replica, reply } = asking(log)
      reply(2, { previousTerm: 0, entries: found })
      log.commit()
      expect(replica.log.missingCount).toBe(taken ? 0 : 1)
    }
  })

  test("an answer to another question is none, and one that no other has counts when all have said so twice", () => {
    const { filling, replica, reply, notes, sent, clock } = asking(logOf([1, 1, 2, 3, 3], [3]))
    reply(2, { sequence: 99 })
    reply(2, {})
    reply(3, {})
    expect(filling.stateOf(replica)).toBe("filling")
    clock.monotonicMs += 1000
    filling.tick([replica])
    const { sequence } = sent[sent.length - 1] as EntriesWanted
    reply(2, { sequence })
    reply(3, { sequence })
    expect(filling.stateOf(replica)).toBe("unfillable")
    expect(notes).toEqual([
      "range 1, replica 1: no other replica has entries 3 to 3, which damage took; it waits for a snapshot",
    ])
  })

  test("a core that knew of what is missing makes room for one that does not, once the leader lacks it and nothing behind it is applied", () => {
    for (const appliedIndex of [0, 2, 3, 4]) {
      const asked = asking(logOf([1, 1, 2, 3, 3], [3]))
      const { filling, replica, clock, reply, restarted } = asked
      Object.assign(replica.machine, { appliedIndex })
      Object.assign(replica.raft, { leader: 2 })
      filling.tick([replica])
      expect(restarted).toEqual([])
      reply(3, {})
      filling.tick([replica])
      expect(restarted).toEqual([])
      reply(2, {})
      clock.monotonicMs += 10
      filling.tick([replica])
      // A core cannot begin before what is applied: there a flush ends the gap.
      expect(restarted.length).toBe(appliedIndex < 3 ? 1 : 0)
    }
  })
})
