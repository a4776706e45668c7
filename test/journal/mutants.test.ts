import { describe, expect, test } from "bun:test"
import { Batch } from "../../src/journal/batch.ts"
import { JournalGroup } from "../../src/journal/group.ts"
import { Recovery } from "../../src/journal/recovery.ts"
import { Replay } from "../../src/journal/replay.ts"
import { Turnover } from "../../src/journal/turnover.ts"
import { runJournalCrashSweep, runJournalLife } from "./crashSweep.ts"

/** A class's methods, private ones too, to be replaced for the length of a test. */
type Methods = Record<string, (this: never, ...args: Array<never>) => unknown>

function methodsOf(prototype: object): Methods {
  return prototype as unknown as Methods
}

/** One broken rule: which method to replace, and by what. */
interface Mutant {
  readonly name: string
  readonly target: object
  readonly method: string
  readonly replacement: (original: (...args: Array<unknown>) => unknown) => unknown
}

interface SegmentsView {
  readonly count: number
  at(position: number): unknown
}

const mutants: ReadonlyArray<Mutant> = [
  {
    name: "middle segment deleted first",
    target: Turnover.prototype,
    method: "deletable",
    replacement: () =>
      function (this: { segments: SegmentsView }) {
        return this.segments.count > 2 ? this.segments.at(1) : undefined
      },
  },
  {
    name: "segment deleted before the next checkpoint is durable",
    target: Turnover.prototype,
    method: "deletable",
    replacement: () =>
      function (this: { segments: SegmentsView }) {
        const oldest = this.segments.at(0) as { liveCount: number }
        return this.segments.count > 1 && oldest.liveCount === 0 ? oldest : undefined
      },
  },
  {
    name: "rewrite read as append",
    target: Replay.prototype,
    method: "rewrite",
    replacement: () =>
      function (this: Replay, record: never) {
        this.append(record)
      },
  },
  {
    name: "hard state dropped",
    target: Replay.prototype,
    method: "hardState",
    replacement: () => () => {},
  },
  {
    name: "hard state not carried into checkpoints",
    target: JournalGroup.prototype,
    method: "writeCheckpoint",
    replacement: (original) =>
      function (this: JournalGroup, batch: unknown) {
        const { checkpoint } = this
        if (checkpoint !== undefined) this.checkpoint = { ...checkpoint, vote: 0 }
        original.call(this, batch)
        this.checkpoint = checkpoint
      },
  },
  {
    name: "torn tail left as it is",
    target: Recovery.prototype,
    method: "cleanTail",
    replacement: () => () => {},
  },
  {
    name: "torn tail cleaned but not synced",
    target: Recovery.prototype,
    method: "cleanTail",
    replacement: (original) =>
      function (this: object, position: number, scan: unknown) {
        const { segments } = this as { segments: ReadonlyArray<{ file: { sync(): void } }> }
        for (const segment of segments) segment.file.sync = () => {}
        original.call(this, position, scan)
      },
  },
  {
    name: "place freed before the batch that frees it is durable",
    target: Batch.prototype,
    method: "free",
    replacement: () =>
      function (this: Batch, segment: { liveCount: number }) {
        segment.liveCount--
      },
  },
  {
    name: "truncation not replayed",
    target: Replay.prototype,
    method: "append",
    replacement: (original) =>
      function (this: Replay, record: unknown) {
        const { index } = record as { index: number }
        const group = (
          this as unknown as { find(key: unknown): { places: { lastIndex: number } } | undefined }
        ).find(record)
        if (group !== undefined && index <= group.places.lastIndex) return
        original.call(this, record)
      },
  },
]

/** What the crash tests say of the journal as it is now: the first failure, or undefined. */
function firstFailure(): unknown {
  try {
    for (let seed = 0; seed < 300; seed++) runJournalLife(seed, 2000)
    runJournalCrashSweep({ seed: 1, steps: 300, randomLosses: 2 })
    return undefined
  } catch (error) {
    return error
  }
}

describe("the crash tests notice a journal with", () => {
  for (const { name, target, method, replacement } of mutants) {
    test(name, () => {
      const methods = methodsOf(target)
      const original = methods[method] as (...args: Array<unknown>) => unknown
      expect(original).toBeFunction()
      methods[method] = replacement(original) as never
      try {
        expect(firstFailure()).toBeDefined()
      } finally {
        methods[method] = original as never
      }
    }, 60_000)
  }

  test("nothing wrong: they pass", () => {
    expect(firstFailure()).toBeUndefined()
  }, 60_000)
})
