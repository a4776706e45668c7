import { describe, expect, test } from "bun:test"
import { mergeStates } from "../../src/dynamo/keyState.ts"
import { toHex } from "../../src/lib/bytes.ts"
import { Prng } from "../../src/lib/prng.ts"
import { CausalWorld, Divergence } from "./causalWorld.ts"
import { plantedBugs } from "./plantedBugs.ts"
import { type RuleModel, ruleModels } from "./rules.ts"

const stepsPerWorld = 120

function modelOf(rule: string): RuleModel {
  return ruleModels.find((model) => model.rule === rule) as RuleModel
}

describe("true causality", () => {
  test.each(ruleModels.map(({ rule }) => rule))(
    "under %s the bytes show exactly the writes that no known write covers",
    (rule) => {
      const counts = { writes: 0, reaped: 0, pruned: 0, wiped: 0, ended: 0, adopted: 0 }
      for (let seed = 1; seed <= 50; seed++) {
        const world = new CausalWorld(seed, modelOf(rule))
        world.run(stepsPerWorld)
        counts.writes += world.counts.writes
        counts.reaped += world.counts.reaped
        counts.pruned += world.counts.pruned
        counts.wiped += world.counts.wiped
        counts.ended += world.counts.ended
        counts.adopted += world.counts.adopted
      }
      // The worlds are not empty of what they are about.
      if (rule !== "lww") {
        for (const [name, count] of Object.entries(counts)) expect(count, name).toBeGreaterThan(0)
      }
    },
  )

  test("the same seed makes the same world", () => {
    const bytes = [1, 2].map(() => {
      const world = new CausalWorld(7, modelOf("siblings"))
      world.run(stepsPerWorld)
      return world.counts
    })
    expect(bytes[0]).toEqual(bytes[1])
  })

  test.each(plantedBugs)("seen to fail: %s", (_, World, rules) => {
    for (const [rule, seed] of Object.entries(rules)) {
      const world = new World(seed, modelOf(rule))
      expect(() => world.run(stepsPerWorld), rule).toThrow(Divergence)
    }
  })
})

/** Keeps every state that a world passes through; nothing is pruned, as that follows from clocks, not from states. */
class Recording extends CausalWorld {
  readonly states = new Map<string, Array<Uint8Array>>()

  override pruned(state: Uint8Array): Uint8Array {
    return state
  }

  override mustBeSmall(): void {}

  override receive(...[at, key, held]: Parameters<CausalWorld["receive"]>): void {
    const states = this.states.get(key) ?? []
    this.states.set(key, states)
    states.push(held.state)
    super.receive(at, key, held)
  }
}

function hex(state: Uint8Array | undefined): string {
  return state === undefined ? "nothing" : toHex(state)
}

describe("the laws of merging, on bytes", () => {
  test.each(ruleModels.map(({ rule }) => rule))(
    "%s: commutative, associative, idempotent, and a merge takes in what it has seen at no cost",
    (rule) => {
      for (let seed = 1; seed <= 25; seed++) {
        const world = new Recording(seed, modelOf(rule))
        world.run(60)
        const prng = new Prng(seed)
        for (const states of world.states.values()) {
          for (let n = 0; n < 12; n++) {
            const [x, y, z] = [prng.pick(states), prng.pick(states), prng.pick(states)]
            const xy = mergeStates(x, y) as Uint8Array
            expect(hex(mergeStates(y, x))).toBe(hex(xy))
            expect(hex(mergeStates(xy, z))).toBe(
              hex(mergeStates(x, mergeStates(y, z) as Uint8Array)),
            )
            expect(mergeStates(x, x)).toBe(x)
            expect(mergeStates(x, x.slice())).toBe(x)
            expect(mergeStates(xy, x)).toBe(xy)
            expect(hex(mergeStates(y, xy))).toBe(hex(xy))
          }
        }
      }
    },
  )
})
