import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { bunPath, kvorum, mainPath, root } from "./Command.ts"
import { proxyHost } from "./PeerProxy.ts"
import { freePortBase } from "./Ports.ts"

/**
 * Clusters of real processes for tests: `startCluster` runs what `npm start` runs, `NodeSet` runs each node by itself, so that a test can kill
 * and restart it. Both end with the test process, whatever becomes of it, and only processes started here are ever killed, by id.
 */

/** A folder that `remove` takes away. */
export function temporaryFolder(): { readonly path: string; readonly remove: () => void } {
  const path = mkdtempSync(join(tmpdir(), "kvorum-test-"))
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) }
}

/** True while a process runs; one that has ended but was not yet collected by its parent counts as gone. */
export function isAlive(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1")
    return stat.slice(stat.lastIndexOf(")") + 2, stat.lastIndexOf(")") + 3) !== "Z"
  } catch {
    if (existsSync("/proc/self")) return false
  }
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

/** Waits until `condition` holds; fails by name after `limitMs`, which is a limit for hanging, not a measurement. */
export async function until(
  name: string,
  condition: () => boolean | Promise<boolean>,
  limitMs = 30_000,
): Promise<void> {
  const end = performance.now() + limitMs
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`still not so after ${limitMs} ms: ${name}`)
    await Bun.sleep(20)
  }
}

export interface NodeLine {
  readonly id: string
  readonly pid: number
  readonly state: string
  readonly addresses: { readonly client: string; readonly peer: string }
}

export interface StatusLine {
  readonly nodes: ReadonlyArray<NodeLine>
  readonly unreachable: ReadonlyArray<string>
}

export async function statusOf(endpoints: string): Promise<StatusLine> {
  const { code, stdout, stderr } = await kvorum(["status", "--endpoints", endpoints, "--json"])
  if (code !== 0) throw new Error(`kvorum status exited with ${code}: ${stderr}`)
  return JSON.parse(stdout.trim().split("\n").at(-1) as string)
}

export function endpointsOf(portBase: number, nodes: number): string {
  return Array.from({ length: nodes }, (_, i) => `127.0.0.1:${portBase + 1 + i}`).join(",")
}

/** Collects what a process writes, so that a failing test can show it. */
export class Output {
  text = ""
  readonly done: Promise<void>
  constructor(stream: ReadableStream<Uint8Array>) {
    this.done = this.collect(stream).catch(() => undefined)
  }
  private async collect(stream: ReadableStream<Uint8Array>) {
    const decoder = new TextDecoder()
    const reader = stream.getReader()
    for (;;) {
      const { done, value } = await reader.read()
      if (done) return
      this.text += decoder.decode(value, { stream: true })
    }
  }
}

export interface StartOptions {
  readonly nodes: number
  readonly portBase?: number
  readonly data?: string
  readonly ephemeral?: boolean
  /** In place of running the command itself: `["npm", "start", "--"]`, for example. */
  readonly command?: ReadonlyArray<string>
  readonly cwd?: string
  /** In a process group of its own, as a terminal runs a command. */
  readonly ownGroup?: boolean
  readonly environment?: Readonly<Record<string, string | undefined>>
}

export class ClusterProcess {
  readonly portBase: number
  readonly endpoints: string
  readonly stdout: Output
  readonly stderr: Output
  readonly child: Bun.Subprocess<"ignore", "pipe", "pipe">

  constructor(options: StartOptions) {
    this.portBase = options.portBase ?? freePortBase(options.nodes)
    this.endpoints = endpointsOf(this.portBase, options.nodes)
    const command = options.command ?? [bunPath, mainPath, "start"]
    const words = ["--nodes", String(options.nodes), "--port-base", String(this.portBase)]
    if (options.data !== undefined) words.push("--data", options.data)
    if (options.ephemeral === true) words.push("--ephemeral")
    this.child = Bun.spawn([...command, ...words], {
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
      cwd: options.cwd ?? root,
      detached: options.ownGroup === true,
      env: { ...process.env, npm_lifecycle_event: undefined, ...options.environment },
    })
    this.stdout = new Output(this.child.stdout)
    this.stderr = new Output(this.child.stderr)
  }

  get log(): string {
    return `${this.stdout.text}${this.stderr.text}`
  }

  async ready(): Promise<void> {
    await until(
      `the cluster is ready\n`,
      () => {
        if (this.child.exitCode !== null) throw new Error(`start ended early:\n${this.log}`)
        return this.stdout.text.includes("Ctrl-C stops all nodes.")
      },
      60_000,
    ).catch((error) => {
      throw new Error(`${error.message}\n${this.log}`)
    })
  }

  /** As Ctrl-C or `kill` do; resolves with the exit code. */
  async stop(signal: NodeJS.Signals = "SIGTERM"): Promise<number> {
    this.child.kill(signal)
    const code = await this.child.exited
    // A process that outlives it wrongly may still hold its pipes.
    await Promise.race([Promise.all([this.stdout.done, this.stderr.done]), Bun.sleep(2000)])
    return code
  }
}

/** Starts a cluster and waits until it says that it is ready. */
export async function startCluster(options: StartOptions): Promise<ClusterProcess> {
  const cluster = new ClusterProcess(options)
  try {
    await cluster.ready()
    return cluster
  } catch (error) {
    await cluster.stop("SIGKILL")
    throw error
  }
}

/** Nodes as processes of their own, each with a pipe on stdin that ends with this process. */
export class NodeSet {
  readonly portBase: number
  readonly nodes: number
  readonly endpoints: string
  readonly directory: string
  private readonly children = new Map<number, Bun.Subprocess<"pipe", "pipe", "pipe">>()
  private readonly outputs = new Map<number, ReadonlyArray<Output>>()

  private readonly behindProxy: boolean
  private joined = 0

  constructor(options: {
    readonly nodes: number
    readonly directory: string
    /** Ports to keep for nodes that join. */
    readonly more?: number
    /** Others know a node by the address of a proxy that stands before it (PeerProxy.ts). */
    readonly behindProxy?: boolean
  }) {
    this.nodes = options.nodes
    this.behindProxy = options.behindProxy === true
    this.directory = options.directory
    this.portBase = freePortBase(options.nodes + (options.more ?? 0))
    this.endpoints = endpointsOf(this.portBase, options.nodes)
  }

  get ids(): ReadonlyArray<number> {
    return Array.from({ length: this.nodes }, (_, i) => i + 1)
  }

  endpoint(id: number): string {
    return `127.0.0.1:${this.portBase + id}`
  }

  start(id: number): void {
    const hostOf = (other: number) => (this.behindProxy ? proxyHost(other) : "127.0.0.1")
    const members = this.ids.map(
      (other) => `${other}=${hostOf(other)}:${this.portBase + 100 + other}`,
    )
    const data = join(this.directory, `n${id}`)
    mkdirSync(this.directory, { recursive: true })
    const words = ["serve", "--id", String(id), "--data", data, "--cluster", members.join(",")]
    if (this.behindProxy) words.push("--host", "127.0.0.1")
    this.spawn(id, words)
  }

  private spawn(id: number, words: ReadonlyArray<string>): void {
    const child = Bun.spawn([bunPath, mainPath, ...words, "--stop-with-stdin"], {
      stdin: "pipe",
      stdout: "pipe",
      stderr: "pipe",
      cwd: root,
    })
    this.children.set(id, child)
    this.outputs.set(id, [new Output(child.stdout), new Output(child.stderr)])
  }

  /** Starts a further node, which joins by way of n1, and returns its id when it is up. One after another: they take the next ports that are free. It is not among `ids`. */
  async join(): Promise<number> {
    const id = this.nodes + ++this.joined
    const data = join(this.directory, `n${id}`)
    this.spawn(id, ["serve", "--join", this.endpoint(1), "--data", data])
    await until(`n${id} is up`, () => this.log(id).includes(`n${id} is up: `), 60_000)
    return id
  }

  startAll(): void {
    for (const id of this.ids) this.start(id)
  }

  pid(id: number): number {
    return (this.children.get(id) as Bun.Subprocess).pid
  }

  /** What node `id` has said since it was started last. */
  log(id: number): string {
    return (this.outputs.get(id) ?? []).map((output) => output.text).join("")
  }

  get logs(): string {
    return this.ids.map((id) => `--- n${id}\n${this.log(id)}`).join("\n")
  }

  /** Nodes that ended without having been killed. */
  get fallen(): ReadonlyArray<number> {
    return this.ids.filter((id) => (this.children.get(id)?.exitCode ?? null) !== null)
  }

  kill(ids: ReadonlyArray<number>): void {
    for (const id of ids) this.children.get(id)?.kill("SIGKILL")
  }

  /** For example SIGSTOP; one that was stopped can still be killed. */
  signal(id: number, signal: NodeJS.Signals): void {
    this.children.get(id)?.kill(signal)
  }

  async killed(ids: ReadonlyArray<number>): Promise<void> {
    this.kill(ids)
    await Promise.all(ids.map((id) => this.children.get(id)?.exited))
  }

  async stop(): Promise<void> {
    await this.killed([...this.children.keys()])
  }
}
