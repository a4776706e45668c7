import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { utf8 } from "../../src/lib/bytes.ts"
import { slotOf } from "../../src/lib/slot.ts"
import { type ClusterProcess, startCluster, temporaryFolder } from "./Cluster.ts"
import { type Finished, kvorum, type RunOptions } from "./Command.ts"

/** The commands of a person at a terminal, against three real nodes: exit codes, and what goes to stdout and stderr. */
let cluster: ClusterProcess

beforeAll(async () => {
  cluster = await startCluster({ nodes: 3, ephemeral: true })
}, 90_000)

afterAll(async () => {
  await cluster?.stop()
})

function run(words: ReadonlyArray<string>, options: RunOptions = {}): Promise<Finished> {
  return kvorum([...words, "--endpoints", cluster.endpoints], options)
}

/** The one line that `--json` promises, parsed. */
function line(finished: Finished): Record<string, unknown> {
  expect(finished.stdout.endsWith("\n")).toBe(true)
  expect(finished.stdout.trimEnd().split("\n")).toHaveLength(1)
  return JSON.parse(finished.stdout)
}

const receipt = {
  level: "linearizable",
  node: expect.stringMatching(/^n[123]$/),
  role: "leader",
  range: expect.any(Number),
  replica: expect.any(Number),
  term: expect.any(Number),
  index: expect.any(Number),
  staleBoundMs: 0,
}

describe.concurrent("put, get and delete", () => {
  test("put prints the version alone, get the value alone, delete its version; then the key is absent", async () => {
    const put = await run(["put", "default", "greeting", "hello"])
    expect(put).toMatchObject({ code: 0, stderr: "" })
    expect(put.stdout).toMatch(/^\d{15,16}\n$/)
    const get = await run(["get", "default", "greeting"])
    // Not a terminal: no newline.
    expect(get).toMatchObject({ code: 0, stderr: "", stdout: "hello" })
    const gone = await run(["delete", "default", "greeting"])
    expect(gone).toMatchObject({ code: 0, stderr: "" })
    expect(Number(gone.stdout)).toBeGreaterThan(Number(put.stdout))
    expect(await run(["get", "default", "greeting"])).toMatchObject({ code: 4, stdout: "" })
    expect(await run(["delete", "default", "greeting"])).toMatchObject({ code: 4, stdout: "" })
  }, 60_000)

  test("--json is one line, with a receipt", async () => {
    const put = await run(["put", "default", "j", "ü", "--json"])
    const { version } = line(put)
    expect(line(put)).toEqual({ version: expect.any(Number), receipt })
    expect(line(await run(["get", "default", "j", "--json"]))).toEqual({
      found: true,
      value: "ü",
      version,
      receipt,
    })
    const hex = await run(["get", "default", "6a", "--json", "--hex"])
    expect(line(hex)).toMatchObject({ found: true, valueHex: "c3bc" })
    const gone = await run(["delete", "default", "j", "--json"])
    expect(line(gone)).toEqual({ deleted: true, version: expect.any(Number), receipt })
    const absent = await run(["get", "default", "j", "--json"])
    expect(absent.code).toBe(4)
    expect(line(absent)).toEqual({ found: false, receipt })
    const again = await run(["delete", "default", "j", "--json"])
    expect(again.code).toBe(4)
    expect(line(again)).toMatchObject({ deleted: false })
  }, 60_000)

  test("any bytes go in by stdin or --hex and come out as they were", async () => {
    const bytes = Uint8Array.from({ length: 70_000 }, (_, i) => (i * 31 + (i >> 8)) & 255)
    expect(await run(["put", "default", "bytes", "-"], { input: bytes })).toMatchObject({ code: 0 })
    expect((await run(["get", "default", "bytes"])).stdoutBytes).toEqual(bytes)
    expect(line(await run(["get", "default", "bytes", "--json"])).valueHex).toBe(
      Buffer.from(bytes).toString("hex"),
    )
    expect(await run(["put", "default", "--hex", "00ff0a", "0d0a00"])).toMatchObject({ code: 0 })
    const { stdoutBytes } = await run(["get", "default", "-"], { input: Uint8Array.of(0, 255, 10) })
    expect(stdoutBytes).toEqual(Uint8Array.of(13, 10, 0))
    expect((await run(["get", "default", "00ff0a", "--hex"])).stdout).toBe("0d0a00\n")
  }, 60_000)

  test("words that look like switches, numbers or nothing are keys and values too", async () => {
    expect(await run(["put", "default", "--json", "1", "yes"])).toMatchObject({ code: 0 })
    expect((await run(["get", "default", "1"])).stdout).toBe("yes")
    expect(await run(["put", "default", "empty", ""])).toMatchObject({ code: 0 })
    expect(await run(["get", "default", "empty"])).toMatchObject({ code: 0, stdout: "" })
    const words = ["put", "default", "--endpoints", cluster.endpoints, "--", "--key", "-v"]
    expect(await kvorum(words)).toMatchObject({ code: 0 })
    const get = ["get", "default", "--endpoints", cluster.endpoints, "--", "--key"]
    expect((await kvorum(get)).stdout).toBe("-v")
  }, 60_000)
})

describe.concurrent("cas", () => {
  test("writes when the version is as expected, 0 for absent, and else says what is there", async () => {
    const first = await run(["cas", "default", "cas", "one", "--expect-version", "0"])
    expect(first.code).toBe(0)
    const version = first.stdout.trim()
    const second = await run(["cas", "default", "cas", "--expect-version", version, "two"])
    expect(second.code).toBe(0)
    const stale = await run(["cas", "default", "cas", "--expect-version", version, "three"])
    expect(stale).toMatchObject({ code: 4, stdout: "" })
    expect(stale.stderr).toBe(`not as expected: version ${second.stdout.trim()}\n`)
    const fresh = ["cas", "default", "cas", "four", "--json", "--expect-version"]
    const third = await run([...fresh, second.stdout.trim()])
    expect(third.code).toBe(0)
    expect(line(third)).toEqual({ swapped: true, version: expect.any(Number), receipt })
    const absent = await run([...fresh, "0"])
    expect(absent.code).toBe(4)
    expect(line(absent)).toEqual({ swapped: false, version: line(third).version, receipt })
    expect((await run(["get", "default", "cas"])).stdout).toBe("four")
    const nothing = await run(["cas", "default", "no-such-key", "x", "--expect-version", version])
    expect(nothing).toMatchObject({ code: 4, stdout: "", stderr: "not as expected: absent\n" })
  }, 60_000)
})

describe.concurrent("batch and scan", () => {
  test("a batch prints a result a line, in order, and its exit code is that of the worst", async () => {
    const operations = [
      '{"op":"put","key":"b:1","value":"x"}',
      '{"op":"put","key":"b:1","value":"y"}',
      '{"op":"delete","keyHex":"00"}',
      '{"op":"put","key":"b:2","valueHex":"ff"}',
    ].join("\n")
    const batch = await run(["batch", "default"], { input: operations })
    expect(batch.code).toBe(4)
    const results = batch.stdout
      .trimEnd()
      .split("\n")
      .map((each) => JSON.parse(each))
    expect(results).toMatchObject([
      { op: "put", key: "b:1" },
      { op: "put", key: "b:1" },
      { op: "delete", key: "\u0000", deleted: false },
      { op: "put", key: "b:2" },
    ])
    expect(results[1].version).toBeGreaterThan(results[0].version)
    expect((await run(["get", "default", "b:1"])).stdout).toBe("y")
    const json = await run(["batch", "default", "--json"], { input: '{"op":"delete","key":"b:1"}' })
    expect(json.code).toBe(0)
    expect(line(json)).toMatchObject({ results: [{ op: "delete", key: "b:1", deleted: true }] })
  }, 60_000)

  test("a bad line refuses the whole batch, and so does one operation too many", async () => {
    const bad = await run(["batch", "default"], {
      input: '{"op":"put","key":"never","value":"x"}\n{',
    })
    expect(bad).toMatchObject({ code: 2, stdout: "", stderr: "kvorum: line 2 is not JSON\n" })
    expect((await run(["get", "default", "never"])).code).toBe(4)
    const many = Array.from({ length: 1001 }, () => '{"op":"put","key":"never","value":"x"}').join(
      "\n",
    )
    const refused = await run(["batch", "default"], { input: many })
    expect(refused).toMatchObject({ code: 1, stdout: "" })
    expect(refused.stderr).toContain("InvalidRequest: batch of 1001 operations: limit is 1000")
    expect((await run(["get", "default", "never"])).code).toBe(4)
  }, 60_000)

  test("a scan finds a prefix in all ranges, goes on from a cursor, and sorts inside a hash tag", async () => {
    const keys = Array.from({ length: 30 }, (_, i) => `s:${i}`)
    const tagged = ["{s}:c", "{s}:a", "{s}:b\t"]
    // Several ranges, so that the cursor crosses from one to the next.
    expect(new Set(keys.map((key) => Math.floor(slotOf(utf8(key)) / 4096))).size).toBe(4)
    const put = [...keys, ...tagged].map((key) =>
      JSON.stringify({ op: "put", key, value: `v${key}` }),
    )
    expect((await run(["batch", "default"], { input: put.join("\n") })).code).toBe(0)
    const all = await run(["scan", "default", "--prefix", "s:"])
    expect(all).toMatchObject({ code: 0, stderr: "" })
    const lines = all.stdout.trimEnd().split("\n")
    expect([...lines].sort()).toEqual(keys.map((key) => `${key}\tv${key}`).sort())
    const seen: Array<string> = []
    let cursor: string | undefined
    do {
      const words = ["scan", "default", "--prefix", "s:", "--limit", "7", "--json"]
      const page = line(await run(cursor === undefined ? words : [...words, "--cursor", cursor]))
      const entries = page.entries as ReadonlyArray<{ key: string }>
      expect(entries.length).toBeLessThanOrEqual(7)
      seen.push(...entries.map(({ key }) => key))
      cursor = page.cursor as string | undefined
    } while (cursor !== undefined)
    expect(seen).toEqual(lines.map((each) => each.split("\t")[0] as string))
    const sorted = await run(["scan", "default", "--prefix", "{s}:"])
    expect(sorted.stdout).toBe("{s}:a\tv{s}:a\n{s}:b\\t\tv{s}:b\\t\n{s}:c\tv{s}:c\n")
    const cut = await run(["scan", "default", "--prefix", "{s}:", "--limit", "1"])
    expect(cut.stderr).toMatch(/^more: --cursor [0-9a-f]+\n$/)
  }, 60_000)

  test("scan's help tells of order and hash tags", async () => {
    const { code, stdout } = await kvorum(["scan", "--help"])
    expect(code).toBe(0)
    expect(stdout).toContain("ORDER:")
    expect(stdout).toContain("HASH TAGS:")
  }, 60_000)
})

describe.concurrent("refusals", () => {
  test("limits are named", async () => {
    const cases: ReadonlyArray<readonly [ReadonlyArray<string>, string | Uint8Array, string]> = [
      [["put", "default", "x".repeat(2049), "v"], "", "2048"],
      [["put", "default", "", "v"], "", "key is empty"],
      [["put", "default", "big", "-"], new Uint8Array(1024 * 1024 + 1), "1048576"],
    ]
    for (const [words, input, named] of cases) {
      const refused = await run(words, { input })
      expect(refused).toMatchObject({ code: 1, stdout: "" })
      expect(refused.stderr).toStartWith("kvorum: InvalidRequest: ")
      expect(refused.stderr).toContain(named)
    }
    const largest = await run(["put", "default", "y".repeat(2048), "-"], {
      input: new Uint8Array(1024 * 1024),
    })
    expect(largest.code).toBe(0)
  }, 60_000)

  test("an unknown namespace, in one line of JSON", async () => {
    const refused = await run(["get", "nowhere", "k", "--json"])
    expect(refused.code).toBe(1)
    expect(line(refused)).toEqual({
      error: "NamespaceNotFound",
      message: 'there is no namespace "nowhere"',
    })
    expect(refused.stderr).toBe('kvorum: NamespaceNotFound: there is no namespace "nowhere"\n')
  }, 60_000)

  test("wrong use is exit code 2 and leaves stdout empty", async () => {
    const wrong = [
      ["put", "default", "k"],
      ["put", "default", "k", "v", "w"],
      ["frobnicate"],
      ["cas", "default", "k", "v"],
      ["cas", "default", "k", "v", "--expect-version", "-1"],
      ["cas", "default", "k", "v", "--expect-version", "new"],
      ["put", "default", "--hex", "zz", "00"],
      ["put", "default", "-", "-"],
      ["scan", "default", "--limit", "0"],
      ["bench", "--clients", "0"],
      [],
    ]
    for (const words of wrong) {
      const { code, stdout, stderr } = await kvorum(words, { input: "" })
      expect({ words, code, stdout }).toEqual({ words, code: 2, stdout: "" })
      expect(stderr).not.toBe("")
    }
  }, 60_000)
})

describe.concurrent("the cluster", () => {
  test("status names every node; ranges tile the space", async () => {
    const status = line(await run(["status", "--json"])) as unknown as {
      nodes: ReadonlyArray<Record<string, unknown> & { id: string }>
    }
    expect(status).toMatchObject({ unreachable: [] })
    expect(status.nodes.map(({ id }) => id)).toEqual(["n1", "n2", "n3"])
    for (const [i, node] of status.nodes.entries()) {
      expect(node).toEqual({
        id: `n${i + 1}`,
        pid: expect.any(Number),
        state: "ready",
        addresses: {
          client: `127.0.0.1:${cluster.portBase + 1 + i}`,
          peer: `127.0.0.1:${cluster.portBase + 101 + i}`,
        },
        eventual: expect.objectContaining({ ringVersion: expect.any(Number), keys: 0, hints: [] }),
      })
    }
    const { ranges } = line(await run(["ranges", "--json"])) as unknown as {
      ranges: ReadonlyArray<Record<string, unknown>>
    }
    expect(ranges.map(({ namespace }) => namespace)).toEqual([
      "system",
      "default",
      "default",
      "default",
      "default",
      null,
    ])
    expect(ranges[0]).toEqual({
      id: 0,
      namespace: "system",
      start: "",
      end: "00000001",
      leader: expect.stringMatching(/^n[123]$/),
      term: expect.any(Number),
      index: expect.any(Number),
      replicas: ["n1", "n2", "n3"],
      roles: ["voter", "voter", "voter"],
      bytes: expect.any(Number),
      entries: expect.any(Number),
      requestsPerSecond: expect.any(Number),
      hot: expect.any(Array),
    })
    for (let i = 1; i < ranges.length; i++)
      expect(ranges[i]?.start).toBe(ranges[i - 1]?.end as string)
    expect(ranges.at(-1)?.end).toBe("")
  }, 60_000)

  test("is found by --endpoints, --port-base and KVORUM_ENDPOINTS, in this order", async () => {
    const first = cluster.endpoints.split(",")[0] as string
    const nowhere = "127.0.0.1:9"
    const place = ["--port-base", `${cluster.portBase}`]
    const environment = { KVORUM_ENDPOINTS: first }
    expect((await kvorum(["status"], { environment })).code).toBe(0)
    expect((await kvorum(["status", ...place])).code).toBe(0)
    expect(
      (await kvorum(["status", ...place], { environment: { KVORUM_ENDPOINTS: nowhere } })).code,
    ).toBe(0)
    const wrong = ["status", "--json", "--endpoints", nowhere, ...place]
    const refused = await kvorum(wrong, { environment })
    expect(refused.code).toBe(1)
    expect(line(refused).error).toBe("QuorumUnavailable")
  }, 60_000)

  test("bench measures, and prints one line of JSON", async () => {
    for (const operation of ["put", "get"]) {
      const words = [
        "bench",
        "--operation",
        operation,
        "--clients",
        "8",
        "--seconds",
        "1",
        "--consistency",
        "local",
        "--json",
      ]
      const bench = await run(words)
      expect({
        code: bench.code,
        stderr: bench.stderr.replace("loading 100000 keys\n", ""),
      }).toEqual({
        code: 0,
        stderr: "",
      })
      expect(line(bench)).toEqual({
        operation,
        ...(operation === "get" ? { consistency: "local" } : {}),
        clients: 8,
        seconds: 1,
        opsPerSecond: expect.any(Number),
        p50Us: expect.any(Number),
        p99Us: expect.any(Number),
        failed: 0,
      })
    }
  }, 90_000)

  test("the command works by npx in a clone, without Bun on the PATH", async () => {
    const folder = temporaryFolder()
    try {
      const script = join(folder.path, "run.sh")
      writeFileSync(
        script,
        `npx --no-install kvorum get default 1 --endpoints ${cluster.endpoints}\n`,
      )
      const path = (process.env.PATH ?? "")
        .split(":")
        .filter((each) => !Bun.which("bun", { PATH: each }))
      const child = Bun.spawnSync(["sh", script], {
        cwd: join(import.meta.dir, "../.."),
        env: { ...process.env, PATH: path.join(":") },
      })
      expect(child.stdout.toString(), child.stderr.toString()).toBe("yes")
    } finally {
      folder.remove()
    }
  }, 60_000)
})
