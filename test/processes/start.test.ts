import { afterEach, describe, expect, test } from "bun:test"
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from "node:fs"
import { join } from "node:path"
import {
  ClusterProcess,
  endpointsOf,
  isAlive,
  Output,
  type StartOptions,
  startCluster,
  statusOf,
  temporaryFolder,
  until,
} from "./Cluster.ts"
import { bunPath, kvorum, mainPath, root } from "./Command.ts"
import { freePortBase } from "./Ports.ts"

/** What `npm start` does when all is well, when something is in its way, and when a process dies. */
const cleanups: Array<() => unknown> = []

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

function folder(): string {
  const { path, remove } = temporaryFolder()
  cleanups.push(remove)
  return path
}

async function started(options: StartOptions): Promise<ClusterProcess> {
  const cluster = await startCluster(options)
  // Killed outright, it could not remove the folder that it made.
  cleanups.push(() => cluster.stop(options.ephemeral === true ? "SIGTERM" : "SIGKILL"))
  return cluster
}

/** A start that must be refused. */
async function refused(
  options: StartOptions,
): Promise<{ code: number; stderr: string; stdout: string }> {
  const cluster = new ClusterProcess(options)
  cleanups.push(() => cluster.stop("SIGKILL"))
  const code = await cluster.child.exited
  await Promise.all([cluster.stdout.done, cluster.stderr.done])
  return { code, stderr: cluster.stderr.text, stdout: cluster.stdout.text }
}

async function pidsOf(cluster: ClusterProcess): Promise<ReadonlyArray<number>> {
  const { nodes } = await statusOf(cluster.endpoints)
  return nodes.map(({ pid }) => pid)
}

const allGone = (pids: ReadonlyArray<number>) =>
  until("all processes are gone", () => !pids.some(isAlive), 10_000)

/** Every file under a folder with its content, but for the pid in lock files. */
function snapshot(path: string): Record<string, string> {
  const files: Record<string, string> = {}
  for (const name of readdirSync(path, { recursive: true, encoding: "utf8" })) {
    const file = join(path, name)
    if (!statSync(file).isFile() || name.endsWith("LOCK")) continue
    files[name] = Bun.hash(readFileSync(file)).toString(16)
  }
  return files
}

function edit(path: string, change: (content: Record<string, unknown>) => object): void {
  writeFileSync(path, `${JSON.stringify(change(JSON.parse(readFileSync(path, "utf8"))))}\n`)
}

describe("a start", () => {
  test("finds the data of the one before, at other ports too; Ctrl-C ends it with 0 and stops every node", async () => {
    const data = join(folder(), "data")
    const first = await started({ nodes: 3, data })
    const pids = await pidsOf(first)
    expect(pids).toHaveLength(3)
    const put = ["put", "default", "kept", "yes", "--endpoints", first.endpoints]
    expect((await kvorum(put)).code).toBe(0)
    expect(await first.stop("SIGINT")).toBe(0)
    await allGone(pids)
    // What nodes say to each other as they come and go is not for the person who starts them.
    expect(first.stdout.text).toStartWith("Kvorum is ready: 3 nodes, data in ")
    expect(first.stderr.text).not.toMatch(/ INFO | is up/)
    const second = await started({ nodes: 3, data })
    expect(second.portBase).not.toBe(first.portBase)
    const get = ["get", "default", "kept", "--endpoints", second.endpoints]
    expect((await kvorum(get)).stdout).toBe("yes")
    expect(await second.stop("SIGTERM")).toBe(0)
  }, 90_000)

  test("leaves out a node that was removed, also when its folder and its port are no longer its own", async () => {
    const data = join(folder(), "data")
    const first = await started({ nodes: 2, data })
    const { portBase } = first
    const remove = ["node", "remove", "n1", "--endpoints", first.endpoints]
    expect((await kvorum(remove)).code).toBe(0)
    await until("n1 has gone", () => first.stderr.text.includes("n1 has been removed"))
    expect(await first.stop("SIGINT")).toBe(0)
    rmSync(join(data, "n1"), { recursive: true })
    const newcomer = Bun.listen({
      hostname: "127.0.0.1",
      port: portBase + 1,
      socket: { data() {} },
    })
    cleanups.push(() => newcomer.stop(true))
    const second = await started({ nodes: 2, data, portBase })
    expect(second.stdout.text).toStartWith("Kvorum is ready: 1 node, data in ")
    expect(second.stdout.text).toContain(`kvorum status --port-base ${portBase}\n`)
    expect(second.stderr.text).toContain("n1 was removed from this cluster: it is not started")
    expect(existsSync(join(data, "n1"))).toBe(false)
    expect(await second.stop("SIGINT")).toBe(0)
  }, 60_000)

  test("prints addresses and next commands that work as they are printed", async () => {
    const cluster = await started({ nodes: 1, ephemeral: true })
    const command = /npx kvorum (put default .*)/.exec(cluster.stdout.text)?.[1] as string
    expect((await kvorum(command.split(" "))).code).toBe(0)
    expect(cluster.stdout.text).toContain(`n1  clients 127.0.0.1:${cluster.portBase + 1}`)
    const status = await statusOf(cluster.endpoints)
    expect(status.nodes.map(({ state }) => state)).toEqual(["ready"])
    const [node] = status.nodes
    if (node !== undefined && existsSync("/proc/self")) {
      const environment = readFileSync(`/proc/${node.pid}/environ`, "utf8").split("\0")
      expect(environment).toContain("BUN_JSC_thresholdForFTLOptimizeAfterWarmUp=1000000")
    }
  }, 60_000)

  test("--ephemeral leaves nothing behind, inside --data DIR too", async () => {
    const parent = join(folder(), "parent")
    const cluster = await started({ nodes: 1, data: parent, ephemeral: true })
    expect(readdirSync(parent)).toHaveLength(1)
    expect(await cluster.stop("SIGINT")).toBe(0)
    expect(existsSync(parent)).toBe(false)
  }, 60_000)
})

describe("a start is refused with one line and exit code 1, and changes nothing", () => {
  /** A cluster's data, of two nodes, made without starting one. */
  function dataOfTwo(): string {
    const data = folder()
    writeFileSync(join(data, "cluster.json"), '{"format":1,"nodes":2}\n')
    for (const node of [1, 2]) {
      mkdirSync(join(data, `n${node}`))
      const identity = {
        format: 1,
        clusterId: "one",
        node,
        incarnation: `i${node}`,
        nodes: [1, 2],
        peers: {},
      }
      writeFileSync(join(data, `n${node}/IDENTITY`), `${JSON.stringify(identity)}\n`)
    }
    return data
  }

  async function expectRefused(
    options: StartOptions & { data: string },
    named: string,
  ): Promise<void> {
    const before = snapshot(options.data)
    const { code, stderr, stdout } = await refused(options)
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" })
    expect(stderr.trimEnd().split("\n")).toHaveLength(1)
    expect(stderr).toContain(named)
    expect(snapshot(options.data)).toEqual(before)
  }

  test("another number of nodes than the data's", async () => {
    const data = dataOfTwo()
    await expectRefused({ nodes: 3, data }, `${data} holds a cluster of 2 nodes, not 3`)
  }, 30_000)

  test("a newer format, of the cluster or of one node", async () => {
    const data = dataOfTwo()
    edit(join(data, "n2/IDENTITY"), (identity) => ({ ...identity, format: 2 }))
    await expectRefused({ nodes: 2, data }, `${data}/n2/IDENTITY is of format 2`)
    edit(join(data, "cluster.json"), () => ({ format: 7, shards: 4 }))
    await expectRefused({ nodes: 2, data }, `${data}/cluster.json is of format 7`)
  }, 30_000)

  test("a node's folder of another cluster, or of another node", async () => {
    const data = dataOfTwo()
    edit(join(data, "n2/IDENTITY"), (identity) => ({ ...identity, clusterId: "two" }))
    await expectRefused({ nodes: 2, data }, `${data}/n2 belongs to another cluster (two)`)
    edit(join(data, "n2/IDENTITY"), (identity) => ({ ...identity, clusterId: "one", node: 1 }))
    await expectRefused({ nodes: 2, data }, `${data}/n2 is the data of node n1, not of n2`)
  }, 30_000)

  test("a node's folder that was emptied, or exchanged", async () => {
    const data = dataOfTwo()
    edit(join(data, "n1/IDENTITY"), (identity) => ({ ...identity, peers: { 2: "before" } }))
    await expectRefused({ nodes: 2, data }, `${data}/n2 is not the data with which n1 has known it`)
    unlinkSync(join(data, "n2/IDENTITY"))
    await expectRefused({ nodes: 2, data }, `${data}/n2 has lost its data: a node must`)
    await expectRefused({ nodes: 2, data }, "take it out with `kvorum node remove n2`")
  }, 30_000)

  test("a directory that holds something else", async () => {
    const data = folder()
    writeFileSync(join(data, "letters.txt"), "dear")
    await expectRefused({ nodes: 1, data }, `${data} holds letters.txt but no cluster.json`)
  }, 30_000)

  test("a port in use", async () => {
    const portBase = freePortBase(2)
    const data = dataOfTwo()
    const listener = Bun.listen({
      hostname: "127.0.0.1",
      port: portBase + 102,
      socket: { data() {} },
    })
    cleanups.push(() => listener.stop(true))
    await expectRefused({ nodes: 2, data, portBase }, `port ${portBase + 102}`)
  }, 30_000)

  test("a directory in use, by another start or by a node that runs on its own", async () => {
    const data = join(folder(), "data")
    const cluster = await started({ nodes: 1, data })
    const other = await refused({ nodes: 1, data })
    expect(other).toMatchObject({ code: 1, stdout: "" })
    expect(other.stderr).toContain(`${data}/n1 is in use by process`)
    const member = `1=127.0.0.1:${freePortBase(1) + 101}`
    const serve = await kvorum(["serve", "--data", `${data}/n1`, "--id", "1", "--cluster", member])
    expect(serve).toMatchObject({ code: 1, stdout: "" })
    expect(serve.stderr).toContain("is in use by process")
    // Killed outright, it leaves no lock behind.
    const pids = await pidsOf(cluster)
    await cluster.stop("SIGKILL")
    await allGone(pids)
    await started({ nodes: 1, data })
  }, 60_000)

  test("wrong numbers are wrong use", async () => {
    for (const words of [
      ["--nodes", "0"],
      ["--nodes", "10"],
      ["--port-base", "100"],
    ]) {
      expect(await kvorum(["start", ...words])).toMatchObject({ code: 2, stdout: "" })
    }
  }, 30_000)
})

describe("when a process dies", () => {
  test("a node: start says so, with a command that brings it back", async () => {
    const cluster = await started({ nodes: 3, data: join(folder(), "data") })
    const { nodes } = await statusOf(cluster.endpoints)
    const victim = nodes.find(({ id }) => id === "n2")
    process.kill((victim as { pid: number }).pid, "SIGKILL")
    await until("the death is reported", () => cluster.stderr.text.includes("Node n2 (pid"))
    const command = /^ {4}npx kvorum (serve .*--id 2 .*)$/m.exec(cluster.stderr.text)?.[1] as string
    await until("it counts as unreachable", async () => {
      return (await statusOf(cluster.endpoints)).unreachable.join() === "n2"
    })
    const put = ["put", "default", "while-away", "x", "--endpoints", cluster.endpoints]
    expect((await kvorum(put)).code).toBe(0)
    const child = Bun.spawn([bunPath, mainPath, ...command.split(" ")], {
      cwd: root,
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    })
    cleanups.push(() => {
      child.kill("SIGKILL")
      return child.exited
    })
    await until("all three are ready", async () => {
      const status = await statusOf(cluster.endpoints)
      return status.nodes.filter(({ state }) => state === "ready").length === 3
    })
    expect(await cluster.stop("SIGINT")).toBe(0)
    // It runs on its own.
    expect(isAlive(child.pid)).toBe(true)
  }, 90_000)

  test("start itself, by kill -9: its nodes stop", async () => {
    const cluster = await started({ nodes: 3, data: join(folder(), "data") })
    const pids = await pidsOf(cluster)
    await cluster.stop("SIGKILL")
    await allGone(pids)
  }, 60_000)

  test("npm, by kill -9: start and its nodes stop", async () => {
    const portBase = freePortBase(3)
    const command = ["npm", "start", "--"]
    const data = join(folder(), "data")
    const cluster = await started({ nodes: 3, portBase, data, command })
    const pids = await pidsOf(cluster)
    const supervisor = Number(
      /^\S+ \(.*\) \S (\d+)/.exec(readFileSync(`/proc/${pids[0]}/stat`, "utf8"))?.[1],
    )
    expect(supervisor).not.toBe(cluster.child.pid)
    await cluster.stop("SIGKILL")
    await allGone([supervisor, ...pids])
  }, 60_000)

  test("npm, by Ctrl-C: everything stops", async () => {
    const portBase = freePortBase(1)
    const command = ["npm", "start", "--"]
    const options = { nodes: 1, portBase, ephemeral: true, command, ownGroup: true }
    const cluster = await started(options)
    const pids = await pidsOf(cluster)
    // A terminal sends it to every process of the group.
    process.kill(-cluster.child.pid, "SIGINT")
    await cluster.child.exited
    await allGone(pids)
  }, 60_000)

  test("npm alone, by kill -INT: it hands the signal on, and everything stops", async () => {
    const command = ["npm", "start", "--"]
    const cluster = await started({ nodes: 1, portBase: freePortBase(1), ephemeral: true, command })
    const pids = await pidsOf(cluster)
    process.kill(cluster.child.pid, "SIGINT")
    await cluster.child.exited
    await allGone(pids)
  }, 60_000)

  test("all nodes: start ends with 1", async () => {
    const cluster = await started({ nodes: 1, ephemeral: true })
    for (const pid of await pidsOf(cluster)) process.kill(pid, "SIGKILL")
    expect(await cluster.child.exited).toBe(1)
    await cluster.stderr.done
    expect(cluster.stderr.text).toContain("no node is left")
  }, 60_000)
})

describe("serve", () => {
  function serving(words: ReadonlyArray<string>) {
    const data = join(folder(), "one")
    const child = Bun.spawn([bunPath, mainPath, "serve", "--data", data, ...words], {
      cwd: root,
      stdin: "pipe",
      stdout: "pipe",
      stderr: "pipe",
    })
    cleanups.push(() => {
      child.kill("SIGKILL")
      return child.exited
    })
    return { child, stderr: new Output(child.stderr) }
  }

  test("with --data alone is a cluster of one at the usual ports, or says that they are taken", async () => {
    const { stderr } = serving([])
    await until("it names its port", () => /127\.0\.0\.1:7[45]01/.test(stderr.text))
  }, 60_000)

  test("one node is a cluster of one; under another process it ends with its stdin", async () => {
    const portBase = freePortBase(1)
    const member = `1=127.0.0.1:${portBase + 101}`
    const { child, stderr } = serving(["--id", "1", "--cluster", member, "--stop-with-stdin"])
    await until("it is up", () => stderr.text.includes("n1 is up"))
    const endpoints = endpointsOf(portBase, 1)
    const put = ["put", "default", "a", "b", "--endpoints", endpoints]
    expect((await kvorum(put)).code).toBe(0)
    child.stdin.end()
    expect(await child.exited).toBe(0)
  }, 60_000)

  test("refuses to join a running cluster, and directories that are not its own", async () => {
    const data = join(folder(), "data")
    const cluster = await started({ nodes: 2, data })
    const members = [1, 2, 3].map((id) => `${id}=127.0.0.1:${cluster.portBase + 100 + id}`).join()
    const fresh = join(folder(), "n3")
    const join3 = await kvorum(["serve", "--data", fresh, "--id", "3", "--cluster", members])
    expect(join3).toMatchObject({ code: 1, stdout: "" })
    expect(join3.stderr).toContain(
      "belongs to a running cluster of n1, n2: a further node joins it with --join",
    )
    expect(existsSync(fresh)).toBe(false)
    await cluster.stop("SIGTERM")
    const grown = await kvorum(["serve", "--data", `${data}/n1`, "--id", "1", "--cluster", members])
    expect(grown).toMatchObject({ code: 1, stdout: "" })
    expect(grown.stderr).toContain(`${data}/n1 belongs to a cluster of n1, n2`)
    expect(grown.stderr).toContain("(--id 1 --cluster 1=HOST:PORT,2=HOST:PORT)")
    const two = members.split(",").slice(0, 2).join()
    const swapped = await kvorum(["serve", "--data", `${data}/n1`, "--id", "2", "--cluster", two])
    expect(swapped).toMatchObject({ code: 1, stdout: "" })
    expect(swapped.stderr).toContain("is the data of node n1, not of n2")
    const whole = await kvorum(["serve", "--data", data])
    expect(whole).toMatchObject({ code: 1, stdout: "" })
    expect(whole.stderr).toContain("is the data of `kvorum start`")
    // Damage that the node must read to start.
    const manifest = join(data, "n1/engine/00000001.manifest")
    const bytes = readFileSync(manifest)
    bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] as number) ^ 1
    writeFileSync(manifest, bytes)
    const hurt = await kvorum(["serve", "--data", `${data}/n1`, "--id", "1", "--cluster", two])
    expect(hurt).toMatchObject({ code: 1, stdout: "" })
    expect(hurt.stderr).toContain(`${data}/n1 is damaged where the node must read it: engine/`)
    expect(hurt.stderr).toContain("take this one out (kvorum node remove)")
  }, 90_000)

  test("wrong members are wrong use", async () => {
    const wrong = [
      ["--id", "2"],
      ["--id", "3", "--cluster", "1=a:7501,2=b:7502"],
      ["--cluster", "1=a:7501"],
      ["--id", "1", "--cluster", "1=a:50"],
    ]
    for (const words of wrong) {
      const finished = await kvorum(["serve", "--data", "/nonexistent", ...words])
      expect({ words, code: finished.code }).toEqual({ words, code: 2 })
    }
  }, 60_000)
})
