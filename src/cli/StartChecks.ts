import { existsSync, readdirSync, readFileSync, statSync } from "node:fs"
import { join } from "node:path"
import { Effect } from "effect"
import { DirectoryInUse, DirectoryLock, lockFileName } from "../disk/DirectoryLock.ts"
import { FileDisk } from "../disk/FileDisk.ts"
import { readDirectory } from "../server/directoryCache.ts"
import { type Address, clientOf, formatAddress, type Member, parseNode } from "./addresses.ts"
import {
  clusterFileName,
  identitiesProblem,
  identityFileName,
  type NodeIdentity,
  nodeDirectory,
  parseClusterData,
  parseIdentity,
} from "./clusterData.ts"
import { type CommandEnded, refusal } from "./Output.ts"

/**
 * What must hold before a cluster is started. Each check reads only, so that a start that is refused has changed nothing, and each refusal is
 * one line that names what is in the way.
 */

/** Fails if anything listens on an address that the nodes need. */
export const checkPorts = Effect.fnUntraced(function* (
  members: ReadonlyArray<Member>,
): Effect.fn.Return<void, CommandEnded> {
  for (const member of members) {
    yield* checkPort(clientOf(member.peer), `n${member.id}'s clients`)
    yield* checkPort(member.peer, `n${member.id}'s peers`)
  }
})

/** Why nobody can listen there, as the code of the system's error; `undefined` when one can. */
export function portProblem(address: Address): string | undefined {
  try {
    const listener = Bun.listen({
      hostname: address.host,
      port: address.port,
      exclusive: true,
      socket: { data() {} },
    })
    listener.stop(true)
    return undefined
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? String(error)
  }
}

const checkPort = Effect.fnUntraced(function* (
  address: Address,
  purpose: string,
): Effect.fn.Return<void, CommandEnded> {
  const problem = yield* Effect.sync(() => portProblem(address))
  if (problem === undefined) return
  const where = formatAddress(address)
  if (problem === "EADDRINUSE") {
    return yield* refusal(
      `port ${address.port} (${where}, for ${purpose}) is in use; choose others with --port-base N`,
    )
  }
  return yield* refusal(`cannot listen on ${where} (for ${purpose}): ${problem}`)
})

/**
 * Fails if `directory` holds a cluster of another size, of a newer format or with a node that runs, or something that is no cluster. A directory
 * that is not there, or is empty, passes.
 */
export const checkDirectory = Effect.fnUntraced(function* (options: {
  readonly directory: string
  readonly nodes: number
  /** Nodes that were removed from the cluster. */
  readonly removed: ReadonlySet<number>
}): Effect.fn.Return<void, CommandEnded> {
  const { directory, nodes, removed } = options
  if (!existsSync(directory)) return
  if (!statSync(directory).isDirectory()) return yield* refusal(`${directory} is not a directory`)
  const path = join(directory, clusterFileName)
  if (!existsSync(path)) {
    const found = readdirSync(directory).filter((name) => !name.startsWith("."))
    // What a start leaves that was ended before it had written anything else.
    const own = [lockFileName, `${clusterFileName}.new`]
    const stranger = found.find((name) => !own.includes(name))
    if (stranger !== undefined) {
      return yield* refusal(
        `${directory} holds ${stranger} but no ${clusterFileName}: it is not the data of \`kvorum start\``,
      )
    }
    return
  }
  const data = parseClusterData(readFileSync(path, "utf8"))
  if (typeof data === "string") return yield* refusal(`${path} ${data}`)
  if (data.nodes !== nodes) {
    return yield* refusal(
      `${directory} holds a cluster of ${data.nodes} nodes, not ${nodes}: start it with --nodes ${data.nodes}, or choose another --data DIR`,
    )
  }
  const identities: Array<NodeIdentity | undefined> = []
  for (let node = 1; node <= nodes; node++) {
    const folder = join(directory, nodeDirectory(node))
    identities.push(yield* readIdentity(join(folder, identityFileName)))
    if (existsSync(join(folder, lockFileName))) yield* Effect.scoped(holdDirectory(folder))
  }
  const problem = identitiesProblem(identities, removed)
  if (problem !== undefined) return yield* refusal(`${directory}/${problem}`)
})

/** Nodes that were removed from the cluster, as far as any folder in `directory` knows; their ids are never used again. Throws `DiskError`. */
export function removedNodes(directory: string): ReadonlySet<number> {
  const removed = new Set<number>()
  if (!existsSync(join(directory, clusterFileName))) return removed
  for (const name of readdirSync(directory)) {
    const id = parseNode(name)
    if (id === undefined || name !== nodeDirectory(id)) continue
    const known = readDirectory(new FileDisk(join(directory, name)))
    for (const node of known?.nodes ?? []) if (node.state === "removed") removed.add(node.id)
  }
  return removed
}

const readIdentity = Effect.fnUntraced(function* (
  path: string,
): Effect.fn.Return<NodeIdentity | undefined, CommandEnded> {
  if (!existsSync(path)) return undefined
  const identity = parseIdentity(readFileSync(path, "utf8"))
  return typeof identity === "string" ? yield* refusal(`${path} ${identity}`) : identity
})

/** Holds the lock of an existing directory until the scope closes; fails when another process has it. */
export const holdDirectory = (directory: string) =>
  Effect.acquireRelease(
    Effect.try({
      try: () => DirectoryLock.acquire(directory),
      catch: (error) =>
        refusal(
          error instanceof DirectoryInUse
            ? `${error.message}; choose another --data DIR`
            : error instanceof Error
              ? error.message
              : String(error),
        ),
    }),
    (lock) => Effect.sync(() => lock.release()),
  )
