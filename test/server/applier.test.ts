import { expect, test } from "bun:test"
import { StorageCorruption } from "../../src/disk/disk.ts"
import { emptyBytes } from "../../src/lib/bytes.ts"
import { entryKinds } from "../../src/raft/message.ts"
import { Applier, type ApplyHost } from "../../src/server/applier.ts"

const damage = new StorageCorruption({ path: "t", offset: 0, expected: "this", actual: "that" })

/** A replica with one entry to apply, which reads what is damaged. */
function stuckReplica() {
  const entry = { index: 2, term: 1, kind: entryKinds.commands, data: emptyBytes }
  const probe = () => {
    throw damage
  }
  const log = { entries: () => [entry] }
  return { machine: { appliedIndex: 1, probe }, applyLimit: 2, log, damage: undefined }
}

test("entries that read what is damaged call for no turns, however small the budget: else a node spins for as long as it is there", () => {
  const stuck = [stuckReplica(), stuckReplica()]
  const engine = { canWrite: () => true, needsSeal: () => false }
  const host = {
    storage: { engine, report: () => {} },
    settings: { applyBytesPerTurn: 1 },
    set: { awake: stuck },
  }
  const applier = new Applier(host as unknown as ApplyHost)
  expect(applier.applyCommitted()).toBe(false)
  expect(stuck.map((replica) => replica.damage as unknown)).toEqual([damage, damage])
})
