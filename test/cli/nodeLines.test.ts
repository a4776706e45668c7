import { describe, expect, test } from "bun:test"
import { NodeLines } from "../../src/cli/nodeLines.ts"

const info = "2026-11-22T14:03:39.409Z INFO connected to n1"
const warning = "2026-11-22T14:03:39.409Z WARN the disk is slow"

describe("of what nodes say, start shows", () => {
  test("only warnings and last words until the cluster is ready, then everything, and only warnings while it stops", () => {
    const lines = new NodeLines()
    expect(lines.take("n1", "n1 is up: clients 127.0.0.1:7401")).toBeUndefined()
    expect(lines.take("n1", info)).toBeUndefined()
    expect(lines.take("n2", warning)).toBe(`n2 | ${warning}`)
    expect(lines.take("n2", "kvorum: the directory is full")).toBe(
      "n2 | kvorum: the directory is full",
    )
    lines.run()
    expect(lines.take("n1", info)).toBe(`n1 | ${info}`)
    lines.stop()
    expect(lines.take("n1", info)).toBeUndefined()
    expect(lines.take("n1", warning)).toBe(`n1 | ${warning}`)
  })

  test("what it kept back, when the start is late", () => {
    const lines = new NodeLines()
    lines.take("n1", info)
    lines.take("n3", info)
    expect(lines.run()).toEqual([`n1 | ${info}`, `n3 | ${info}`])
    expect(lines.run()).toEqual([])
  })
})
