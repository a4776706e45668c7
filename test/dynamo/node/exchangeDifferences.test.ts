import { expect, test } from "bun:test"
import { ExchangeDifferences } from "../../../src/dynamo/node/exchangeDifferences.ts"
import type { Pull } from "../../../src/dynamo/node/exchangePull.ts"

const task = { namespace: 7, start: 64 }
const quietMs = 1000

function found(keys: number, mark: number) {
  return { pull: { differing: keys, lacking: 0 } as Pull, isBroken: true, mark }
}

test("a run that was found to differ is due again once it has not changed for a while, and then again", () => {
  const differences = new ExchangeDifferences()
  differences.note(task, found(3, 5), 1000)
  let mark = 5
  const due = (nowMs: number) => differences.due(nowMs, quietMs, () => mark)
  expect(due(1900)).toEqual([])
  expect(due(2100)).toEqual([task])
  expect(due(2400)).toEqual([])
  mark = 6
  // It is being written to: what differs may be on its way.
  expect(due(3200)).toEqual([])
  expect(due(4300)).toEqual([task])
  differences.note(task, { ...found(0, 6), isBroken: false }, 4400)
  expect(due(6000)).toEqual([])
})
