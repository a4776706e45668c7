import { describe, expect, test } from "bun:test"
import { join } from "node:path"
import { Effect } from "effect"
import { Client, type ClientShape } from "../../src/client/Client.ts"
import { text } from "../../src/lib/bytes.ts"
import { Output, startCluster, statusOf, temporaryFolder, until } from "./Cluster.ts"
import { bunPath, kvorum, mainPath, root } from "./Command.ts"
import { freePortBase } from "./Ports.ts"

/**
 * Ranges split, move and change leaders, and a node joins and leaves, all by the commands that a person types, while programs write and read. No call may
 * fail, every add counts once, and a session sees its own writes at any replica.
 */
interface Tally {
  readonly problems: Array<string>
  adds: number
  reads: number
}

const worker = (kv: ClientShape, name: string, tally: Tally, isOver: () => boolean) =>
  Effect.gen(function* () {
    const sums = new Map<string, bigint>()
    const session = yield* kv.session()
    for (let i = 0; !isOver(); i++) {
      const key = `${name}:${i % 25}`
      const expected = (sums.get(key) ?? 0n) + 1n
      const { value } = yield* kv.add("default", key, 1, { session })
      if (value !== expected) tally.problems.push(`${key} became ${value}, not ${expected}`)
      sums.set(key, expected)
      tally.adds++
      if (i % 3 !== 0) continue
      const got = yield* kv.get("default", key, { level: "local", session })
      const seen = got.found ? text(got.value) : "nothing"
      if (seen !== `${expected}`)
        tally.problems.push(`${key}: a session that wrote ${expected} read ${seen}`)
      tally.reads++
    }
  }).pipe(
    Effect.catch((error) =>
      Effect.sync(() => void tally.problems.push(`${error._tag}: ${error.message}`)),
    ),
  )

function startJoining(data: string, endpoint: string) {
  const child = Bun.spawn(
    [bunPath, mainPath, "serve", "--join", endpoint, "--data", data, "--stop-with-stdin"],
    { stdin: "pipe", stdout: "pipe", stderr: "pipe", cwd: root },
  )
  return { child, output: new Output(child.stderr) }
}

describe("a cluster that changes under load", () => {
  test("joins, splits, moves, transfers and a removal: no error, every add once, sessions hold", async () => {
    const folder = temporaryFolder()
    const portBase = freePortBase(4)
    const cluster = await startCluster({ nodes: 3, ephemeral: true, portBase })
    const endpoints = cluster.endpoints.split(",")
    const joining = startJoining(join(folder.path, "n4"), endpoints[0] as string)
    const run = async (words: string) => {
      const finished = await kvorum([...words.split(" "), "--endpoints", cluster.endpoints])
      expect({ words, ...finished }).toMatchObject({ words, code: 0 })
      return finished.stdout.trim()
    }
    const ranges = async (): Promise<
      ReadonlyArray<{ readonly id: number; readonly replicas: ReadonlyArray<string> }>
    > => JSON.parse(await run("range list --json")).ranges
    const tally: Tally = { problems: [], adds: 0, reads: 0 }
    let over = false
    const load = Effect.runPromise(
      Effect.gen(function* () {
        const kv = yield* Client
        const workers = Array.from({ length: 8 }, (_, i) => worker(kv, `w${i}`, tally, () => over))
        yield* Effect.all(workers, { concurrency: "unbounded", discard: true })
      }).pipe(Effect.provide(Client.layer({ endpoints }))),
    )
    try {
      await until("n4 has joined", () => joining.output.text.includes("n4 is up: "))
      expect(joining.output.text).toContain(`clients 127.0.0.1:${portBase + 4}`)
      for (const range of [1, 2, 3]) {
        const [left, right] = (await run(`range split ${range}`)).split(" ")
        expect(left).toBe(`${range}`)
        // The cluster may have given n4 a share by itself meanwhile.
        const found = (await ranges()).find(({ id }) => id === range)
        if (!found?.replicas.includes("n4")) {
          await run(`range move ${range} --from ${found?.replicas[0]} --to n4`)
        }
        await run(`range transfer ${range} --to n4`)
        await run(`range add-replica ${right} --on n4`)
        const [other] = (await ranges()).find(({ id }) => `${id}` === right)?.replicas ?? []
        await run(`range remove-replica ${right} --on ${other}`)
      }
      await run("node remove n4")
      await until("n4 has gone", () => joining.child.exitCode !== null)
      expect(joining.output.text).toContain("n4 was removed from its cluster")
    } finally {
      over = true
      await load
      joining.child.kill("SIGKILL")
    }
    expect(tally.problems).toEqual([])
    expect(tally.adds).toBeGreaterThan(500)
    expect(tally.reads).toBeGreaterThan(100)
    const { nodes, unreachable } = await statusOf(cluster.endpoints)
    expect([nodes.length, unreachable]).toEqual([3, []])
    for (const { replicas } of await ranges()) expect(replicas).not.toContain("n4")
    await cluster.stop()
    folder.remove()
  }, 120_000)
})
