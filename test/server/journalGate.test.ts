import { describe, expect, test } from "bun:test"
import { Journal } from "../../src/journal/journal.ts"
import { prepareSegment } from "../../src/journal/segments.ts"
import type { Message } from "../../src/raft/message.ts"
import { JournalGate } from "../../src/server/journalGate.ts"
import type { Replica } from "../../src/server/replica.ts"
import { SimulatedDisk } from "../sim/simulatedDisk.ts"

function setUp() {
  const disk = new SimulatedDisk()
  const { journal } = Journal.recover(disk, "journal", { segmentBytes: 4096 })
  for (const job of journal.segmentsToPrepare()) {
    prepareSegment(disk, job)
    journal.segmentReady(job)
  }
  const delivered: Array<number> = []
  const gate = new JournalGate(journal, {
    deliver: (_, message) => void delivered.push(message.term),
    send: () => {},
    marked: () => {},
  })
  const group = journal.group({ range: 1, replica: 1 })
  const replica = {} as Replica
  const hold = (term: number) => gate.hold(replica, { term } as Message)
  const vote = (term: number) => group.setHardState({ term, vote: 1, commit: 0 })
  return { gate, hold, vote, delivered }
}

describe("the journal gate", () => {
  test("what waits when a batch is cut leaves when that batch is durable, and not before", () => {
    const { gate, hold, vote, delivered } = setUp()
    vote(1)
    hold(1)
    const write = gate.cut()!
    expect(delivered).toEqual([])
    gate.durable(write)
    expect(delivered).toEqual([1])
  })

  test("what comes during a write with a record of its own waits for the next", () => {
    const { gate, hold, vote, delivered } = setUp()
    vote(1)
    hold(1)
    const first = gate.cut()!
    vote(2)
    hold(2)
    expect(gate.cut()).toBeUndefined()
    gate.durable(first)
    expect(delivered).toEqual([1])
    gate.durable(gate.cut()!)
    expect(delivered).toEqual([1, 2])
  })

  test("what comes during a write without a record of its own waits for that write", () => {
    const { gate, hold, vote, delivered } = setUp()
    vote(1)
    const write = gate.cut()!
    hold(7)
    expect(gate.cut()).toBeUndefined()
    expect(delivered).toEqual([])
    gate.durable(write)
    expect(delivered).toEqual([7])
  })

  test("what comes when all is durable leaves at once", () => {
    const { gate, hold, delivered } = setUp()
    hold(3)
    expect(gate.cut()).toBeUndefined()
    expect(delivered).toEqual([3])
  })
})
