import { describe, expect, test } from "bun:test"
import { utf8 } from "../../src/lib/bytes.ts"
import { Prng } from "../../src/lib/prng.ts"
import { Identity, IdentityMismatch } from "../../src/server/Identity.ts"
import { SimulatedDisk } from "../sim/simulatedDisk.ts"

const open = (disk: SimulatedDisk, fields: Partial<Parameters<typeof Identity.open>[0]> = {}) =>
  Identity.open({
    disk,
    directory: "data",
    node: 1,
    nodes: [1, 2, 3],
    members: "1=a:1,2=b:2,3=c:3",
    ...fields,
  })

describe("a data directory's identity", () => {
  test("nodes started apart agree on the cluster, and never on the incarnation", () => {
    const left = open(new SimulatedDisk())
    const right = open(new SimulatedDisk(), { node: 2 })
    expect(right.clusterId).toBe(left.clusterId)
    expect(right.incarnation).not.toBe(left.incarnation)
    const other = open(new SimulatedDisk(), { members: "1=a:1,2=b:2,3=d:3" })
    expect(other.clusterId).not.toBe(left.clusterId)
  })

  test("it survives a power loss, and a change of addresses", () => {
    const disk = new SimulatedDisk()
    const first = open(disk)
    disk.crash(new Prng(3))
    const again = open(disk, { members: "1=x:1,2=y:2,3=z:3" })
    expect(again.clusterId).toBe(first.clusterId)
    expect(again.incarnation).toBe(first.incarnation)
  })

  test("a directory of another node, or of a cluster of other nodes, is refused by name", () => {
    const disk = new SimulatedDisk()
    open(disk)
    expect(() => open(disk, { node: 2 })).toThrow("data is the data of node n1, not of n2")
    expect(() => open(disk, { nodes: [1, 2, 3, 4] })).toThrow(
      "data belongs to a cluster of n1, n2, n3",
    )
  })

  test("a newer format and a damaged file are refused by name", () => {
    for (const [content, message] of [
      ['{"format": 2}', "is of format 2"],
      ['{"format": 1}', "is damaged"],
      ["[]", "is damaged"],
    ] as const) {
      const disk = new SimulatedDisk()
      const file = disk.create("IDENTITY")
      file.write(utf8(content), 0)
      file.close()
      expect(() => open(disk)).toThrow(IdentityMismatch)
      expect(() => open(disk)).toThrow(message)
    }
  })

  test("a peer that comes back with an emptied directory is refused, also after a restart", () => {
    const disk = new SimulatedDisk()
    const identity = open(disk)
    expect(identity.problemOfPeer(2, "first")).toBeUndefined()
    expect(identity.problemOfPeer(2, "first")).toBeUndefined()
    expect(identity.problemOfPeer(2, "second")).toContain("another data directory")
    disk.crash(new Prng(1))
    expect(open(disk).problemOfPeer(2, "second")).toContain("another data directory")
  })

  test("pitfall 28: what the directory says of a node counts as much as having met it", () => {
    const record = { id: 4, peer: "h:1", client: "h:2", host: "h" }
    const member = { ...record, incarnation: "first", state: "member" } as const
    const identity = open(new SimulatedDisk())
    expect(identity.problemOfPeer(4, "first")).toContain("not a node of this cluster")
    expect(identity.problemOfPeer(4, "first", member)).toBeUndefined()
    expect(identity.problemOfPeer(4, "second", member)).toContain("another data directory")
    expect(identity.problemOfPeer(4, "first", { ...member, incarnation: "second" })).toContain(
      "another data directory",
    )
    expect(identity.problemOfPeer(4, "first", { ...member, state: "removed" })).toContain(
      "n4 was removed",
    )
    // A founder is no exception.
    expect(identity.problemOfPeer(2, "first", { ...member, id: 2, state: "removed" })).toContain(
      "n2 was removed",
    )
    expect(identity.problemOfPeer(2, "wiped", { ...member, id: 2 })).toContain("another data")
  })

  test("a directory that joins asks under one incarnation, whatever happens, and then has it", () => {
    const disk = new SimulatedDisk()
    const incarnation = Identity.incarnationToJoin(disk)
    disk.crash(new Prng(5))
    expect(Identity.incarnationToJoin(disk)).toBe(incarnation)
    expect(() => open(disk, { nodes: [] })).toThrow("data holds no node: join a cluster first")
    Identity.join(disk, { clusterId: "c", node: 7, incarnation })
    disk.crash(new Prng(6))
    const identity = open(disk, { node: 7, nodes: [] })
    expect([identity.node, identity.clusterId, identity.incarnation]).toEqual([7, "c", incarnation])
    expect(disk.exists("JOINING")).toBe(false)
    expect(() => open(disk, { node: 7 })).toThrow("start it with --join")
    expect(identity.incarnationOf(7)).toBe(incarnation)
    expect(identity.incarnationOf(1)).toBeUndefined()
  })

  test("a stranger's id, and this node's own, are refused", () => {
    const identity = open(new SimulatedDisk())
    expect(identity.problemOfPeer(9, "x")).toContain("not a node of this cluster")
    expect(identity.problemOfPeer(1, "x")).toContain("own id")
  })
})
