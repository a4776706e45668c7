import { describe, expect, test } from "bun:test"
import { missingTests, type Pitfall } from "../pitfallTable.ts"

/**
 * The ways in which leaderless stores have failed, by their numbers in the list of this project, and for each the tests that fail when we do so too. The title of every one of
 * those begins with the number, so that who breaks it learns which mistake it is.
 */
const pitfalls: ReadonlyArray<Pitfall> = [
  {
    number: 1,
    pitfall: "clocks with an entry for each client grow without end",
    tests: [["dynamo/siblings.test.ts", "a hundred thousand clients leave one entry"]],
  },
  {
    number: 2,
    pitfall: "pruning forgets causality: siblings that are none, or writes lost",
    tests: [
      ["dynamo/siblings.test.ts", "entries of an ended epoch leave the contexts of writes"],
      ["dynamo/pruning.test.ts", "a set in use loses the entries of ended epochs"],
    ],
  },
  {
    number: 3,
    pitfall: "clocks without dots let siblings pile up",
    tests: [["dynamo/siblings.test.ts", "two writers with stale contexts, a thousand times"]],
  },
  {
    number: 4,
    pitfall: "a dot is used again after data was lost, and the new write is taken for the old",
    tests: [
      ["dynamo/siblings.test.ts", "a dot is not used twice"],
      ["server/eventual.test.ts", "forgets nothing that it has answered for"],
      ["dynamo/node/exchangesStories.test.ts", "and has lost everything takes nothing"],
    ],
  },
  {
    number: 5,
    pitfall: "an old delete that is handed off late kills the key that was made again",
    tests: [["dynamo/siblings.test.ts", "an old delete handed off late does not kill"]],
  },
  {
    number: 6,
    pitfall: "a delete is forgotten before every owner has seen it",
    tests: [
      ["server/reaper.test.ts", "waits for an owner that is away, however long"],
      ["server/longAway.test.ts", "a node away for 30 simulated days brings nothing back"],
    ],
  },
  {
    number: 7,
    pitfall: "a delete goes while what it deletes is still in another table",
    tests: [["server/eventualPitfalls.test.ts", "that has reaped a delete does not show"]],
  },
  {
    number: 8,
    pitfall: "a hint brings back what was deleted",
    tests: [
      ["dynamo/siblings.test.ts", "a hint in flight while the key is deleted"],
      ["server/reaper.test.ts", "is not undone by a hint that comes when it was reaped"],
    ],
  },
  {
    number: 9,
    pitfall: "a hint for one that has left, or of a slot that moved, is lost or kept for ever",
    tests: [["server/eventualPitfalls.test.ts", "for an owner that has left are brought"]],
  },
  {
    number: 10,
    pitfall: "hints without bound, and a storm of them on return",
    tests: [
      ["server/standIns.test.ts", "hold no more for an owner than its budget"],
      ["server/eventualPitfalls.test.ts", "are brought to one that is back a few at a time"],
    ],
  },
  {
    number: 11,
    pitfall: "a sloppy quorum is counted as a strict one",
    tests: [
      ["server/standIns.test.ts", "take a write for owners that are down, say so"],
      ["server/staleRead.test.ts", "is stale where stand-ins make up the quorum"],
      ["dynamo/coordinator/levels.test.ts", "every level with every number of owners up"],
    ],
  },
  {
    number: 12,
    pitfall: "a write that failed is seen, and then undone",
    tests: [["server/coordinating.test.ts", "is shown by every quorum read after it"]],
  },
  {
    number: 13,
    pitfall: "a repair that comes late replaces what is newer",
    tests: [["server/eventualPitfalls.test.ts", "that is brought a repair after a newer write"]],
  },
  {
    number: 14,
    pitfall: "a read is answered before it has repaired what it shows, and a later one goes back",
    tests: [["server/coordinating.test.ts", "is not shown while nobody else can be brought it"]],
  },
  {
    number: 15,
    pitfall: "trees drift from the data: after a crash, by what has expired, or at all",
    tests: [
      ["server/eventual.test.ts", "has the same clocks and trees after a restart"],
      ["dynamo/merkleTree.test.ts", "a rebuild finds a tree that has drifted"],
      ["server/reaper.test.ts", "a tree that has drifted from its keys is put right"],
      ["dynamo/siblings.test.ts", "an expired value becomes a delete on every replica"],
      ["dynamo/node/exchangesStories.test.ts", "take over from each other what they lack"],
    ],
  },
  {
    number: 16,
    pitfall: "repair brings a value to an owner that has reaped it",
    tests: [["dynamo/node/exchangesStories.test.ts", "take over deletes, and what was reaped"]],
  },
  {
    number: 17,
    pitfall: "clocks that differ: a stamp of the future wins over all, equal stamps lose writes",
    tests: [
      ["dynamo/crdt.test.ts", "a stamp too far ahead is refused"],
      ["dynamo/crdt.test.ts", "the higher stamp wins, and at equal stamps the higher dot"],
    ],
  },
  {
    number: 18,
    pitfall: "an increment that is tried again is counted twice",
    tests: [
      ["client/eventualRetries.test.ts", "is counted once when the node that took it"],
      ["client/eventualRetries.test.ts", "is sent to nobody else while that node is away"],
    ],
  },
  {
    number: 19,
    pitfall: "removal without a context, reset anomalies, and removals that pile up",
    tests: [
      ["dynamo/siblings.test.ts", "a removal of a member that the caller never saw"],
      ["dynamo/crdt.test.ts", "no reset anomaly"],
      ["dynamo/crdt.test.ts", "a hundred thousand adds and removals"],
    ],
  },
  {
    number: 20,
    pitfall: "two views of the ring: writes miss new owners, reads ask one that is not filled",
    tests: [
      ["dynamo/coordinator/levels.test.ts", "a slot that gets a new owner asks one"],
      ["dynamo/node/exchangesStories.test.ts", "is filled by a source that knows"],
      ["server/coordinating.test.ts", "waits for it, and then counts new owners too"],
      ["server/eventualPitfalls.test.ts", "that is pending, was streamed a value and missed"],
    ],
  },
  {
    number: 21,
    pitfall: "repair and hand-off starve requests",
    tests: [
      ["dynamo/node/exchangesStories.test.ts", "stay within the budget"],
      ["server/eventualPitfalls.test.ts", "fall back to their least rate when requests feel"],
    ],
  },
]

const begins = (found: string, number: number, words: string) =>
  found.startsWith(`AP pitfall ${number}: ${words}`)

describe("of the pitfalls of leaderless stores", () => {
  test("each has a test", () => {
    const all = Array.from({ length: 21 }, (_, i) => i + 1)
    expect(pitfalls.map(({ number }) => number)).toEqual(all)
    for (const { tests } of pitfalls) expect(tests.length).toBeGreaterThan(0)
  })

  test("every test that is named exists, and begins with the number", () => {
    expect(missingTests(pitfalls, begins)).toEqual([])
  })

  test("the look at titles can fail", () => {
    expect(begins("AP pitfall 1: it works", 1, "it works")).toBe(true)
    expect(begins("AP pitfall 11: it works", 1, "it works")).toBe(false)
    expect(begins("pitfall 1: it works", 1, "it works")).toBe(false)
    const number = 1
    const nowhere: Pitfall = { number, pitfall: "", tests: [["dynamo/no.test.ts", "it works"]] }
    expect(missingTests([nowhere], () => true)).toEqual(["1 dynamo/no.test.ts: it works"])
  })
})
