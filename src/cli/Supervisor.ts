import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { Deferred, Effect } from "effect"
import { formatMembers, type Member } from "./addresses.ts"

/**
 * Runs the nodes of a cluster as child processes.
 *
 * - Each node holds the reading end of a pipe whose other end only the supervisor has. The kernel closes it however the supervisor ends,
 *   `kill -9` included, and the node then stops by itself.
 * - A node that dies is reported, with the command that starts it again, and is not started by the supervisor: a
 *   crash that repeats itself must be seen, not hidden.
 * - Nodes do not see the terminal's Ctrl-C: they have sessions of their own, so that one process decides when all of them stop.
 *
 * Left out: when the supervisor itself is killed outright, the folder of an `--ephemeral` cluster stays behind. Its nodes could remove it as they
 * stop, but a switch that makes a node delete its data is not worth having for that.
 */
export interface NodeProcess {
  readonly id: number
  readonly pid: number
  readonly exited: Promise<number>
  readonly kill: (signal: NodeJS.Signals) => void
  alive: boolean
}

export interface NodePlan {
  readonly id: number
  readonly directory: string
  /** Those that the cluster began with; `undefined` of a node that joined later, whose directory knows its cluster. */
  readonly founders: ReadonlyArray<Member> | undefined
}

/** Time for a node to stop by itself; then it is killed. All of them together must be gone within 3 s. */
const stopGraceMs = 2_000

/**
 * How a node's runtime compiles. Its last and dearest compiler makes code that mostly waits for disks and sockets hardly faster, and takes over a quarter of the
 * node's processor time in its first quarter of a minute under load: so it is kept for what runs sixteen times as often as it asks for by itself. What the
 * environment says goes before.
 */
export const runtimeSettings = { BUN_JSC_thresholdForFTLOptimizeAfterWarmUp: "1000000" }

const mainPath = fileURLToPath(new URL("../main.ts", import.meta.url))

function serveArguments(plan: NodePlan): ReadonlyArray<string> {
  const words = ["serve", "--data", plan.directory]
  if (plan.founders === undefined) return words
  return [...words, "--id", String(plan.id), "--cluster", formatMembers(plan.founders)]
}

function quote(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`
}

/** What a person types to start this one node. */
export function restartCommand(plan: NodePlan): string {
  return ["npx", "kvorum", ...serveArguments(plan).map(quote)].join(" ")
}

/** Starts a node, which the caller must stop. Every line that it writes goes to `onLine`, all of them before `onExit`. */
export function spawnNodeUnsafe(
  plan: NodePlan,
  events: {
    readonly onLine: (plan: NodePlan, line: string) => void
    readonly onExit: (node: NodeProcess, code: number) => void
  },
): NodeProcess {
  const child = Bun.spawn(
    [process.execPath, mainPath, ...serveArguments(plan), "--stop-with-stdin"],
    {
      stdin: "pipe",
      stdout: "pipe",
      stderr: "pipe",
      detached: true,
      env: { ...runtimeSettings, ...process.env },
    },
  )
  const node: NodeProcess = {
    id: plan.id,
    pid: child.pid,
    exited: child.exited,
    kill: (signal) => child.kill(signal),
    alive: true,
  }
  const onLine = (line: string) => events.onLine(plan, line)
  const copied = [eachLine(child.stdout, onLine), eachLine(child.stderr, onLine)]
  void child.exited.then((code) =>
    // Its last words first.
    Promise.all(copied).then(() => {
      node.alive = false
      events.onExit(node, code)
    }),
  )
  return node
}

function eachLine(
  stream: ReadableStream<Uint8Array>,
  onLine: (line: string) => void,
): Promise<void> {
  const decoder = new TextDecoder()
  let rest = ""
  const reader = stream.getReader()
  const next = (): Promise<void> =>
    reader.read().then(({ done, value }) => {
      rest += done ? decoder.decode() : decoder.decode(value, { stream: true })
      const lines = rest.split("\n")
      rest = lines.pop() as string
      for (const line of lines) onLine(line)
      if (!done) return next()
      if (rest !== "") onLine(rest)
      return undefined
    })
  return next().catch(() => undefined)
}

const stopNode = (node: NodeProcess): Effect.Effect<void> =>
  Effect.suspend(() => {
    if (!node.alive) return Effect.void
    node.kill("SIGTERM")
    const exited = Effect.promise(() => node.exited)
    return exited.pipe(
      Effect.timeoutOrElse({
        duration: stopGraceMs,
        orElse: () => {
          node.kill("SIGKILL")
          return exited
        },
      }),
      Effect.asVoid,
    )
  })

/** Stops all nodes at the same time. */
export const stopNodes = (nodes: ReadonlyArray<NodeProcess>): Effect.Effect<void> =>
  Effect.forEach(nodes, stopNode, { concurrency: "unbounded", discard: true })

/**
 * True when whoever started this process told it to outlive its terminal, as `nohup` does. Bit 0 of SigIgn is SIGHUP (proc(5)); a handler
 * would undo that wish.
 */
function ignoresHangup(): boolean {
  try {
    const mask = /^SigIgn:\s*([0-9a-f]+)$/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1]
    return mask !== undefined && (Number.parseInt(mask.slice(-1), 16) & 1) === 1
  } catch {
    return false
  }
}

/** Ends when the terminal hangs up, or when `alive` is no longer true, looked at four times a second. */
export const untilAbandoned = Effect.fnUntraced(function* (alive: () => boolean) {
  const abandoned = yield* Deferred.make<void>()
  const onHangup = () => Deferred.doneUnsafe(abandoned, Effect.void)
  if (!ignoresHangup()) {
    yield* Effect.acquireRelease(
      Effect.sync(() => process.on("SIGHUP", onHangup)),
      () => Effect.sync(() => process.removeListener("SIGHUP", onHangup)),
    )
  }
  const watch = Effect.gen(function* () {
    while (alive()) yield* Effect.sleep("250 millis")
  })
  yield* Effect.raceFirst(Deferred.await(abandoned), watch)
})
