import { describe, expect, test } from "bun:test"
import { DiskError } from "../../src/disk/disk.ts"
import { Prng } from "../../src/lib/prng.ts"
import { bootstrapDescriptors } from "../../src/server/bootstrap.ts"
import {
  type Directory,
  directoryAsJson,
  directoryFromJson,
  directoryOf,
  firstEventualNamespace,
  type NodeRecord,
  type RingRecord,
  ringAsJson,
  takesReport,
  tilingOf,
} from "../../src/server/directory.ts"
import { keepDirectory, readDirectory } from "../../src/server/directoryCache.ts"
import { NodeControl } from "../../src/server/NodeControl.ts"
import { NodeDirectory } from "../../src/server/nodeDirectory.ts"
import type { Ring } from "../../src/topology/ring.ts"
import { withNewcomer } from "../../src/topology/ringMembers.ts"
import type { RangeDescriptor } from "../../src/types.ts"
import { SimulatedDisk } from "../sim/simulatedDisk.ts"
import { newcomerOf, ringFrom, ringOf } from "../topology/harness.ts"

function range(
  id: number,
  bounds: readonly [number, number | undefined],
  boundsVersion: number,
  membersVersion = 1,
): RangeDescriptor {
  const [start, end] = bounds
  return {
    id,
    namespace: 1,
    start: start === 0 ? new Uint8Array(0) : Uint8Array.of(start),
    end: end === undefined ? new Uint8Array(0) : Uint8Array.of(end),
    boundsVersion,
    membersVersion,
    replicas: [{ node: 1, replica: 1, role: "voter" }],
  }
}

const spans = (ranges: ReadonlyArray<RangeDescriptor>) =>
  ranges.map(({ id, start, end }) => `${id}:${start[0] ?? 0}-${end[0] ?? "end"}`)

describe("reports to the directory", () => {
  const whole = range(1, [0, undefined], 3, 5)

  test("of its own id only a newer one is taken, bounds before members", () => {
    expect(takesReport([whole], range(1, [0, undefined], 3, 6))).toBe(true)
    expect(takesReport([whole], range(1, [0, undefined], 3, 5))).toBe(false)
    expect(takesReport([whole], range(1, [0, 9], 4, 1))).toBe(true)
    expect(takesReport([whole], range(1, [0, 9], 2, 99))).toBe(false)
  })

  test("pitfall 40: of what it overlaps every other id must be of a lower boundsVersion", () => {
    expect(takesReport([whole], range(2, [5, undefined], 4))).toBe(true)
    expect(takesReport([whole], range(2, [5, undefined], 3))).toBe(false)
    expect(takesReport([range(1, [0, 5], 9)], range(2, [5, undefined], 4))).toBe(true)
    // The left half is known, the right one is not yet: the old whole comes late and is not taken.
    expect(takesReport([range(2, [5, undefined], 4)], whole)).toBe(false)
  })

  test("an old whole is cut back where a newer half says otherwise", () => {
    expect(spans(tilingOf([whole, range(2, [5, undefined], 4)]))).toEqual(["1:0-5", "2:5-end"])
    expect(spans(tilingOf([whole, range(1, [0, 5], 4)]))).toEqual(["1:0-5"])
    expect(spans(tilingOf([whole, range(1, [0, 5], 4), range(2, [5, undefined], 4)]))).toEqual([
      "1:0-5",
      "2:5-end",
    ])
    expect(spans(tilingOf([whole, range(2, [0, undefined], 4)]))).toEqual(["2:0-end"])
  })

  test("pitfall 40: whatever reports of a history of splits come, late and in any order, nothing overlaps, and in the end all is known", () => {
    for (let seed = 1; seed <= 200; seed++) {
      const prng = new Prng(seed)
      let present = [range(1, [0, undefined], 1)]
      const reports = [...present]
      for (let id = 2; id < 12; id++) {
        const parent = prng.pick(present)
        const [low, high] = [parent.start[0] ?? 0, parent.end[0] ?? 256]
        if (high - low < 2) continue
        const at = prng.int(low + 1, high - 1)
        const boundsVersion = parent.boundsVersion + 1
        const end = parent.end[0]
        const halves = [
          range(parent.id, [low, at], boundsVersion),
          range(id, [at, end], boundsVersion),
        ]
        present = [...present.filter((each) => each !== parent), ...halves]
        reports.push(...halves)
      }
      let known: ReadonlyArray<RangeDescriptor> = []
      const arrive = (report: RangeDescriptor) => {
        if (takesReport(known, report)) {
          known = [...known.filter((each) => each.id !== report.id), report]
        }
        const tiling = tilingOf(known)
        for (let i = 1; i < tiling.length; i++) {
          const [before, after] = [tiling[i - 1], tiling[i]] as [RangeDescriptor, RangeDescriptor]
          expect(before.end[0] ?? 256, `seed ${seed}`).toBeLessThanOrEqual(after.start[0] ?? 0)
        }
      }
      for (let i = 0; i < 30; i++) arrive(prng.pick(reports))
      // Leaders repeat the present ones until they are taken.
      for (let round = 0; round < 2; round++) for (const report of present) arrive(report)
      expect(spans(tilingOf(known)), `seed ${seed}`).toEqual(spans(tilingOf(present)))
      expect(known).toHaveLength(present.length)
    }
  })
})

const sample: Directory = {
  founded: true,
  nodes: [
    { id: 1, incarnation: "i1", peer: "a:1", client: "a:2", host: "a", state: "member" },
    { id: 2, incarnation: "i2", peer: "b:1", client: "b:2", host: "b", state: "removed" },
  ],
  namespaces: [
    {
      ...{ id: 1, name: "default", mode: "strong", partitioning: "hash" },
      ...{ ranges: 4, replicas: 3, state: "ready" },
    },
    {
      ...{ id: 2, name: "log", mode: "strong", partitioning: "ordered" },
      ...{ ranges: 1, replicas: 3, state: "dropping" },
    },
    {
      ...{ id: firstEventualNamespace + 1, name: "carts", mode: "eventual", partitioning: "hash" },
      ...{ ranges: 0, replicas: 3, conflict: "set", write: "quorum", read: "one", state: "ready" },
    },
  ],
  ranges: bootstrapDescriptors([1, 2, 3]),
  ring: ringRecord(ringOf(3)),
}

function ringRecord(ring: Ring): RingRecord {
  return { ring, encoded: JSON.parse(ringAsJson(ring)).ring }
}

describe("the directory", () => {
  test("comes back from records and from JSON; what is no record is passed over", () => {
    expect(directoryFromJson(JSON.parse(JSON.stringify(directoryAsJson(sample))))).toEqual(sample)
    const json = directoryAsJson(sample) as { readonly ranges: ReadonlyArray<object> }
    const read = directoryOf([
      ["node/1", JSON.stringify(sample.nodes[0])],
      ["node/3", "not JSON"],
      ["node/4", '{"id": 4}'],
      ["counter/range", "5"],
      ["namespace/default", JSON.stringify(sample.namespaces[0])],
      ["namespace/carts", JSON.stringify(sample.namespaces[2])],
      ["range/1", JSON.stringify(json.ranges[1])],
      ["ring/current", ringAsJson((sample.ring as RingRecord).ring)],
      ["later/1", "{}"],
    ])
    expect(read).toEqual({
      founded: true,
      nodes: [sample.nodes[0] as Directory["nodes"][number]],
      namespaces: [sample.namespaces[0], sample.namespaces[2]] as Directory["namespaces"],
      ranges: [sample.ranges[1] as RangeDescriptor],
      ring: sample.ring,
    })
    for (const wrong of [
      null,
      3,
      [],
      {},
      { founded: true, nodes: [{}], namespaces: [], ranges: [] },
    ]) {
      expect(directoryFromJson(wrong)).toBeUndefined()
    }
  })

  test("a copy of it survives a power loss; a damaged one counts as none", () => {
    const disk = new SimulatedDisk()
    expect(readDirectory(disk)).toBeUndefined()
    keepDirectory(disk, { ...sample, founded: false })
    keepDirectory(disk, sample)
    disk.crash(new Prng(2))
    expect(readDirectory(disk)).toEqual(sample)
    const file = disk.open("DIRECTORY")
    const byte = new Uint8Array(1)
    file.read(byte, 40)
    file.write(Uint8Array.of((byte[0] as number) ^ 1), 40)
    file.close()
    expect(readDirectory(disk)).toBeUndefined()
  })

  const self = { id: 3, incarnation: "i3", peer: "c:1", client: "c:2", host: "c", state: "member" }
  const nodeDirectory = (disk = new SimulatedDisk()) =>
    new NodeDirectory({
      disk,
      self: self as Directory["nodes"][number],
      founders: [1, 2, 3].map((id) => ({ id, client: `f${id}:2`, peer: `f${id}:1` })),
    })

  test("before it is known a node goes by what it was started with, then by the directory, also after a restart", () => {
    const disk = new SimulatedDisk()
    const known = nodeDirectory(disk)
    expect(known.nodes().map(({ peer }) => peer)).toEqual(["f1:1", "f2:1", "f3:1"])
    expect(known.namespaces.map(({ name }) => name)).toEqual(["system", "default"])
    const change = known.learn(sample)
    expect(known.keep()).toBeUndefined()
    expect(change).toEqual({ reachable: [], removed: [2], verdict: undefined })
    for (const each of [known, nodeDirectory(disk)]) {
      expect(each.nodes().map(({ id }) => id)).toEqual([1, 3])
      // One that is being dropped takes no data.
      expect(each.namespaces.map(({ name }) => name)).toEqual(["system", "default", "carts"])
    }
    expect(known.learn(sample)).toEqual({ reachable: [], removed: [], verdict: undefined })
    const joined = new NodeDirectory({ disk, self: self as NodeRecord, founders: [] })
    expect(joined.nodes()).toEqual([{ id: 1, client: "a:2", peer: "a:1" }])
    expect(known.learn({ ...sample, namespaces: [] }).verdict).toBeUndefined()
    expect(known.namespaces.map(({ name }) => name)).toEqual(["system"])
  })

  test("a copy that cannot be written is tried again, and nothing else depends on it", () => {
    const disk = new SimulatedDisk()
    let failing = true
    const create = disk.create.bind(disk)
    disk.create = (path) => {
      if (failing) throw new DiskError({ reason: "no-space", path })
      return create(path)
    }
    const known = nodeDirectory(disk)
    expect(known.learn(sample).removed).toEqual([2])
    expect(known.keep()).toContain("no-space")
    expect(known.learn(sample).removed).toEqual([])
    expect(known.keep()).toContain("no-space")
    expect(known.nodes().map(({ id }) => id)).toEqual([1, 3])
    failing = false
    expect(known.keep()).toBeUndefined()
    expect(readDirectory(disk)).toEqual(sample)
  })

  test("a ring is acted by and confirmed as far as the copy on disk has it: by an older one nobody works again", () => {
    const disk = new SimulatedDisk()
    const create = disk.create.bind(disk)
    const ring = ringRecord(ringFrom(withNewcomer(ringOf(3), newcomerOf(4), 16)))
    const confirmed = ring.ring.version
    let acted: number | undefined
    const learnEventual = (directory: Directory) => {
      acted = directory.ring?.ring.version
    }
    const control = new NodeControl({
      ...{ disk, self, founders: [], ringReport: () => ({ confirmed, filled: [] }) },
      ...{ learnEventual, learnRange: () => {}, learnMembers: () => {}, warn: () => {} },
    } as never)
    control.learn(sample)
    expect(control.ringReport().confirmed).toBe((sample.ring as RingRecord).ring.version)
    disk.create = (path) => {
      throw new DiskError({ reason: "no-space", path })
    }
    const moved = { ...sample, ring }
    control.learn(moved)
    expect(control.directory().ring).toBe(ring)
    expect(control.ringReport().confirmed).toBeLessThan(confirmed)
    expect(acted).toBe(undefined)
    disk.create = create
    control.learn(moved)
    expect(control.ringReport().confirmed).toBe(confirmed)
    expect(acted).toBe(confirmed)
  })

  test("AP pitfall 4: a node that was removed, or comes with another data directory, learns no ring and resigns, also when it starts again", () => {
    for (const fields of [{ state: "removed" }, { incarnation: "i9" }]) {
      const disk = new SimulatedDisk()
      const calls: Array<string> = []
      const start = () =>
        new NodeControl({
          ...{ disk, self, founders: [], ringReport: () => ({ confirmed: 0, filled: [] }) },
          ...{ learnRange: () => {}, learnMembers: () => {}, warn: () => {}, stop: () => {} },
          learnEventual: ({ ring }: Directory) => calls.push(`ring ${ring?.ring.version}`),
          resign: () => calls.push("resigns"),
        } as never)
      const directory = { ...sample, nodes: [...sample.nodes, { ...self, ...fields }] } as Directory
      const control = start()
      control.learn(directory)
      control.learn({ ...directory })
      start()
      expect(calls).toEqual(["ring undefined", "resigns", "resigns"])
    }
  })

  test("a cluster that is started again at other addresses is found there, whatever its records say; a record that changes is right", () => {
    const at = (id: number, peer: string) =>
      ({ ...(sample.nodes[0] as NodeRecord), id, incarnation: `i${id}`, peer }) as NodeRecord
    const old = { ...sample, nodes: [at(1, "old1:1"), at(2, "old2:1"), at(3, "c:1")] }
    const disk = new SimulatedDisk()
    const first = nodeDirectory(disk)
    first.learn(old)
    first.keep()
    const known = nodeDirectory(disk)
    const peers = () => known.nodes().map(({ peer }) => peer)
    expect(peers()).toEqual(["f1:1", "f2:1", "f3:1"])
    expect(known.learn(old).reachable).toEqual([])
    // n1 corrects its own record, to something else still.
    const corrected = { ...old, nodes: [at(1, "new1:1"), ...old.nodes.slice(1)] }
    expect(known.learn(corrected).reachable.map(({ peer }) => peer)).toEqual(["new1:1"])
    expect(peers()).toEqual(["new1:1", "f2:1", "f3:1"])
    // n2 never says otherwise: then its record stands.
    const moves = Array.from({ length: 20 }, () => known.learn(corrected).reachable).flat()
    expect(moves.map(({ peer }) => peer)).toEqual(["old2:1"])
    expect(peers()).toEqual(["new1:1", "old2:1", "c:1"])
  })

  test("pitfall 28: a node that was removed, or is known by another data directory, is told to stop", () => {
    const record = (fields: object) =>
      ({ ...sample, nodes: [...sample.nodes, { ...self, ...fields }] }) as Directory
    expect(nodeDirectory().learn(record({})).verdict).toBeUndefined()
    expect(nodeDirectory().learn(record({ state: "removed" })).verdict).toContain("n3 was removed")
    expect(nodeDirectory().learn(record({ incarnation: "i9" })).verdict).toContain(
      "incarnation i9, not i3",
    )
  })
})
