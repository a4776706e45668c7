/**
 * `cluster.json` at the top of the directory that `kvorum start` keeps: which cluster the folders `n1`, `n2`, ... beside it belong to.
 * Written once, before the first node is started. Stored: do not change, raise `format` instead.
 */
export const clusterFileName = "cluster.json"
export const clusterFormat = 1

export interface ClusterData {
  readonly format: number
  readonly nodes: number
}

export function nodeDirectory(node: number): string {
  return `n${node}`
}

export function formatClusterData(data: Omit<ClusterData, "format">): string {
  return `${JSON.stringify({ format: clusterFormat, nodes: data.nodes })}\n`
}

/** What the file says, or a sentence that says what is wrong with it, to be put after its name. */
export function parseClusterData(source: string): ClusterData | string {
  let parsed: unknown
  try {
    parsed = JSON.parse(source)
  } catch {
    return "is not JSON"
  }
  const { format, nodes } = (parsed ?? {}) as { format?: unknown; nodes?: unknown }
  if (typeof format !== "number" || !Number.isSafeInteger(format) || format < 1) {
    return "names no format"
  }
  if (format > clusterFormat) return newerFormat(format, clusterFormat)
  if (typeof nodes !== "number" || !Number.isSafeInteger(nodes) || nodes < 1) {
    return "names no number of nodes"
  }
  return { format, nodes }
}

/** The file at the top of a node's folder that says whose data it is; only what is checked before a start. */
export const identityFileName = "IDENTITY"
export const identityFormat = 1

export interface NodeIdentity {
  readonly clusterId: string
  readonly node: number
  readonly incarnation: string
  /** Incarnations of the nodes that it has met, by id. */
  readonly peers: Readonly<Record<string, unknown>>
}

/** As `parseClusterData`. */
export function parseIdentity(source: string): NodeIdentity | string {
  let parsed: unknown
  try {
    parsed = JSON.parse(source)
  } catch {
    return "is not JSON"
  }
  const stored = (parsed ?? {}) as Readonly<Record<string, unknown>>
  const { format, clusterId, node, incarnation, peers } = stored
  if (typeof format !== "number" || !Number.isSafeInteger(format)) return "names no format"
  if (format > identityFormat) return newerFormat(format, identityFormat)
  if (typeof clusterId !== "string" || typeof node !== "number") return "names no cluster or node"
  if (typeof incarnation !== "string" || typeof peers !== "object" || peers === null) {
    return "names no incarnation or peers"
  }
  return { clusterId, node, incarnation, peers: peers as Readonly<Record<string, unknown>> }
}

/**
 * Why folders that name these identities are not one cluster's, or `undefined`; `undefined` in the list is a folder without one. Of the nodes that were `removed`
 * from the cluster the folders may be gone.
 */
export function identitiesProblem(
  identities: ReadonlyArray<NodeIdentity | undefined>,
  removed: ReadonlySet<number>,
): string | undefined {
  const first = identities.find((identity) => identity !== undefined)
  for (const [i, identity] of identities.entries()) {
    const name = nodeDirectory(i + 1)
    if (identity !== undefined && identity.node !== i + 1) {
      return `${name} is the data of node n${identity.node}, not of n${i + 1}`
    }
    if (identity !== undefined && identity.clusterId !== first?.clusterId) {
      return `${name} belongs to another cluster (${identity.clusterId}) than n${first?.node} (${first?.clusterId})`
    }
    if (removed.has(i + 1)) continue
    for (const other of identities) {
      const met = other?.peers[`${i + 1}`]
      if (met === undefined || met === identity?.incarnation) continue
      return identity === undefined
        ? `${name} has lost its data: a node must not start empty in a cluster that knows it. Put its data back, or start the others with \`kvorum serve\`, take it out with \`kvorum node remove n${i + 1}\` and let a new node in with \`kvorum serve --join\``
        : `${name} is not the data with which n${other?.node} has known it`
    }
  }
  return undefined
}

function newerFormat(found: number, known: number): string {
  return `is of format ${found}; this kvorum knows formats up to ${known}: use the newer kvorum that wrote it`
}
