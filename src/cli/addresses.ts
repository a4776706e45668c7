/**
 * Where the nodes of a cluster listen. With port base B, node i (from 1) takes clients at B + i and other nodes at B + 100 + i, so
 * that a node's client port is its peer port less 100: `--cluster` names peer addresses, and the rest follows.
 */
export interface Address {
  readonly host: string
  readonly port: number
}

export interface Member {
  readonly id: number
  readonly peer: Address
}

export const portBaseDefault = 7400
export const nodesMax = 9
export const peerPortOffset = 100
/** The highest base whose nine nodes have ports for HTTP (B + 1000 + i) as well. */
export const portBaseMax = 65535 - 1000 - nodesMax
/** The lowest base whose nodes have ports for RESP (B - 1000 + i) above the privileged ones. */
export const portBaseMin = 1024 + 1000

export function clientPort(portBase: number, node: number): number {
  return portBase + node
}

export function peerPort(portBase: number, node: number): number {
  return portBase + peerPortOffset + node
}

/** The address that clients use of a member whose peer address is `peer`. */
export function clientOf(peer: Address): Address {
  return { host: peer.host, port: peer.port - peerPortOffset }
}

/** `host:port`, an IPv6 host in brackets. */
export function formatAddress(address: Address): string {
  const host = address.host.includes(":") ? `[${address.host}]` : address.host
  return `${host}:${address.port}`
}

/** The address that `text` spells, or a sentence that says what is wrong with it. */
export function parseAddress(text: string): Address | string {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]\s]+)):(\d{1,5})$/.exec(text.trim())
  if (match === null) return `"${text}" is not HOST:PORT`
  const port = Number(match[3])
  if (port < 1 || port > 65535) return `the port of "${text}" is not between 1 and 65535`
  return { host: (match[1] ?? match[2]) as string, port }
}

/** `HOST:PORT,HOST:PORT`; at least one. */
export function parseEndpoints(text: string): ReadonlyArray<Address> | string {
  const addresses: Array<Address> = []
  for (const part of text.split(",")) {
    const address = parseAddress(part)
    if (typeof address === "string") return address
    addresses.push(address)
  }
  return addresses
}

/** `1=HOST:PORT,2=HOST:PORT`: ids from 1 without gaps, in any order; the result is in order of id. */
export function parseMembers(text: string): ReadonlyArray<Member> | string {
  const members: Array<Member> = []
  for (const part of text.split(",")) {
    const match = /^\s*(\d{1,9})=(.+)$/.exec(part)
    if (match === null) return `"${part}" is not ID=HOST:PORT`
    const id = Number(match[1])
    const peer = parseAddress(match[2] as string)
    if (typeof peer === "string") return peer
    if (peer.port <= peerPortOffset) {
      return `the peer port of node n${id} must be above ${peerPortOffset}: clients use that port less ${peerPortOffset}`
    }
    if (members.some((member) => member.id === id)) return `node n${id} is named twice`
    members.push({ id, peer })
  }
  if (members.length > nodesMax) return `${members.length} nodes are more than ${nodesMax}`
  members.sort((left, right) => left.id - right.id)
  for (let i = 0; i < members.length; i++) {
    if (members[i]?.id !== i + 1) return `ids must run from 1 to ${members.length}`
  }
  return members
}

export function formatMembers(members: ReadonlyArray<Member>): string {
  return members.map((member) => `${member.id}=${formatAddress(member.peer)}`).join(",")
}

/** The members of a cluster of `nodes` on one host, at the ports of `portBase`. */
export function localMembers(options: {
  readonly nodes: number
  readonly host: string
  readonly portBase: number
}): ReadonlyArray<Member> {
  const members: Array<Member> = []
  for (let id = 1; id <= options.nodes; id++) {
    members.push({ id, peer: { host: options.host, port: peerPort(options.portBase, id) } })
  }
  return members
}

/**
 * Where a command looks for the cluster: `--endpoints`, else `--port-base`, else the environment's KVORUM_ENDPOINTS, else the ports of
 * `npm start`. A string says what is wrong.
 */
export function resolveEndpoints(options: {
  readonly endpoints: string | undefined
  readonly portBase: number | undefined
  readonly environment: string | undefined
}): ReadonlyArray<Address> | string {
  if (options.endpoints !== undefined) return parseEndpoints(options.endpoints)
  if (
    options.portBase === undefined &&
    options.environment !== undefined &&
    options.environment !== ""
  ) {
    const result = parseEndpoints(options.environment)
    return typeof result === "string" ? `KVORUM_ENDPOINTS: ${result}` : result
  }
  const portBase = options.portBase ?? portBaseDefault
  const problem = portBaseProblem(portBase)
  if (problem !== undefined) return problem
  const members = localMembers({ nodes: nodesMax, host: "127.0.0.1", portBase })
  return members.map((member) => clientOf(member.peer))
}

export function portBaseProblem(portBase: number): string | undefined {
  if (portBase >= portBaseMin && portBase <= portBaseMax) return undefined
  return `--port-base must be between ${portBaseMin} and ${portBaseMax}`
}

/** The port base of a node that keeps to the pattern of `npm start`, or `undefined`. */
export function portBaseOf(node: {
  readonly id: number
  readonly client: Address
}): number | undefined {
  const portBase = node.client.port - node.id
  return portBaseProblem(portBase) === undefined ? portBase : undefined
}

/** The id in a node's name: `n4`, or just `4`. */
export function parseNode(text: string): number | undefined {
  const match = /^n?([1-9]\d{0,8})$/.exec(text)
  return match === null ? undefined : Number(match[1])
}
