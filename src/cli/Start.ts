import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmdirSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join, relative, resolve } from "node:path"
import { Deferred, Effect } from "effect"
import { FileDisk } from "../disk/FileDisk.ts"
import { utf8 } from "../lib/bytes.ts"
import {
  clientOf,
  formatAddress,
  localMembers,
  type Member,
  nodesMax,
  parseNode,
  portBaseDefault,
  portBaseProblem,
} from "./addresses.ts"
import { awaitLeaders } from "./Cluster.ts"
import { clusterFileName, formatClusterData, nodeDirectory } from "./clusterData.ts"
import { Command, Flag } from "./EffectCli.ts"
import * as Flags from "./Flags.ts"
import { joinedMember } from "./Join.ts"
import { NodeLines, tellsOfRemoval } from "./nodeLines.ts"
import { type CommandEnded, note, print, refusal, usageError } from "./Output.ts"
import { parents, parentsAlive } from "./Parents.ts"
import { nodeName } from "./receipts.ts"
import { checkDirectory, checkPorts, holdDirectory, removedNodes } from "./StartChecks.ts"
import {
  type NodePlan,
  type NodeProcess,
  restartCommand,
  spawnNodeUnsafe,
  stopNodes,
  untilAbandoned,
} from "./Supervisor.ts"

const dataDefault = ".kvorum"
/** A start with much data to recover takes its time, but one that never ends must say so. */
const readyLimitMs = 60_000
const readyNoticeMs = 10_000

interface StartOptions {
  readonly nodes: number
  readonly data: string | undefined
  readonly portBase: number
  readonly host: string
  readonly ephemeral: boolean
}

export const start = Command.make(
  "start",
  {
    nodes: Flag.Int("nodes").pipe(
      Flag.withMetavar("N"),
      Flag.withDescription(
        `How many nodes, 1 to ${nodesMax} (3); the same as when the data was made`,
      ),
      Flag.withDefault(3),
    ),
    data: Flags.maybe(
      Flags.data.pipe(
        Flag.withDescription(`Where the data is kept, a folder for each node (${dataDefault})`),
      ),
    ),
    portBase: Flag.Int("port-base").pipe(
      Flag.withMetavar("N"),
      Flag.withDescription(
        `Node i takes clients at port N + i and other nodes at N + 100 + i (${portBaseDefault})`,
      ),
      Flag.withDefault(portBaseDefault),
    ),
    host: Flags.host.pipe(
      Flag.withDescription("The address that every node binds (127.0.0.1)"),
      Flag.withDefault("127.0.0.1"),
    ),
    ephemeral: Flags.toggle(
      "ephemeral",
      "Keep the data in a temporary folder (inside --data DIR, if given) and remove it at the end",
    ),
  },
  (options) => Effect.scoped(runCluster(options)),
).pipe(
  Command.withShortDescription("Start a cluster on this machine"),
  Command.withDescription(
    "Starts a cluster of node processes on this machine and keeps it until Ctrl-C. A second start finds the data of the first. " +
      "Nodes that have joined it since (kvorum serve --join) are started too if their data is a folder beside the others, such as .kvorum/n4. " +
      "A node that dies is reported with the command that starts it again; it is not restarted.",
  ),
  Command.withExamples([
    { command: "npm start", description: "three nodes, clients at 127.0.0.1:7401 to 7403" },
    {
      command: "npm start -- --nodes 5 --data /var/tmp/five --port-base 7800",
      description: "five nodes elsewhere",
    },
    { command: "npm start -- --ephemeral", description: "a cluster that leaves nothing behind" },
  ]),
)

const runCluster = Effect.fnUntraced(function* (options: StartOptions) {
  const { nodes, portBase, host } = options
  if (nodes < 1 || nodes > nodesMax) return yield* usageError(`--nodes must be 1 to ${nodesMax}`)
  const problem = portBaseProblem(portBase)
  if (problem !== undefined) return yield* usageError(problem)
  const all = localMembers({ nodes, host, portBase })
  const chain = process.env.npm_lifecycle_event === undefined ? [] : parents()
  const removed = yield* attempt(() =>
    options.ephemeral ? new Set<number>() : removedNodes(resolve(options.data ?? dataDefault)),
  )
  // A node that has joined since may have the address of one that was removed.
  const members = all.filter(({ id }) => !removed.has(id))
  yield* checkPorts(members)
  const directory = yield* prepareDirectory(options, removed)
  const joined = (yield* attempt(() => joinedMembers(directory, nodes))).filter(
    ({ id }) => !removed.has(id),
  )
  yield* checkPorts(joined)
  for (const id of removed) {
    yield* note(`n${id} was removed from this cluster: it is not started`)
  }
  if (members.length + joined.length === 0) {
    return yield* refusal(`${directory} holds no node that is still of its cluster`)
  }
  const founders = members.map(
    ({ id }): NodePlan => ({ id, directory: join(directory, nodeDirectory(id)), founders: all }),
  )
  const others = joined.map(
    ({ id }): NodePlan => ({
      id,
      directory: join(directory, nodeDirectory(id)),
      founders: undefined,
    }),
  )
  const supervise = superviseNodes({
    plans: [...founders, ...others],
    members: [...members, ...joined],
    place: placeFlags(all),
    directory,
    ephemeral: options.ephemeral,
  })
  const abandoned = untilAbandoned(() => parentsAlive(chain)).pipe(
    Effect.andThen(note("The process that started this cluster has gone.")),
  )
  yield* Effect.raceFirst(supervise, abandoned)
})

const attempt = <A>(read: () => A) =>
  Effect.try({ try: read, catch: (error) => refusal((error as Error).message) })

/** Nodes that joined later and have their folder beside those that the cluster began with, in order of id. */
function joinedMembers(directory: string, founders: number): ReadonlyArray<Member> {
  const members: Array<Member> = []
  for (const name of readdirSync(directory)) {
    const id = parseNode(name)
    if (id === undefined || id <= founders || name !== nodeDirectory(id)) continue
    const member = joinedMember(join(directory, name))
    if (member?.id === id) members.push(member)
  }
  return members.sort((left, right) => left.id - right.id)
}

/** The directory to use, locked until the scope closes. Nothing is made before everything has been checked. */
const prepareDirectory = Effect.fnUntraced(function* (
  options: StartOptions,
  removed: ReadonlySet<number>,
) {
  const given = options.data === undefined ? undefined : resolve(options.data)
  if (options.ephemeral) return yield* temporaryDirectory(given)
  const directory = given ?? resolve(dataDefault)
  const shown = relative(process.cwd(), directory) || "."
  const path = shown.startsWith("..") ? directory : shown
  yield* checkDirectory({ directory: path, nodes: options.nodes, removed })
  yield* Effect.try({
    try: () => mkdirSync(path, { recursive: true, mode: 0o700 }),
    catch: (error) => refusal(`cannot make ${path}: ${(error as Error).message}`),
  })
  yield* holdDirectory(path)
  // Once more under the lock: another start may have finished in between.
  yield* checkDirectory({ directory: path, nodes: options.nodes, removed })
  yield* writeClusterData(path, options.nodes)
  return path
})

/** Whole or not at all, whenever the machine stops. */
const writeClusterData = (directory: string, nodes: number) =>
  Effect.try({
    try: () => {
      const disk = new FileDisk(directory)
      if (disk.exists(clusterFileName)) return
      const temporary = `${clusterFileName}.new`
      if (disk.exists(temporary)) disk.remove(temporary)
      const file = disk.create(temporary)
      file.write(utf8(formatClusterData({ nodes })), 0)
      file.sync()
      file.close()
      disk.rename(temporary, clusterFileName)
      disk.syncDirectory("")
    },
    catch: (error) => refusal(`cannot write in ${directory}: ${(error as Error).message}`),
  })

const temporaryDirectory = (parent: string | undefined) =>
  Effect.acquireRelease(
    Effect.try({
      try: () => {
        const made = parent !== undefined && !existsSync(parent)
        if (made) mkdirSync(parent, { recursive: true, mode: 0o700 })
        return { made, path: mkdtempSync(join(parent ?? tmpdir(), "kvorum-")) }
      },
      catch: (error) => refusal(`cannot make a temporary folder: ${(error as Error).message}`),
    }),
    ({ made, path }) =>
      Effect.sync(() => {
        rmSync(path, { recursive: true, force: true })
        if (made) rmdirSync(parent as string)
      }).pipe(Effect.catchCause(() => note(`kvorum: could not remove ${path}`))),
  ).pipe(Effect.map(({ path }) => path))

interface Supervision {
  readonly plans: ReadonlyArray<NodePlan>
  readonly members: ReadonlyArray<Member>
  /** What to put after a command so that it finds this cluster. */
  readonly place: string
  readonly directory: string
  readonly ephemeral: boolean
}

/** Ends when the last node has exited, with failure; interruption stops the nodes. */
const superviseNodes = Effect.fnUntraced(function* (supervision: Supervision) {
  const { plans, members } = supervision
  const nodes: Array<NodeProcess> = []
  const lines = new NodeLines()
  const state = { ready: false, stopping: false }
  const removed = new Set<number>()
  const lost = yield* Deferred.make<never, CommandEnded>()
  const onExit = (node: NodeProcess, code: number) => {
    if (state.stopping) return
    const plan = plans.find(({ id }) => id === node.id) as NodePlan
    if (!state.ready && !removed.has(node.id)) {
      Deferred.doneUnsafe(
        lost,
        Effect.fail(refusal(`node n${node.id} did not start (exit code ${code})`)),
      )
      return
    }
    Effect.runSync(note(removed.has(node.id) ? wasRemoved(plan) : died(plan, node, code)))
    if (nodes.every(({ alive }) => !alive)) {
      Deferred.doneUnsafe(lost, Effect.fail(refusal("no node is left")))
    }
  }
  yield* Effect.addFinalizer(() =>
    Effect.suspend(() => {
      state.stopping = true
      lines.stop()
      return stopNodes(nodes)
    }),
  )
  const onLine = ({ id }: NodePlan, line: string) => {
    if (tellsOfRemoval(line)) removed.add(id)
    const shown = lines.take(nodeName(id), line)
    if (shown !== undefined) Effect.runSync(note(shown))
  }
  const running = Effect.gen(function* () {
    for (const plan of plans) nodes.push(spawnNodeUnsafe(plan, { onLine, onExit }))
    yield* awaitReady({ members, lines, nodes: () => plans.length - removed.size })
    state.ready = true
    lines.run()
    yield* print(welcome(supervision, nodes))
    return yield* Effect.never
  })
  return yield* Effect.raceFirst(running, Deferred.await(lost))
})

const awaitReady = (options: {
  readonly members: ReadonlyArray<Member>
  readonly lines: NodeLines
  readonly nodes: () => number
}) => {
  const { members, lines, nodes } = options
  const endpoints = members.map(({ peer }) => clientOf(peer))
  const notice = Effect.gen(function* () {
    yield* Effect.sleep(readyNoticeMs)
    for (const line of lines.run()) yield* note(line)
    yield* note("Still waiting for every node to be ready and every range to have a leader.")
    return yield* Effect.never
  })
  return Effect.raceFirst(awaitLeaders({ endpoints, nodes }), notice).pipe(
    Effect.timeoutOrElse({
      duration: readyLimitMs,
      orElse: () => Effect.fail(refusal(`the cluster is not ready after ${readyLimitMs / 1000} s`)),
    }),
  )
}

function wasRemoved({ id, directory }: NodePlan): string {
  return `Node n${id} has been removed from the cluster, so its process has ended. ${directory} says so at every start: leave it there.`
}

function died(plan: NodePlan, node: NodeProcess, code: number): string {
  return [
    `Node n${node.id} (pid ${node.pid}) has died with exit code ${code}. To start it again, in another terminal:`,
    `    ${restartCommand(plan)}`,
  ].join("\n")
}

/** What to put after a command so that it finds the cluster that began with these; nothing at the usual place. */
function placeFlags(members: ReadonlyArray<Member>): string {
  const clients = members.map(({ peer }) => clientOf(peer))
  const [first] = clients
  if (first?.host !== "127.0.0.1") return ` --endpoints ${clients.map(formatAddress).join(",")}`
  return first.port === portBaseDefault + 1 ? "" : ` --port-base ${first.port - 1}`
}

function welcome(supervision: Supervision, nodes: ReadonlyArray<NodeProcess>): string {
  const { members, place, directory, ephemeral } = supervision
  const present = members.filter(({ id }) => nodes.find((node) => node.id === id)?.alive)
  const lines = present.map(({ id, peer }) => {
    const client = formatAddress(clientOf(peer))
    const pid = nodes.find((node) => node.id === id)?.pid
    return `    n${id}  clients ${client}  peers ${formatAddress(peer)}  pid ${pid}`
  })
  const count = present.length === 1 ? "1 node" : `${present.length} nodes`
  return [
    `Kvorum is ready: ${count}, data in ${directory}${ephemeral ? " (removed at the end)" : ""}`,
    ...lines,
    "",
    "In another terminal:",
    `    npx kvorum put default greeting hello${place}`,
    `    npx kvorum get default greeting${place}`,
    `    npx kvorum status${place}`,
    "    npx kvorum --help",
    "",
    "Ctrl-C stops all nodes.",
  ].join("\n")
}
