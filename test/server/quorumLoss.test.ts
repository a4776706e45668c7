import { describe, expect, test } from "bun:test"
import type { Disk } from "../../src/disk/disk.ts"
import { DryDisk } from "../../src/doctor/dryDisk.ts"
import { recordTypes } from "../../src/journal/format.ts"
import { emptyBytes, utf8 } from "../../src/lib/bytes.ts"
import {
  makeSoleVoter,
  openStopped,
  planRecovery,
  type SurveyedRange,
  surveyRanges,
} from "../../src/server/quorumLoss.ts"
import { defaultSettings as settings } from "../../src/server/settings.ts"
import type { RangeDescriptor, ReplicaRole } from "../../src/types.ts"
import { SimulatedDisk } from "../sim/simulatedDisk.ts"
import { records } from "./journalRecords.ts"
import { LoopNode } from "./loopNode.ts"
import { Trio } from "./trio.ts"

const ids = [1, 2, 3]
const wallMs = 1_700_000_000_000

const open = (disk: Disk, node: number) =>
  openStopped({ disk, node, founders: ids, settings, wallMs, ranges: 1 })

describe("a quorum lost for good", () => {
  test("the survivor goes on alone with all that it held, and a lost node that comes back is destroyed", () => {
    const trio = new Trio()
    const leader = trio.leader()
    for (let i = 0; i < 20; i++) trio.put(`key-${i}`, `value-${i}`)
    const survivor = leader.id
    const lost = new Set(ids.filter((id) => id !== survivor))
    for (const id of lost) trio.paused.add(id)
    // Never acknowledged: nobody else hears of it.
    leader.mutate("doubtful", { put: "yes" })
    trio.pass(50)
    leader.loop.storage.close()
    const { disk } = leader

    const before = [...disk.list("journal"), ...disk.list("engine")].join()
    const dry = open(new DryDisk(disk), survivor)
    const surveys = surveyRanges(dry)
    dry.loop.storage.close()
    expect([...disk.list("journal"), ...disk.list("engine")].join()).toBe(before)
    const plan = planRecovery({ surveys, survivors: new Set([survivor]), lost })
    expect(plan.missing).toEqual([])
    expect(plan.gone).toEqual([])
    expect(plan.untouched).toEqual([])
    expect(plan.ranges.map(({ descriptor }) => descriptor.id)).toEqual([0, 1, 2])
    const range = plan.ranges[1]!
    expect(range.voters).toEqual(ids)
    expect(range.lost).toEqual([...lost])
    expect(range.chosen.lastIndex).toBeGreaterThan(range.chosen.commitIndex)

    const stopped = open(disk, survivor)
    for (const { chosen } of plan.ranges) makeSoleVoter(stopped, chosen)
    stopped.loop.storage.close()
    // It is durable: it outlives the loss of power.
    disk.loseAllUnsynced()

    const again = trio.restart(survivor)
    trio.pass(1000)
    expect(again.isLeader).toBe(true)
    for (const key of ["key-0", "key-19", "doubtful"]) {
      const reply = trio.answer(again, again.read(key))
      expect(reply._tag === "Value" && reply.value !== undefined).toBe(true)
    }
    const { descriptor } = again.loop.replicas.get(1)!.machine
    expect(descriptor.replicas.map(({ node, role }) => [node, role])).toEqual([[survivor, "voter"]])
    expect(descriptor.membersVersion).toBeGreaterThan(1000)
    trio.put("after", "1")

    // One lost node was not lost after all.
    const [other] = [...lost] as [number]
    trio.paused.delete(other)
    for (let i = 0; i < 200 && trio.node(other).loop.replicas.has(1); i++) trio.pass(50)
    expect(trio.node(other).loop.replicas.has(1)).toBe(false)
    expect(again.isLeader).toBe(true)
  })

  test("a survivor whose promises damage took goes on too, with what it has left", () => {
    const trio = new Trio()
    const leader = trio.leader()
    for (let i = 0; i < 20; i++) trio.put(`key-${i}`, `value-${i}`)
    trio.pass(500)
    leader.loop.storage.close()
    const { disk, id } = leader
    const last = records(disk).at(-1)!
    const file = disk.open(last.path)
    file.write(new Uint8Array(last.batchEnd - last.batchStart).fill(9), last.batchStart)
    file.sync()
    for (const other of ids) if (other !== id) trio.paused.add(other)
    const stopped = open(disk, id)
    const surveys = surveyRanges(stopped)
    const logs = surveys.map(({ descriptor }) => stopped.loop.replicas.get(descriptor.id)!.log)
    expect(logs.every((log) => log.isUnsure)).toBe(true)
    for (const survey of surveys) makeSoleVoter(stopped, survey)
    stopped.loop.storage.close()
    disk.loseAllUnsynced()
    const again = trio.restart(id)
    trio.pass(1000)
    expect(again.isLeader).toBe(true)
    const reply = trio.answer(again, again.read("key-0"))
    expect(reply._tag === "Value" && reply.value !== undefined).toBe(true)
  })

  test("a single voter that lost an entry to damage goes on without it and what came after", () => {
    const disk = new SimulatedDisk()
    const alone = (nowMs: number) => new LoopNode({ disk, settings, nowMs, nodes: [1] })
    const node = alone(1000)
    node.untilLeader()
    for (let i = 0; i < 9; i++) node.answer(node.mutate(`key-${i}`, { put: `value-${i}` }))
    node.pass(500)
    node.loop.storage.close()
    const appends = records(disk).filter(({ type }) => type === recordTypes.append)
    const place = appends.at(-5)!
    disk.corrupt(place.path, place.start + 54, 1)

    const stuck = alone(20_000)
    stuck.pass(3000)
    expect(stuck.isLeader).toBe(false)
    stuck.loop.storage.close()

    const founders = [1]
    const stopped = openStopped({ disk, node: 1, founders, settings, wallMs, ranges: 1 })
    const surveys = surveyRanges(stopped)
    const plan = planRecovery({ surveys, survivors: new Set([1]), lost: new Set() })
    expect(plan.ranges.map(({ descriptor }) => descriptor.id)).toEqual([1])
    expect(plan.untouched.map(({ id }) => id)).toEqual([0, 2])
    expect(plan.ranges[0]!.chosen.damagedEntries).toBe(5)
    for (const { chosen } of plan.ranges) makeSoleVoter(stopped, chosen)
    stopped.loop.storage.close()
    disk.loseAllUnsynced()

    const again = alone(40_000)
    again.untilLeader()
    const isThere = (key: string) => {
      const reply = again.answer(again.read(key))
      return reply._tag === "Value" && reply.value !== undefined
    }
    expect([3, 4].map((i) => isThere(`key-${i}`))).toEqual([true, false])
    expect(again.answer(again.mutate("after", { put: "1" }))._tag).toBe("Mutated")
  })

  test("with a survivor on either side of a change of voters both majorities count", () => {
    const plan = (survivors: ReadonlyArray<number>, roles: ReadonlyArray<ReplicaRole>) => {
      const lost = new Set([1, 2, 3, 4].filter((id) => !survivors.includes(id)))
      const surveys = survivors.map((node) => survey(node, { roles }))
      return planRecovery({ surveys, survivors: new Set(survivors), lost }).ranges.length
    }
    const joint = ["outgoing", "voter", "voter", "incoming"] as const
    expect(plan([2, 3], joint)).toBe(0)
    expect(plan([1, 2], joint)).toBe(1)
    expect(plan([2, 4], joint)).toBe(1)
    expect(plan([1, 2], ["voter", "voter", "learner", "voter"])).toBe(0)
    expect(plan([1, 3], ["voter", "voter", "learner", "voter"])).toBe(1)
  })

  test("the last log is chosen, by term before length; other survivors are named as dropped", () => {
    const surveys = [
      survey(1, { lastIndex: 90, lastTerm: 4 }),
      survey(2, { lastIndex: 50, lastTerm: 5 }),
    ]
    const roles = ["voter", "voter", "voter", "voter", "voter"] as const
    const lost = new Set([3, 4, 5])
    const { ranges } = planRecovery({
      surveys: surveys.map((each) => ({ ...each, replicas: placesOf(roles) })),
      survivors: new Set([1, 2]),
      lost,
    })
    expect(ranges[0]!.chosen.node).toBe(2)
    expect(ranges[0]!.others.map(({ node }) => node)).toEqual([1])
  })

  test("keys of which nothing survives, and nodes nobody spoke of, are said", () => {
    const middle = survey(1, { start: "b", end: "c" })
    const plan = planRecovery({ surveys: [middle], survivors: new Set([1]), lost: new Set([2]) })
    expect(plan.missing).toEqual([3, 4])
    expect(plan.gone).toEqual([
      { start: emptyBytes, end: utf8("b") },
      { start: utf8("c"), end: emptyBytes },
    ])
  })
})

function placesOf(roles: ReadonlyArray<ReplicaRole>) {
  return roles.map((role, i) => ({ node: i + 1, replica: i + 1, role }))
}

function survey(
  node: number,
  fields: {
    roles?: ReadonlyArray<ReplicaRole>
    lastIndex?: number
    lastTerm?: number
    start?: string
    end?: string
  } = {},
): SurveyedRange {
  const replicas = placesOf(fields.roles ?? ["voter", "voter", "voter", "voter"])
  const descriptor: RangeDescriptor = {
    id: 1,
    namespace: 1,
    start: utf8(fields.start ?? ""),
    end: utf8(fields.end ?? ""),
    boundsVersion: 1,
    membersVersion: 1,
    replicas,
  }
  const { lastIndex = 10, lastTerm = 2 } = fields
  return {
    node,
    replica: node,
    descriptor,
    replicas,
    lastIndex,
    lastTerm,
    commitIndex: 5,
    damagedEntries: undefined,
  }
}
