import { describe, expect, test } from "bun:test"
import type { AdminOrder } from "../../src/server/StoreService.ts"
import { type Doors, withDoors } from "../doors/harness.ts"
import { kvorum, type RunOptions } from "../processes/Command.ts"

/** Commands as processes against doors over a cluster in memory. */
const against = (doors: Doors) => (words: ReadonlyArray<string>, options?: RunOptions) =>
  kvorum(words, {
    ...options,
    environment: { KVORUM_ENDPOINTS: `${doors.endpoint(1)},${doors.endpoint(2)}` },
  })

const withCommands = (body: (run: ReturnType<typeof against>, doors: Doors) => Promise<void>) =>
  withDoors({ nodes: 3 }, (doors) => body(against(doors), doors))

describe.concurrent("writes", () => {
  test(
    "put --ttl ends by itself, and --if-absent writes once",
    () =>
      withCommands(async (run, { cluster }) => {
        const put = ["put", "default", "lock", "me", "--if-absent", "--ttl", "30s"]
        const first = await run(put)
        expect(first).toMatchObject({ code: 0, stderr: "" })
        const version = first.stdout.trim()
        expect(await run(put)).toMatchObject({
          code: 4,
          stdout: "",
          stderr: `there is such a key: version ${version}\n`,
        })
        const json = await run([...put, "--json"])
        expect(json.code).toBe(4)
        expect(JSON.parse(json.stdout)).toMatchObject({ written: false, version: Number(version) })
        cluster.advance(30_000_000)
        expect((await run(["get", "default", "lock"])).code).toBe(4)
        expect((await run(put)).code).toBe(0)
      }),
    30_000,
  )

  test(
    "add prints the new value, and a value that is no number is refused",
    () =>
      withCommands(async (run) => {
        expect(await run(["add", "default", "n"])).toMatchObject({ code: 0, stdout: "1\n" })
        expect((await run(["add", "default", "n", "41"])).stdout).toBe("42\n")
        expect((await run(["add", "default", "n", "-50"])).stdout).toBe("-8\n")
        const json = await run(["add", "default", "n", "9223372036854775807", "--json"])
        expect(JSON.parse(json.stdout)).toMatchObject({ value: "9223372036854775799" })
        const beyond = await run(["add", "default", "n", "9"])
        expect(beyond.code).toBe(1)
        expect(beyond.stderr).toStartWith("kvorum: InvalidRequest: the value of the key (version ")
        expect(await run(["add", "default", "n", "1.5"])).toMatchObject({ code: 2 })
      }),
    30_000,
  )

  test(
    "batch --atomic does all or nothing, and says which condition stood in the way",
    () =>
      withCommands(async (run) => {
        const input = [
          '{"op":"put","key":"{u}:name","value":"Ada","ifAbsent":true}',
          '{"op":"add","key":"{u}:count","delta":2}',
        ].join("\n")
        const first = await run(["batch", "default", "--atomic"], { input })
        expect(first).toMatchObject({ code: 0, stderr: "" })
        expect(first.stdout).toMatch(/^\d+\n$/)
        const version = Number(first.stdout)
        const again = await run(["batch", "default", "--atomic"], { input })
        expect(again).toMatchObject({
          code: 4,
          stdout: "",
          stderr: `nothing was done: operation 1 of 2 (put {u}:name): not as expected: version ${version}\n`,
        })
        const json = await run(["batch", "default", "--atomic", "--json"], { input })
        expect(JSON.parse(json.stdout)).toMatchObject({
          applied: false,
          failed: 0,
          reason: "condition",
          version,
        })
        expect((await run(["get", "default", "{u}:count"])).stdout).toBe("2")
        const spread = await run(["batch", "default", "--atomic"], {
          input: ["a", "b", "c", "d"].map((key) => `{"op":"delete","key":"${key}"}`).join("\n"),
        })
        expect(spread.code).toBe(1)
        expect(spread.stderr).toContain("hash tag")
        const plain = await run(["batch", "default"], { input })
        expect(plain).toMatchObject({
          code: 2,
          stderr: "kvorum: line 1 has the condition ifAbsent: conditions need --atomic\n",
        })
        const sums = await run(["batch", "default"], { input: input.split("\n")[1] as string })
        expect(JSON.parse(sums.stdout)).toMatchObject({ op: "add", key: "{u}:count", value: "4" })
      }),
    30_000,
  )
})

describe.concurrent("levels and sessions", () => {
  test(
    "get --consistency asks for a level; a wrong one says which there are",
    () =>
      withCommands(async (run, { cluster }) => {
        await run(["put", "default", "a", "1"])
        const levels: Array<unknown> = []
        cluster.intercept = ({ request }) => {
          if (request._tag === "Get") levels.push([request.level, request.maxStalenessMs])
          return false
        }
        for (const level of ["local", "bounded:1.5s", "linearizable"]) {
          const got = await run(["get", "default", "a", "--consistency", level, "--json"])
          expect(JSON.parse(got.stdout)).toMatchObject({
            value: "1",
            receipt: { level: level.split(":")[0], staleBoundMs: level === "local" ? null : 0 },
          })
        }
        expect(levels).toEqual([
          ["local", 0],
          ["bounded", 1500],
          ["linearizable", 0],
        ])
        const wrong = await run(["get", "default", "a", "--consistency", "eventual"])
        expect(wrong.code).toBe(2)
        expect(wrong.stderr).toContain(
          "linearizable, bounded:500ms (or any other duration) or local",
        )
        const scan = await run(["scan", "default", "--consistency", "bounded"])
        expect(scan).toMatchObject({ code: 2 })
      }),
    30_000,
  )

  test(
    "a session goes from command to command by its token",
    () =>
      withCommands(async (run, { cluster }) => {
        await run(["put", "default", "a", "old"])
        for (const node of [1, 2, 3]) cluster.lag(node)
        const put = await run(["put", "default", "a", "new", "--session", "new"])
        expect(put.stderr).toMatch(/^session [\w-]+\n$/)
        expect(put.stdout).toMatch(/^\d+\n$/)
        const token = put.stderr.trim().split(" ")[1] as string
        const local = ["get", "default", "a", "--consistency", "local"]
        expect((await run(local)).stdout).toBe("old")
        const got = await run(["get", "default", "a", "--session", token, "--json"])
        expect(JSON.parse(got.stdout)).toMatchObject({ value: "new", session: expect.any(String) })
        const cut = await run([...local, "--session", token.slice(3)])
        expect(cut).toMatchObject({ code: 1 })
        expect(cut.stderr).toContain("pass it on whole")
      }),
    40_000,
  )
})

describe.concurrent("orders", () => {
  test(
    "namespaces, ranges and nodes: each command gives one order and says what came of it",
    () =>
      withCommands(async (run, { cluster }) => {
        const orders: Array<Pick<AdminOrder, "verb" | "args">> = []
        cluster.administer = ({ verb, args }, reply) => {
          orders.push({ verb, args })
          const descriptor = { id: 4 }
          reply({ _tag: "Done", result: { left: 4, right: 9, moved: 5, fewer: 2, descriptor } })
        }
        const create = "namespace create events --partitioning ordered --ranges 4 --replicas 3"
        const cases: ReadonlyArray<readonly [string, string, unknown, string]> = [
          [
            create,
            "namespace.create",
            { name: "events", mode: "strong", partitioning: "ordered", ranges: 4, replicas: 3 },
            "namespace events is there: strong, ordered\n",
          ],
          ["namespace delete events", "namespace.delete", { name: "events" }, ""],
          ["range split 4", "range.split", { range: 4 }, "4 9\n"],
          ["range merge 4 9", "range.merge", { range: 4, with: 9 }, "4\n"],
          [
            "range isolate default {t}",
            "range.isolate",
            { namespace: "default", prefix: "7b747d" },
            "4\n",
          ],
          ["range move 4 n1 n4", "range.move", { range: 4, from: 1, to: 4 }, ""],
          ["range move 4 --from n1 --to n4", "range.move", { range: 4, from: 1, to: 4 }, ""],
          ["range add-replica 4 --on n4", "range.addReplica", { range: 4, on: 4 }, ""],
          ["range remove-replica 4 --on 1", "range.removeReplica", { range: 4, on: 1 }, ""],
          ["range transfer 4 --to n2", "range.transfer", { range: 4, to: 2 }, ""],
          ["node drain n4", "node.drain", { node: 4 }, ""],
          ["rebalance", "cluster.rebalance", { dryRun: false }, ""],
          ["rebalance --dry-run", "cluster.rebalance", { dryRun: true }, ""],
          ["node remove n4", "node.remove", { node: 4 }, ""],
          ["node replace n4", "node.replace", { node: 4 }, ""],
        ]
        for (const [words, verb, args, stdout] of cases) {
          const done = await run(words.split(" "))
          expect({ words, code: done.code, stdout: done.stdout }).toEqual({
            words,
            code: 0,
            stdout,
          })
          // Long orders carry the name by which they are asked about later.
          const given = orders.pop() as { verb: string; args: Record<string, unknown> }
          const { order, ...rest } = given.args
          expect({ verb: given.verb, args: rest } as object).toEqual({ verb, args })
          const isLong = /^node |^range move|^rebalance$/.test(words)
          expect([words, typeof order]).toEqual([words, isLong ? "string" : "undefined"])
          if (stdout === "") expect(done.stderr).not.toBe("")
        }
        const json = await run("node remove n4 --json".split(" "))
        expect(JSON.parse(json.stdout)).toMatchObject({ left: 4, right: 9, moved: 5, fewer: 2 })
        const said = await run("node remove n4".split(" "))
        expect(said.stderr).toContain("5 replicas were moved away")
        expect(said.stderr).toContain("2 ranges have one replica fewer, since no other node")
        cluster.administer = (_, reply) =>
          reply({ _tag: "Refused", refusal: { _tag: "InvalidRequest", message: "no majority" } })
        expect(await run("range remove-replica 4 --on n1 --json".split(" "))).toMatchObject({
          code: 1,
          stdout: '{"error":"InvalidRequest","message":"no majority"}\n',
          stderr: "kvorum: InvalidRequest: no majority\n",
        })
      }),
    40_000,
  )

  test(
    "range split --at names a key of the range, which becomes a position",
    () =>
      withCommands(async (run, { cluster }) => {
        const args: Array<unknown> = []
        cluster.administer = (order, reply) => {
          args.push(order.args)
          reply({ _tag: "Done", result: { left: 6, right: 7 } })
        }
        cluster.addNamespace("sorted", "ordered")
        const id = cluster.descriptors.find(({ namespace }) => namespace === 2)?.id
        const split = ["range", "split", `${id}`]
        expect((await run([...split, "--at", "m"])).code).toBe(0)
        expect((await run([...split, "--at", "ff00", "--hex"])).code).toBe(0)
        expect(args).toEqual([
          { range: id, at: "000000026d" },
          { range: id, at: "00000002ff00" },
        ])
        const elsewhere = await run(["range", "split", "1", "--at", "zz"])
        expect(elsewhere).toMatchObject({ code: 1 })
        expect(elsewhere.stderr).toMatch(
          /range 1 cannot be cut at this key, which lies in range \d/,
        )
        expect((await run(["range", "split", "77", "--at", "a"])).stderr).toContain(
          "kvorum range list",
        )
        expect(args.length).toBe(2)
      }),
    30_000,
  )

  test(
    "a wrong flag is exit code 2 and says what to write",
    () =>
      withCommands(async (run) => {
        const cases: ReadonlyArray<readonly [string, string]> = [
          ["namespace create x --mode weak", "use strong or eventual"],
          ["namespace create x --partitioning list", "neither hash nor ordered"],
          ["namespace create x --ranges 0", "--ranges must be 1 or more"],
          ["range move 4 --from one --to n2", "such as n4"],
          ["range move 4 --from n2 --to n2", "the same node"],
          ["range move 4 n2", "from which node to which"],
          ["range move 4 n1 n2 --to n3", "from which node to which"],
          ["range merge 4 4", "named twice"],
          ["range split 4 --at xyz --hex", "not hexadecimal"],
          ["put default a b --ttl 30", "such as 500ms or 30s"],
        ]
        for (const [words, text] of cases) {
          const refused = await run(words.split(" "))
          expect({ words, code: refused.code }).toEqual({ words, code: 2 })
          expect(refused.stderr).toContain(text)
        }
      }),
    30_000,
  )

  test(
    "lists: namespaces, nodes with what they hold, and ranges under both names",
    () =>
      withCommands(async (run, doors) => {
        doors.cluster.addNamespace("sorted", "ordered")
        const namespaces = await run(["namespace", "list"])
        expect(namespaces.stdout).toBe(
          "0  system  strong  ordered  ranges 1  replicas 3\n" +
            "1  default  strong  hash  ranges 4  replicas 3\n" +
            "2  sorted  strong  ordered  ranges 1  replicas 3\n",
        )
        await doors.stop(3)
        const nodes = await run(["node", "list"])
        const lines = nodes.stdout.trimEnd().split("\n")
        expect(lines[0]).toMatch(/^n1 {2}up {2}replicas 7 {2}leads \d {2}pid \d+ {2}clients /)
        expect(lines[2]).toMatch(/^n3 {2}unreachable {2}replicas 7 {2}leads \d$/)
        const { nodes: rows } = JSON.parse((await run(["node", "list", "--json"])).stdout)
        expect(rows[2]).toMatchObject({ id: "n3", state: "unreachable", replicas: 7 })
        const [first, second] = await Promise.all([run(["ranges"]), run(["range", "list"])])
        expect(first.stdout).toBe(second.stdout)
        expect(first.stdout).toContain("6  -  [")
      }),
    30_000,
  )
})
