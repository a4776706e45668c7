import { describe, expect, test } from "bun:test"
import { RoutingTable } from "../../src/client/routes.ts"
import { compareBytes, fromHex, toHex } from "../../src/lib/bytes.ts"
import { Prng } from "../../src/lib/prng.ts"
import type { RangeDescriptor } from "../../src/types.ts"

interface Bounds {
  readonly id: number
  readonly start: number
  /** `undefined` = to the end of the space. */
  readonly end: number | undefined
  readonly boundsVersion: number
  readonly membersVersion: number
}

const position = (at: number) => Uint8Array.of(at >>> 8, at & 255)

const descriptorOf = ({ start, end, ...versions }: Bounds): RangeDescriptor => ({
  ...versions,
  namespace: 1,
  start: start === 0 ? new Uint8Array(0) : position(start),
  end: end === undefined ? new Uint8Array(0) : position(end),
  replicas: [{ node: 1, replica: 1, role: "voter" }],
})

const endsBefore = (left: Bounds, right: Bounds) =>
  left.end !== undefined && left.end <= right.start
const overlap = (left: Bounds, right: Bounds) =>
  !endsBefore(left, right) && !endsBefore(right, left)
const isNewer = (left: Bounds, right: Bounds) =>
  left.boundsVersion === right.boundsVersion
    ? left.membersVersion > right.membersVersion
    : left.boundsVersion > right.boundsVersion

/** The rules of DESIGN section 2, by a look at everything. */
function learnPlainly(known: ReadonlyArray<Bounds>, report: Bounds): ReadonlyArray<Bounds> {
  const own = known.find(({ id }) => id === report.id)
  if (own !== undefined && !isNewer(report, own)) return known
  const others = known.filter((other) => other.id !== report.id)
  const beside = others.filter((other) => !overlap(other, report))
  const isHidden = others.some(
    (other) => !beside.includes(other) && other.boundsVersion >= report.boundsVersion,
  )
  return isHidden ? known : [...beside, report].sort((left, right) => left.start - right.start)
}

describe("the routing table", () => {
  test("takes and leaves the reports that the rules say, in any order", () => {
    const prng = new Prng(11)
    let taken = 0
    for (let run = 0; run < 200; run++) {
      const table = new RoutingTable()
      let model: ReadonlyArray<Bounds> = []
      for (let step = 0; step < 100; step++) {
        const start = prng.int(0, 30)
        const end = prng.chance(0.1) ? undefined : start + prng.int(1, 8)
        const versions = { boundsVersion: prng.int(1, 12), membersVersion: prng.int(1, 4) }
        const report = { id: prng.int(0, 12), start, end, ...versions }
        const before = model
        model = learnPlainly(model, report)
        expect(table.learn(descriptorOf(report))).toBe(model !== before)
        if (model !== before) taken++
        expect(table.all.map(({ descriptor }) => descriptor)).toEqual(model.map(descriptorOf))
        for (const { id } of model) expect(table.byId(id)?.descriptor.id).toBe(id)
        expect(table.byId(99)).toBeUndefined()
        const at = prng.int(1, 40)
        const holder = model.find((each) => each.start <= at && (each.end ?? 99) > at)
        expect(table.find(position(at))?.descriptor.id).toBe(holder?.id as number)
      }
    }
    expect(taken).toBeGreaterThan(2000)
  })

  test("looks at few routes for each report of thousands", () => {
    const count = 4000
    let looks = 0
    const table = new RoutingTable()
    const reports = Array.from({ length: count }, (_, i) => {
      const { start, end, ...rest } = descriptorOf({
        ...{ id: i, start: i, end: i + 1, boundsVersion: 1, membersVersion: 1 },
      })
      const descriptor = { ...rest, end, start }
      const get = () => {
        looks++
        return start
      }
      Object.defineProperty(descriptor, "start", { get })
      return { descriptor, leader: 1, term: 1, index: 0 }
    })
    for (const report of new Prng(3).shuffle(reports)) table.report(report)
    // New to the table once, known to it in every answer after that.
    expect(looks / count).toBeLessThan(100)
    looks = 0
    for (const report of reports) table.report(report)
    expect(looks / count).toBeLessThan(10)
    const starts = table.all.map(({ descriptor }) => toHex(descriptor.start))
    expect(starts).toEqual(
      [...starts].sort((left, right) => compareBytes(bytes(left), bytes(right))),
    )
    expect(starts.length).toBe(count)
  })
})

function bytes(hex: string): Uint8Array {
  return fromHex(hex) ?? new Uint8Array(0)
}
