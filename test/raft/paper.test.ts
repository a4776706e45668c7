import { describe, expect, test } from "bun:test"
import { RaftNode } from "../../src/raft/raftNode.ts"
import { figure2Rules } from "./figure2Rules.ts"
import { leaseRules } from "./leaseRules.ts"
import { membershipRules } from "./membershipRules.ts"
import { paperRules } from "./paperRules.ts"
import { plantedBugs } from "./plantedBugs.ts"
import { thesisRules } from "./thesisRules.ts"

const rules = [...figure2Rules, ...paperRules, ...thesisRules, ...membershipRules, ...leaseRules]

describe("each rule of the literature that the core follows", () => {
  for (const rule of rules) test(rule.name, () => rule.check(RaftNode))
})

describe("a replica with a planted bug breaks the rule it is against", () => {
  for (const [bug, Node] of Object.entries(plantedBugs)) {
    const broken = rules.filter((rule) => rule.bug === bug)
    test(`one that ${bug}`, () => {
      expect(broken.length).toBeGreaterThan(0)
      for (const rule of broken) expect(() => rule.check(Node)).toThrow()
    })
  }
})
