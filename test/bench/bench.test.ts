import { describe, expect, test } from "bun:test"
import { parseEtcd } from "./Peers.ts"
import { type BenchFigure, compare, formatTable, type Operation } from "./Strong.ts"

const etcdOutput = [
  "etcd 3.4.23, three nodes",
  "etcd put  clients=1    ops/s=800      p50_us=1180    p99_us=2400    failed=0",
  "etcd get  clients=16   ops/s=5000     p50_us=3100    p99_us=6000    failed=2",
  "etcd sget clients=16   ops/s=9000     p50_us=1100    p99_us=3000    failed=0",
].join("\n")

const figure = (operation: Operation, clients: number, opsPerSecond: number): BenchFigure => ({
  operation,
  clients,
  seconds: 60,
  opsPerSecond,
  p50Us: 500,
  p99Us: 900,
  failed: 0,
})

describe("the bench beside etcd", () => {
  test("reads the lines of peers.sh", () => {
    const figures = parseEtcd(etcdOutput)
    expect(figures.map(({ operation, clients }) => `${operation} ${clients}`)).toEqual([
      "put 1",
      "get 16",
      "sget 16",
    ])
    expect(figures[1]).toEqual({
      operation: "get",
      clients: 16,
      opsPerSecond: 5000,
      p50Us: 3100,
      p99Us: 6000,
      failed: 2,
    })
  })

  test("compares puts with puts and linearizable gets with linearizable gets", () => {
    const rows = compare([figure("put", 1, 1200), figure("get", 16, 15_000)], parseEtcd(etcdOutput))
    expect(rows.map(({ ratio, goal }) => [ratio, goal])).toEqual([
      [1.5, 1.7],
      [3, 5],
    ])
    expect(formatTable(rows).split("\n")[2]).toBe(
      "| put | 1 | 1200 | 500 | 900 | 0 | 800 | 1180 | 2400 | 1.50x | 1.7x |",
    )
  })

  test("compares local gets with serializable ones, and a rate that is a goal by itself", () => {
    const peers = parseEtcd(
      `${etcdOutput}\netcd sget clients=128  ops/s=20000  p50_us=1  p99_us=2  failed=0`,
    )
    const rows = compare([figure("local", 128, 90_000)], peers)
    expect(rows.map(({ ratio, goal, rateGoal }) => [ratio, goal, rateGoal])).toEqual([
      [4.5, undefined, 100_000],
    ])
    expect(formatTable(rows)).toEndWith("| 4.50x | 100000 ops/s |")
  })

  test("without the peer a row stays without a ratio", () => {
    const [row] = compare([figure("put", 128, 1)], [])
    expect(row?.ratio).toBeUndefined()
    expect(formatTable(row === undefined ? [] : [row])).toContain("| - | - | - | - | 5x |")
  })
})
