import type { RangeReport } from "../../src/wire/answers.ts"
import { violationsOf } from "../jepsen/check.ts"
import { fromJsonLines, toJsonLines } from "../jepsen/history.ts"
import { NodeSet, temporaryFolder, until } from "./Cluster.ts"
import { kvorum } from "./Command.ts"
import { FaultLoad } from "./FaultLoad.ts"
import { NodeReader } from "./NodeReader.ts"
import { PeerProxy } from "./PeerProxy.ts"
import { findStrace, type Injection, injectInto } from "./Strace.ts"

/**
 * One fault at a time against three real nodes under load, and what clients saw of it: for how long the ranges that the struck node led took no
 * writes, which calls failed, and whether the history is linearizable.
 */
export type FaultName =
  | "killed"
  | "paused"
  | "deaf"
  | "mute"
  | "stalled"
  | "follower"
  | "split"
  | "merge"

export const faultNames: Readonly<Record<FaultName, string>> = {
  killed: "leader killed",
  paused: "leader paused (SIGSTOP)",
  mute: "leader cut one way: nothing that it sends arrives",
  deaf: "leader cut one way: it hears nothing",
  stalled: "leader's disk stalled",
  follower: "follower killed",
  split: "range split",
  merge: "two ranges merged",
}

/** Why a fault cannot be made here, or `undefined`. */
export function faultProblem(fault: FaultName): string | undefined {
  if (fault === "stalled" && findStrace() === undefined) {
    return "SKIPPED: install strace, on Debian `apt-get install strace`; needs Linux"
  }
  if ((fault === "mute" || fault === "deaf") && process.platform !== "linux") {
    return "SKIPPED: needs the whole of 127.0.0.0/8 to be this machine, as on Linux"
  }
  return undefined
}

/** Cuts are made where a proxy stands between the nodes. */
export function needsProxy(fault: FaultName): boolean {
  return fault === "mute" || fault === "deaf"
}

export interface FaultResult {
  /** Of each range that the struck node led (for a killed follower: of every range). */
  readonly gapsMs: ReadonlyArray<number>
  readonly errors: ReadonlyMap<string, number>
  readonly violations: ReadonlyArray<string>
  readonly calls: number
  readonly history: FaultLoad["recorder"]["events"]
}

/** Three nodes, as long as `use` runs. */
export class FaultCluster {
  readonly nodes: NodeSet
  readonly proxy = new PeerProxy()
  private readonly folder = temporaryFolder()
  private injection: Injection | undefined
  private order: Promise<string> | undefined

  constructor(behindProxy: boolean) {
    this.nodes = new NodeSet({ nodes: 3, directory: this.folder.path, behindProxy })
  }

  static async open(options: { readonly behindProxy: boolean }): Promise<FaultCluster> {
    const { behindProxy } = options
    const cluster = new FaultCluster(behindProxy)
    try {
      const { nodes, proxy } = cluster
      if (behindProxy) await proxy.open(nodes.ids, nodes.portBase)
      nodes.startAll()
      await cluster.settled()
      return cluster
    } catch (error) {
      console.error(cluster.nodes.logs)
      await cluster.close()
      throw error
    }
  }

  /**
   * Waits until every node knows the leader of every range, and has applied what the furthest has: one fault at a time is what three nodes bear, and one
   * that has just come back counts as a fault. Returns what the last one said.
   */
  async settled(): Promise<ReadonlyArray<RangeReport>> {
    let reports: ReadonlyArray<RangeReport> = []
    await until("every node follows or leads every range", async () => {
      const furthest = new Map<number, number>()
      let isLed = true
      for (let pass = 0; pass < 2; pass++) {
        for (const id of this.nodes.ids) {
          reports = await reportsOf(this.nodes.endpoint(id))
          isLed &&= reports.length > 0 && reports.every(({ leader }) => leader !== undefined)
          for (const { descriptor, index } of reports) {
            if (pass === 0)
              furthest.set(descriptor.id, Math.max(index, furthest.get(descriptor.id) ?? 0))
            else isLed &&= index >= (furthest.get(descriptor.id) ?? 0)
          }
        }
      }
      return isLed
    })
    return reports
  }

  begin(fault: FaultName, node: number, ranges: ReadonlyArray<number>): void {
    const others = this.nodes.ids.filter((id) => id !== node)
    switch (fault) {
      case "killed":
      case "follower":
        return this.nodes.kill([node])
      case "paused":
        return this.nodes.signal(node, "SIGSTOP")
      case "mute":
        for (const other of others) this.proxy.cut(node, other)
        return
      case "deaf":
        for (const other of others) this.proxy.cut(other, node)
        return
      case "stalled":
        this.injection = injectInto(this.nodes.pid(node), "fdatasync:delay_enter=60000000")
        return
      case "split":
        this.order = this.command("split", ranges.slice(0, 1))
        return
      case "merge":
        this.order = this.command("merge", ranges)
        return
      default:
        fault satisfies never
    }
  }

  async end(fault: FaultName, node: number, ranges: ReadonlyArray<number>): Promise<void> {
    switch (fault) {
      case "killed":
      case "follower":
        await this.nodes.killed([node])
        return this.nodes.start(node)
      case "paused":
        return this.nodes.signal(node, "SIGCONT")
      case "mute":
      case "deaf":
        return this.proxy.heal()
      case "stalled":
        await this.injection?.stop()
        return
      // As many as before, for the next: keys of a range that is halved again and again are hard to find.
      case "split": {
        const halves = ((await this.order) ?? "").split(" ").map(Number)
        await this.command("merge", halves)
        return
      }
      case "merge":
        await this.order
        await this.command("split", ranges.slice(0, 1))
        return
      default:
        fault satisfies never
    }
  }

  private async command(verb: "split" | "merge", ranges: ReadonlyArray<number>): Promise<string> {
    const words = ["range", verb, ...ranges.map(String), "--endpoints", this.nodes.endpoints]
    const { code, stdout, stderr } = await kvorum(words)
    if (code !== 0) throw new Error(`kvorum range ${verb} exited with ${code}: ${stderr}`)
    return stdout.trim()
  }

  async close(): Promise<void> {
    await this.injection?.stop()
    await this.nodes.stop()
    this.proxy.close()
    this.folder.remove()
  }
}

/** Nothing when the node does not answer. */
async function reportsOf(endpoint: string): Promise<ReadonlyArray<RangeReport>> {
  try {
    const reader = await NodeReader.open(endpoint)
    const reports = await reader.reports()
    reader.close()
    return reports
  } catch {
    return []
  }
}

/** The node that leads most ranges of namespace `default`, and those; of nodes that lead none, nothing can be learned. */
function busiest(reports: ReadonlyArray<RangeReport>): { node: number; ranges: Array<number> } {
  const led = new Map<number, Array<number>>()
  for (const { descriptor, leader } of reports) {
    if (descriptor.namespace !== 1 || leader === undefined) continue
    led.set(leader, [...(led.get(leader) ?? []), descriptor.id])
  }
  const [node, ranges] = [...led].sort((left, right) => right[1].length - left[1].length)[0] ?? []
  if (node === undefined || ranges === undefined) throw new Error("nothing is led")
  return { node, ranges }
}

/** Strikes once under load. `lastsMs` after that the fault ends, and writes must go on everywhere. */
export async function strike(
  cluster: FaultCluster,
  fault: FaultName,
  options: { readonly lastsMs: number; readonly seed: number },
): Promise<FaultResult> {
  const reports = await cluster.settled()
  const led = busiest(reports)
  // A follower of all: the one that leads least.
  const ledBy = (id: number) => reports.filter(({ leader }) => leader === id).length
  const idle = [...cluster.nodes.ids].sort((left, right) => ledBy(left) - ledBy(right))[0] as number
  const node = fault === "follower" ? idle : led.node
  const isUser = ({ descriptor }: RangeReport) => descriptor.namespace === 1
  const others = reports.filter((each) => isUser(each) && each.leader !== node)
  const neighbours = reports.filter(isUser).map(({ descriptor }) => descriptor.id)
  const single = fault === "split" ? led.ranges.slice(0, 1) : led.ranges
  const struck = fault === "merge" ? neighbours.slice(0, 2) : single
  const ranges = fault === "follower" ? others.map(({ descriptor }) => descriptor.id) : struck
  const load = new FaultLoad({
    endpoints: cluster.nodes.endpoints.split(","),
    ranges: reports,
    seed: options.seed,
    name: `${fault}-${options.seed}`,
    deadlineMs: 15_000,
  })
  try {
    load.start()
    const all = reports.filter(isUser).map(({ descriptor }) => descriptor.id)
    const writes = (name: string, sinceMs: number) =>
      until(name, () => all.every((range) => load.writesSince(range, sinceMs) >= 20))
    await writes("writes succeed before the fault", 0)
    const beganMs = performance.now()
    load.recorder.nemesis(fault, `n${node}`)
    cluster.begin(fault, node, ranges)
    await until("writes go on", () =>
      ranges.every((range) => load.writesSince(range, beganMs + 100) >= 10),
    )
    // A fault that ended with the first success would not show what comes after it.
    await Bun.sleep(Math.max(0, beganMs + options.lastsMs - performance.now()))
    const gapsMs = ranges.map((range) => load.gapMs(range, beganMs))
    await cluster.end(fault, node, ranges)
    load.recorder.nemesis(`${fault} ended`, `n${node}`)
    await writes("writes succeed after the fault", performance.now())
    await load.stop()
    const history = load.recorder.events
    // What an outsider would read, not what lies in memory.
    const violations = [...violationsOf(fromJsonLines(toJsonLines(history))), ...load.broken]
    return { gapsMs, errors: load.errors, violations, calls: load.succeeded, history }
  } finally {
    await load.dispose()
  }
}
