import { expect, test } from "bun:test"
import { Lease } from "../../src/raft/lease.ts"

const wallMs = 1_700_000_000_000

test("a lease counts from the latest round that is known to be echoed, and its marks have a limit", () => {
  const lease = new Lease({ leaseMs: 160, clockSlipMs: 20 })
  const holds = (atMs: number) => lease.holds(atMs, wallMs + atMs)
  for (let round = 1; round <= 1000; round++) lease.begin(round, round, wallMs + round)
  expect(holds(1)).toBe(false)
  // Marks are 10 ms apart: round 25 is known by the mark of round 21.
  lease.confirm(25)
  expect([holds(20), holds(21), holds(180), holds(181)]).toEqual([false, true, true, false])
  // There is room for 32 of them; the rounds after that are not marked, and give the lease of the last mark.
  lease.confirm(1000)
  expect([holds(311 + 159), holds(311 + 160)]).toEqual([true, false])
  lease.begin(1001, 1001, wallMs + 1001)
  lease.confirm(1001)
  expect(holds(1160)).toBe(true)
  lease.reset()
  expect(holds(1002)).toBe(false)
})

test("a lease does not begin before the clocks were read, and not at all when it is off", () => {
  const lease = new Lease({ leaseMs: 160, clockSlipMs: 20 })
  lease.begin(1, Number.NaN, Number.NaN)
  lease.confirm(1)
  expect(lease.holds(0, 0)).toBe(false)
  expect(lease.holds(Number.NaN, Number.NaN)).toBe(false)
  const off = new Lease({ leaseMs: 0, clockSlipMs: 20 })
  off.begin(1, 5, 5)
  off.confirm(1)
  expect(off.holds(5, 5)).toBe(false)
})
