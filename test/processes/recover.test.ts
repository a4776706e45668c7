import { afterAll, expect, test } from "bun:test"
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { NodeSet, temporaryFolder, until } from "./Cluster.ts"
import { kvorum } from "./Command.ts"

const folder = temporaryFolder()
const nodes = new NodeSet({ nodes: 3, directory: folder.path })
afterAll(async () => {
  await nodes.stop()
  folder.remove()
})

const survivor = join(folder.path, "n1")
const recover = (...words: ReadonlyArray<string>) =>
  kvorum(["recover", "unsafe-quorum", "--data", survivor, "--lost", "n2,n3", ...words])

const put = (endpoints: string, key: string) =>
  kvorum(["put", "default", key, "v", "--endpoints", endpoints])

test("two of three nodes are lost for good: the third goes on, after a dry run that changes nothing, with an audit line", async () => {
  nodes.startAll()
  await until("a write succeeds", async () => (await put(nodes.endpoints, "key-0")).code === 0)
  for (let i = 1; i < 3; i++) expect((await put(nodes.endpoints, `key-${i}`)).code).toBe(0)

  // Else the survivor may lack what the other two have acknowledged: that would be lost.
  for (const key of ["key-0", "key-1", "key-2"]) {
    await until(`n1 holds ${key}`, async () => {
      const words = ["get", "default", key, "--consistency", "local", "--json"]
      const { stdout } = await kvorum([...words, "--endpoints", nodes.endpoint(1)])
      const { found, receipt } = JSON.parse(stdout.trim() || "{}")
      return found === true && receipt.node === "n1"
    })
  }
  const running = await recover("--dry-run")
  expect(running.code).toBe(1)
  expect(running.stderr).toContain("stop it first")
  await nodes.stop()

  const sizes = () => readdirSync(join(survivor, "journal")).join()
  const before = sizes()
  const neither = await recover()
  expect(neither.code).toBe(2)
  const dry = await recover("--dry-run")
  expect(dry.code).toBe(0)
  expect(dry.stdout).toContain("DATA LOSS IS POSSIBLE: n2, n3 are given up for good")
  expect(dry.stdout).toContain("n1 becomes its only voter")
  expect(dry.stderr).toContain("Nothing was changed")
  expect(sizes()).toBe(before)
  expect(existsSync(join(survivor, "RECOVERED.jsonl"))).toBe(false)

  // Without it the survivor cannot serve.
  nodes.start(1)
  const endpoint = nodes.endpoint(1)
  const alone = ["get", "default", "key-1", "--endpoints", endpoint]
  await until("it answers by itself", async () => {
    const local = await kvorum([...alone, "--consistency", "local"])
    // It may not know yet that what it holds is committed.
    return local.code === 0 || local.code === 4
  })
  await nodes.killed([1])

  const done = await recover("--accept-data-loss", "--json")
  expect(done.code).toBe(0)
  const report = JSON.parse(done.stdout.trim())
  expect(report).toMatchObject({ lost: ["n2", "n3"], gone: [], untouched: [], done: true })
  const [line] = readFileSync(join(survivor, "RECOVERED.jsonl"), "utf8").trim().split("\n")
  expect(JSON.parse(line as string)).toMatchObject({ lost: ["n2", "n3"], ranges: report.ranges })

  nodes.start(1)
  await until("it takes writes", async () => (await put(endpoint, "key-new")).code === 0)
  for (const key of ["key-0", "key-2", "key-new"]) {
    const found = await kvorum(["get", "default", key, "--endpoints", endpoint])
    expect(found.stdout).toBe("v")
  }
}, 90_000)
