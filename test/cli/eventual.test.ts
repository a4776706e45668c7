import { describe, expect, test } from "bun:test"
import { type Doors, withDoors } from "../doors/harness.ts"
import { eventualNamespaces } from "../doors/memoryEventual.ts"
import { type Finished, kvorum, type RunOptions } from "../processes/Command.ts"

/** Commands as processes against doors over a cluster in memory; each conflict rule has a namespace of its name. */
const against = (doors: Doors) => (line: string, options?: RunOptions) =>
  kvorum(line.split(" "), {
    ...options,
    environment: { KVORUM_ENDPOINTS: `${doors.endpoint(1)},${doors.endpoint(2)}` },
  })

type Run = ReturnType<typeof against>

const withCommands = (body: (run: Run, doors: Doors) => Promise<void>) =>
  withDoors({ nodes: 3 }, async (doors) => {
    doors.cluster.namespaces.push(...eventualNamespaces)
    await body(against(doors), doors)
  })

/** The one line that `--json` promises, parsed. */
function line(finished: Finished): Record<string, unknown> {
  expect(finished.stdout.trimEnd().split("\n")).toHaveLength(1)
  return JSON.parse(finished.stdout)
}

const node = expect.stringMatching(/^n[123]$/)
const receipt = {
  ...{ asked: "quorum", achieved: "quorum", coordinator: node, answered: [node, node] },
  ...{ owners: [node, node], standIns: [], sloppy: false, overlap: true, repairs: [] },
}

/** Siblings stand in the order of who wrote them. */
const sortedLines = (stdout: string) => stdout.trim().split("\n").sort()

describe.concurrent("values", () => {
  test(
    "put and get: siblings one a line, and what --json gives back is what the next write names",
    () =>
      withCommands(async (run) => {
        const put = await run("put siblings a one --consistency quorum")
        expect(put).toMatchObject({ code: 0, stdout: "written at quorum\n", stderr: "" })
        expect(line(await run("put siblings a two --json"))).toEqual({ receipt })
        const get = await run("get siblings a")
        expect(get).toMatchObject({ code: 0, stderr: "" })
        expect(sortedLines(get.stdout)).toEqual(["one", "two"])
        const found = line(await run("get siblings a --json"))
        expect(found).toEqual({
          siblings: get.stdout.trim().split("\n"),
          context: expect.stringMatching(/^[\w-]+$/),
          receipt,
        })
        await run(`put siblings a both --context ${found.context} --strict`)
        expect((await run("get siblings a")).stdout).toBe("both\n")
        const other = await run(`put siblings b both --context ${found.context} --json`)
        expect(other.code).toBe(1)
        expect(line(other)).toMatchObject({ error: "InvalidRequest" })
        expect((await run("put siblings a x --context nonsense")).stderr).toContain("context")
      }),
    60_000,
  )

  test(
    "get --explain says on stderr how it was read; an absent key is exit code 4",
    () =>
      withCommands(async (run) => {
        expect(await run("get siblings a")).toMatchObject({ code: 4, stdout: "" })
        const absent = await run("get siblings a --json")
        expect(absent.code).toBe(4)
        expect(line(absent)).toEqual({ siblings: [], context: null, receipt })
        for (const value of ["one", "two"]) await run(`put siblings a ${value}`)
        const { code, stdout, stderr } = await run("get siblings a --explain")
        expect({ code, values: sortedLines(stdout) }).toEqual({ code: 0, values: ["one", "two"] })
        expect(stderr).toContain("quorum: n")
        expect(stderr).toContain("overlaps with writes at the namespace's level")
        expect(stderr).toContain("2 values that no write has seen all of")
        expect(stderr).toMatch(/\ncontext: [\w-]+\n$/)
      }),
    60_000,
  )

  test(
    "delete takes away what a read shows, or what the context does; bytes go in and out by --hex; --ttl ends",
    () =>
      withCommands(async (run, { cluster }) => {
        await run("put lww a 1")
        expect((await run("delete lww a")).code).toBe(0)
        expect((await run("get lww a")).code).toBe(4)
        expect((await run("delete lww a")).code).toBe(4)
        await run("put siblings a 1")
        const { context } = line(await run("get siblings a --json"))
        await run("put siblings a 2")
        await run(`delete siblings a --context ${context}`)
        expect((await run("get siblings a")).stdout).toBe("2\n")
        await run("put register --hex 00ff 0d0a00")
        expect((await run("get register 00ff --hex")).stdout).toBe("0d0a00\n")
        const json = line(await run("get register 00ff --hex --json"))
        expect(json).toMatchObject({ siblingsHex: ["0d0a00"] })
        await run("put lww short me --ttl 30s")
        cluster.eventual.wallMs += 30_000
        expect((await run("get lww short")).code).toBe(4)
      }),
    60_000,
  )
})

describe.concurrent("sets, counters and flags", () => {
  test(
    "a set prints an element a line, a counter its number, a flag what it is",
    () =>
      withCommands(async (run) => {
        for (const item of ["iPhone", "AirPods", "iPad"]) {
          expect((await run(`add set cart1 ${item}`)).code).toBe(0)
        }
        expect((await run("remove set cart1 iPhone")).code).toBe(0)
        expect((await run("get set cart1")).stdout).toBe("AirPods\niPad\n")
        expect((await run("add counter visits")).stdout).toBe("1\n")
        expect((await run("add counter visits 41")).stdout).toBe("42\n")
        const less = line(await run("add counter visits --json -- -50"))
        expect(less).toEqual({ value: "-8", receipt })
        expect((await run("get counter visits")).stdout).toBe("-8\n")
        await run("put flag dark true")
        expect((await run("get flag dark")).stdout).toBe("true\n")
        await run("put flag dark false")
        expect((await run("get flag dark")).code).toBe(4)
        expect(await run("put flag dark maybe")).toMatchObject({ code: 1 })
        expect(await run("add set cart1")).toMatchObject({ code: 2 })
        expect(await run("add counter visits many")).toMatchObject({ code: 2 })
      }),
    60_000,
  )
})

describe.concurrent("what is of the other mode", () => {
  test(
    "is refused as NotSupportedInMode, and a level that there is not as wrong use",
    () =>
      withCommands(async (run, { cluster }) => {
        await run("put default a 1")
        const input = '{"op":"put","key":"a","value":"1"}'
        for (const words of [
          "cas siblings a x --expect-version 1",
          "batch siblings --atomic",
          "put siblings a 1 --if-absent",
          "put siblings a 1 --session new",
          "get siblings a --consistency bounded:500ms",
          "get siblings a --consistency linearizable",
          "scan siblings --consistency quorum",
          "add siblings a 1",
          "add lww a 1 --ttl 5s",
          "put set a 1",
          "remove counter a 1",
          "put default a 1 --consistency one",
          "put default a 1 --context x",
          "put default a 1 --strict",
          "delete default a --strict",
          "get default a --consistency quorum",
          "add default a 1 --strict",
          "scan default --consistency all",
          "remove default a 1",
        ]) {
          const { code, stderr } = await run(words, { input })
          expect({ words, code, stderr: stderr.split(": ", 2).join(": ") }).toEqual({
            ...{ words, code: 1, stderr: "kvorum: NotSupportedInMode" },
          })
        }
        for (const words of ["get siblings a --consistency most", "put lww a 1 --ttl 0s"]) {
          expect(await run(words)).toMatchObject({ code: 2 })
        }
        expect(cluster.eventual.applied.length).toBe(0)
      }),
    120_000,
  )
})

describe.concurrent("a batch", () => {
  test(
    "has a line for each operation, in order; the worst result is the exit code",
    () =>
      withCommands(async (run) => {
        const input = [
          '{"op":"add","key":"c","member":"a"}',
          '{"op":"remove","key":"c","member":"a"}',
          '{"op":"add","key":"c","member":"b"}',
          '{"op":"delete","key":"d"}',
        ].join("\n")
        const done = await run("batch set", { input })
        expect(done.code).toBe(0)
        const lines = done.stdout
          .trim()
          .split("\n")
          .map((each) => JSON.parse(each))
        expect(lines.map(({ op, key }) => `${op} ${key}`)).toEqual([
          "add c",
          "remove c",
          "add c",
          "delete d",
        ])
        expect(lines[0]).toEqual({ op: "add", key: "c", receipt })
        expect((await run("get set c")).stdout).toBe("b\n")
        const mixed = await run("batch counter", {
          input: '{"op":"add","key":"n","delta":2}\n{"op":"put","key":"n","value":"x"}',
        })
        expect(mixed.code).toBe(1)
        const results = mixed.stdout
          .trim()
          .split("\n")
          .map((each) => JSON.parse(each))
        expect(results).toEqual([
          { op: "add", key: "n", value: "2", receipt },
          {
            ...{ op: "put", key: "n", error: "NotSupportedInMode" },
            message: expect.any(String),
          },
        ])
        expect(await run("batch default", { input })).toMatchObject({ code: 1 })
      }),
    60_000,
  )
})

describe.concurrent("a scan", () => {
  test(
    "prints a line for each sibling, and its parts on stderr or in the JSON",
    () =>
      withCommands(async (run) => {
        for (const [key, value] of [
          ["{u}:a", "1"],
          ["{u}:a", "2"],
          ["{u}:b", "tab\there"],
          ["other", "x"],
        ] as const) {
          await run(`put siblings ${key} ${value}`)
        }
        const tagged = await run("scan siblings --prefix {u}:")
        const lines = ["{u}:a\t1", "{u}:a\t2", "{u}:b\ttab\\there"]
        expect(sortedLines(tagged.stdout)).toEqual(lines)
        expect(tagged.stderr).toMatch(/^parts: n[123]: 2 of 1 slots\n$/)
        for (const words of ["count siblings --json", "scan siblings --count --json"]) {
          const { count, partial, parts } = line(await run(words)) as {
            readonly count: number
            readonly partial: boolean
            readonly parts: Readonly<Record<string, number>>
          }
          expect({ count, partial }).toEqual({ count: 3, partial: false })
          expect(Object.values(parts).reduce((sum, part) => sum + part, 0)).toBe(3)
          for (const name of Object.keys(parts)) expect(name).toMatch(/^n[123]$/)
        }
        const first = line(await run("scan siblings --limit 1 --json"))
        expect(first.entries).toHaveLength(1)
        const rest = line(await run(`scan siblings --json --cursor ${first.cursor}`))
        expect(rest.entries).toHaveLength(2)
        expect(rest.cursor).toBeUndefined()
        expect(JSON.stringify([first.entries, rest.entries])).toMatch(
          /"siblings":\["(1","2|2","1)"\]/,
        )
      }),
    60_000,
  )
})

describe.concurrent("when the answer never comes", () => {
  test(
    "a write is exit code 3 and was sent once",
    () =>
      withCommands(async (run, doors) => {
        let writes = 0
        doors.cluster.eventual.intercept = ({ node, request }) => {
          if (request._tag !== "EventualWrite") return false
          writes++
          void doors.stop(node).then(() => doors.start(node))
          return true
        }
        const put = await run("put siblings a 1 --json")
        expect(put.code).toBe(3)
        expect(put.stderr).toStartWith("kvorum: OutcomeUnknown: ")
        expect(line(put)).toMatchObject({ error: "OutcomeUnknown" })
        expect(writes).toBe(1)
        const batch = await run("batch siblings", { input: '{"op":"put","key":"k","value":"1"}' })
        expect(batch.code).toBe(3)
        expect(line(batch)).toMatchObject({ op: "put", key: "k", error: "OutcomeUnknown" })
      }),
    60_000,
  )

  test(
    "and a level that too few nodes are up for is refused at once",
    () =>
      withCommands(async (run, { cluster }) => {
        cluster.eventual.intercept = ({ request, reply }) => {
          const refusal = { _tag: "LevelUnavailable", level: "all", answered: [] } as const
          reply({ _tag: "EventualRefused", token: request.token, refusal })
          return true
        }
        const put = await run("put siblings a 1 --consistency all")
        expect(put.code).toBe(1)
        expect(put.stderr).toStartWith("kvorum: QuorumUnavailable: too few nodes are up for level")
      }),
    60_000,
  )
})
