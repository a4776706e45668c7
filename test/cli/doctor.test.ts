import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { ProgressLine, progressText } from "../../src/cli/Progress.ts"
import { DirectoryLock } from "../../src/disk/DirectoryLock.ts"
import { FileDisk } from "../../src/disk/FileDisk.ts"
import { Identity } from "../../src/server/Identity.ts"
import { Directory } from "../doctor/fixture.ts"
import { bunPath, kvorum, mainPath, root } from "../processes/Command.ts"

let directory: Directory

beforeAll(() => {
  directory = new Directory()
  // Its identity is a word of the fixture's own.
  rmSync(join(directory.root, "IDENTITY"))
})

afterAll(() => directory.remove())

describe("kvorum doctor", () => {
  test("a sound directory: a report, exit code 0", async () => {
    const { code, stdout, stderr } = await kvorum(["doctor", "--data", directory.root])
    expect(stderr).toBe("")
    expect(code).toBe(0)
    expect(stdout).toEndWith("\nsound: every byte is as it was written\n")
  })

  test("a damaged one: exit code 1, and with --json exactly one line", async () => {
    directory.flip("engine/00000005.table", 100)
    const words = ["doctor", "--data", directory.root]
    const [text, json] = await Promise.all([kvorum(words), kvorum([...words, "--json"])])
    directory.flip("engine/00000005.table", 100)
    expect(text.code).toBe(1)
    expect(text.stdout).toContain("engine/00000005.table at byte 16: expected checksum")
    expect(text.stderr).toBe("kvorum: 1 place is damaged\n")
    expect(json.code).toBe(1)
    expect(json.stdout.split("\n")).toHaveLength(2)
    const { sound, reports } = JSON.parse(json.stdout)
    expect(sound).toBe(false)
    expect(reports[0].damages[0]).toEqual({
      path: "engine/00000005.table",
      offset: 16,
      expected: expect.stringMatching(/^checksum \d+$/),
      found: expect.stringMatching(/^checksum \d+$/),
      covers: "keys up to \\x02key-00124 of level 0",
    })
  })

  test("a node's identity is verified by its checksum", async () => {
    const file = join(directory.root, "IDENTITY")
    Identity.open({
      disk: new FileDisk(directory.root),
      directory: directory.root,
      node: 2,
      nodes: [1, 2, 3],
      members: "1=a,2=b,3=c",
    })
    const sound = await kvorum(["doctor", "--data", directory.root])
    directory.flip("IDENTITY", 30)
    const damaged = await kvorum(["doctor", "--data", directory.root])
    rmSync(file)
    expect(sound.stdout).toMatch(/^\S+: node n2 of cluster [0-9a-f]{32}\n/)
    expect([sound.code, damaged.code]).toEqual([0, 1])
    expect(damaged.stdout).toContain("IDENTITY at byte 0: expected the identity of a node, found")
  })

  test("is refused in one line while a process has the directory", async () => {
    const lock = DirectoryLock.acquire(directory.root)
    const words = ["doctor", "--data", directory.root]
    const { code, stdout, stderr } = await kvorum(words)
    const json = await kvorum([...words, "--json"])
    lock.release()
    expect([code, stdout]).toEqual([1, ""])
    expect(JSON.parse(json.stdout)).toEqual({
      error: "Refused",
      message: stderr.slice("kvorum: ".length).trimEnd(),
    })
    expect(stderr).toBe(
      `kvorum: ${directory.root} is in use by process ${process.pid}: stop it first, or examine a copy\n`,
    )
  })

  test("is refused in one line where there is nothing to examine", async () => {
    const nowhere = await kvorum(["doctor", "--data", `${directory.root}/nowhere`])
    expect(nowhere.stderr).toBe(`kvorum: there is no ${directory.root}/nowhere\n`)
    const other = await kvorum(["doctor", "--data", join(root, "src/cli")])
    expect(other.stderr).toContain("holds no engine and no journal")
    const neither = await kvorum(["doctor"])
    expect([nowhere.code, other.code, neither.code]).toEqual([1, 1, 2])
  })

  test("the directory of kvorum start: every node in turn", async () => {
    const cluster = `${directory.root}-cluster`
    mkdirSync(cluster)
    renameSync(directory.root, join(cluster, "n1"))
    writeFileSync(join(cluster, "cluster.json"), '{"format":1,"nodes":1}\n')
    const { code, stdout } = await kvorum(["doctor", "--data", cluster, "--json"])
    renameSync(join(cluster, "n1"), directory.root)
    rmSync(cluster, { recursive: true })
    expect(code).toBe(0)
    expect(JSON.parse(stdout).reports[0].directory).toBe(join(cluster, "n1"))
  })

  test("a dump that is piped into head ends quietly", async () => {
    const file = join(directory.root, "engine/00000002.table")
    const dump = `"${bunPath}" "${mainPath}" doctor --dump "${file}"`
    const child = Bun.spawn(["bash", "-c", `set -o pipefail; ${dump} | head -1`], {
      stdout: "pipe",
      stderr: "pipe",
    })
    const [stdout, stderr, code] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
      child.exited,
    ])
    expect([stdout, stderr, code]).toEqual([expect.stringMatching(/^table 2: \d+ bytes/), "", 0])
  })

  test("a file of another kind is refused by name", async () => {
    const { code, stderr } = await kvorum(["doctor", "--dump", join(root, "package.json")])
    expect(code).toBe(1)
    expect(stderr).toStartWith("kvorum: package.json is no file that can be shown")
  })

  test("progress says where, how much, how fast and how long", () => {
    const progress = { path: "engine/00000012.table", doneBytes: 120 * 2 ** 20 }
    const total = { totalBytes: 480 * 2 ** 20, perSecond: 300 * 2 ** 20 }
    expect(progressText({ ...progress, ...total })).toBe(
      "engine/00000012.table  120 of 480 MiB, 300 MiB/s, 2 s left",
    )
    expect(progressText({ ...progress, ...total, perSecond: 2 ** 20 })).toEndWith(
      ", 1 MiB/s, 6 min 0 s left",
    )
    const pieces = { done: 3, total: 12, unit: "replicas" }
    const moved = { path: "n2", ...total, doneBytes: 120 * 2 ** 20, pieces }
    expect(progressText(moved)).toBe("n2  3 of 12 replicas, 120 of 480 MiB, 300 MiB/s, 2 s left")
    const small = { ...moved, doneBytes: 0, totalBytes: 5000, perSecond: 1.5 }
    expect(progressText(small)).toBe("n2  3 of 12 replicas, 1.5/s, 6 s left")
  })

  test("progress is drawn over again on a terminal, and is a line now and then elsewhere", () => {
    const shown = (columns: number | undefined) => {
      const written: Array<string> = []
      let nowMs = 0
      const write = (text: string) => {
        written.push(text)
      }
      const progress = new ProgressLine({ columns, nowMs: () => nowMs, write })
      const totalBytes = 100 * 2 ** 20
      for (; nowMs <= 25_000; nowMs += 50) {
        progress.show({ path: "a.table", doneBytes: (nowMs / 1000) * 2 ** 20, totalBytes })
      }
      progress.end()
      return written
    }
    expect(shown(undefined)).toEqual([
      "a.table  10 of 100 MiB, 1 MiB/s, 1 min 30 s left\n",
      "a.table  20 of 100 MiB, 1 MiB/s, 1 min 20 s left\n",
    ])
    const drawn = shown(20)
    expect(drawn.length).toBe(247)
    expect(drawn[0]).toBe("\r\u001b[Ka.table  1 of 100 M")
    expect(drawn.at(-1)).toBe("\r\u001b[K")
  })
})
