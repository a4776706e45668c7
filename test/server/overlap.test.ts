import { describe, expect, test } from "bun:test"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { copiesOf, hasOverlap, type Level } from "../../src/dynamo/coordinator/slotPlan.ts"
import type { EventualReply } from "../../src/dynamo/node/requests.ts"
import { put, seenIn, siblings, unmended } from "./eventualCluster.ts"

/** Which owners are out of reach, n1 as bit 0. */
type Cut = number

const levels = ["one", "quorum", "all"] as const

/** What the reads of one configuration came to. */
interface Tally {
  seen: number
  missed: number
}

interface Trial {
  readonly name: string
  readonly key: string
  readonly write: Level
  readonly read: Level
  readonly cutAtWrite: Cut
  readonly cutAtRead: Cut
}

/**
 * All sets of owners up to 4 copies; above, those that leave all, just a quorum, all but a quorum, or one: the first in order, and the last, so that reads by the one half follow
 * writes by the other.
 */
function cutsOf(copies: number): ReadonlyArray<Cut> {
  const everybody = (1 << copies) - 1
  if (copies <= 4) return Array.from({ length: everybody }, (_, cut) => cut)
  const quorum = copiesOf("quorum", copies)
  const cuts = new Set<Cut>()
  for (const size of [0, copies - quorum, quorum, copies - 1]) {
    cuts.add((1 << size) - 1)
    cuts.add(everybody & ~(everybody >> size))
  }
  return [...cuts]
}

function trialsOf(copies: number): ReadonlyArray<Trial> {
  const trials: Array<Trial> = []
  for (const write of levels) {
    for (const read of levels) {
      for (const cutAtWrite of cutsOf(copies)) {
        for (const cutAtRead of cutsOf(copies)) {
          const name = `${write}/${read}`
          const key = `${name}/${cutAtWrite}/${cutAtRead}`
          trials.push({ name, key, write, read, cutAtWrite, cutAtRead })
        }
      }
    }
  }
  return trials
}

/**
 * Each key is written once, strictly, at the first owner in reach while some are cut off, and read once, at the last one in reach while others are. Nothing but these requests
 * brings a value to anybody, and no key is read twice, as a read repairs.
 */
function runAll(copies: number): ReadonlyMap<string, Tally> {
  const cluster = unmended(copies, 1, copies)
  const tallies = new Map<string, Tally>()
  const cutOff = (cut: Cut) => {
    const isOut = (node: number) => (cut & (1 << (node - 1))) !== 0
    cluster.loses = (from, to) => isOut(from) || isOut(to)
    // Long enough for everybody to know who is out of reach, so that nobody waits for an answer.
    cluster.pass(1100)
    return [...cluster.nodes.keys()].filter((node) => !isOut(node))
  }
  const trials = trialsOf(copies)
  const acknowledged: Array<Trial> = []
  for (const cut of cutsOf(copies)) {
    const [coordinator] = cutOff(cut)
    const asked = trials.filter(({ cutAtWrite }) => cutAtWrite === cut)
    const replies = answersTo(asked, ({ key, write: level }) => {
      const place = { namespace: siblings, key }
      return cluster.beginWrite(coordinator, place, put("w"), { level, strict: true })
    })
    asked.forEach((trial, i) => {
      if (replies[i]()?._tag === "EventualWritten") acknowledged.push(trial)
    })
  }
  for (const cut of cutsOf(copies)) {
    const coordinator = cutOff(cut).at(-1) as number
    const asked = acknowledged.filter(({ cutAtRead }) => cutAtRead === cut)
    const replies = answersTo(asked, ({ key, read }) => {
      return cluster.beginRead(coordinator, { namespace: siblings, key }, read)
    })
    asked.forEach(({ name, key }, i) => {
      const reply = replies[i]()
      if (reply?._tag !== "EventualValue") return
      const tally = tallies.get(name) ?? { seen: 0, missed: 0 }
      tallies.set(name, tally)
      if (seenIn(reply, siblings, key).values.length > 0) tally.seen++
      else tally.missed++
    })
  }
  return tallies

  /** Some at a time: a node has only so much room for requests, and for what is not flushed yet. */
  function answersTo(
    asked: ReadonlyArray<Trial>,
    begin: (trial: Trial) => () => EventualReply | undefined,
  ): ReadonlyArray<() => EventualReply | undefined> {
    const replies = asked.map((trial, i) => {
      if (i % 16 === 15) cluster.pass(40)
      return begin(trial)
    })
    cluster.until("all are answered", () => replies.every((reply) => reply() !== undefined))
    return replies
  }
}

describe("a read that is strict, after a write that was, at N copies", () => {
  test.each([1, 2, 3, 4, 5, 6, 7])(
    "N = %i: sees it at levels that overlap, whoever is cut off; at any others somebody's cut hides it",
    (copies) => {
      const tallies = runAll(copies)
      for (const write of levels) {
        for (const read of levels) {
          const name = `${write}/${read}`
          const { seen, missed } = tallies.get(name) ?? { seen: 0, missed: 0 }
          expect(seen, name).toBeGreaterThan(0)
          const overlap = hasOverlap({ read, write, copies })
          expect(`${name}: ${missed === 0}`).toBe(`${name}: ${overlap}`)
        }
      }
    },
    20_000,
  )

  test("the README has the table", () => {
    const cell = (write: Level, read: Level) => {
      const sure = [1, 2, 3, 4, 5, 6, 7].filter((copies) => hasOverlap({ read, write, copies }))
      return sure.length === 7 ? "sees it" : `N up to ${sure.length}`
    }
    const rows = levels.map((write) => {
      return `| write at \`${write}\` | ${levels.map((read) => cell(write, read)).join(" | ")} |`
    })
    const readme = readFileSync(join(import.meta.dir, "../../README.md"), "utf8")
    expect(readme).toContain(rows.join("\n"))
  })
})
