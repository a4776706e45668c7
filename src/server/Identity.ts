import { createHash } from "node:crypto"
import { Data, Schema } from "effect"
import { type Disk, DiskError } from "../disk/disk.ts"
import { text } from "../lib/bytes.ts"
import type { NodeId } from "../types.ts"
import { checksumOf, writeChecked } from "./checkedFile.ts"
import type { NodeRecord } from "./directory.ts"

/**
 * Who a data directory is: file IDENTITY at its top, JSON, written once at bootstrap or joining and again for each peer met. Stored: do not
 * change, raise `format` instead.
 *
 * The incarnation is made with the directory. A peer's first incarnation is kept for ever; a directory that was emptied comes back
 * under another one and is refused, so that it cannot vote as its former self (DESIGN section 2). Founders are known by the list that
 * they were started with; every other node by its record in the directory (directory.ts), which also says who was removed.
 */
const identityFile = "IDENTITY"
/** The incarnation of a directory that has asked for an id and has none yet, so that asking again is the same question. */
const joiningFile = "JOINING"
const identityFormat = 1

const Stored = Schema.Struct({
  format: Schema.Number,
  clusterId: Schema.String,
  node: Schema.Number,
  incarnation: Schema.String,
  /** Ids of all nodes at bootstrap; empty in a node that joined later. */
  nodes: Schema.Array(Schema.Number),
  /** Incarnations met, by node id. */
  peers: Schema.Record(Schema.String, Schema.String),
})
/** Every key of the file. `checksum` is the CRC-32, in hexadecimal, of the JSON without it; files written before it was have none. */
const storedKeys = ["format", "clusterId", "node", "incarnation", "nodes", "peers", "checksum"]
type Stored = typeof Stored.Type

/** The directory is not what this node was started for. The message is one line that names what differs. */
export class IdentityMismatch extends Data.TaggedError("IdentityMismatch")<{
  readonly detail: string
}> {
  override get message(): string {
    return this.detail
  }
}

export class Identity {
  private readonly disk: Disk
  private stored: Stored

  private constructor(disk: Disk, stored: Stored) {
    this.disk = disk
    this.stored = stored
  }

  /**
   * Reads the directory's identity, or makes one for an empty directory. The cluster's id follows from the first list of its members, so
   * that nodes started apart agree on it. `directory` is for messages. Throws `IdentityMismatch`, `DiskError`.
   */
  static open(options: {
    readonly disk: Disk
    readonly directory: string
    readonly node: NodeId
    /** The founders; empty for a node that has joined, whose file is there already. */
    readonly nodes: ReadonlyArray<NodeId>
    /** The members as text, in order of id. */
    readonly members: string
  }): Identity {
    const { disk, directory, node } = options
    const nodes = [...options.nodes].sort((left, right) => left - right)
    if (!disk.exists(identityFile)) {
      if (nodes.length === 0) {
        throw new IdentityMismatch({ detail: `${directory} holds no node: join a cluster first` })
      }
      const identity = new Identity(disk, {
        format: identityFormat,
        clusterId: createHash("sha256").update(options.members).digest("hex").slice(0, 32),
        node,
        incarnation: crypto.randomUUID(),
        nodes,
        peers: {},
      })
      identity.write(identity.stored)
      return identity
    }
    const stored = readIdentity(disk, directory)
    if (stored.node !== node) {
      throw new IdentityMismatch({
        detail: `${directory} is the data of node n${stored.node}, not of n${node}`,
      })
    }
    if (stored.nodes.join() !== nodes.join()) {
      throw new IdentityMismatch({ detail: `${directory} ${foundersMismatch(stored)}` })
    }
    return new Identity(disk, stored)
  }

  /** The incarnation under which an empty directory asks to join; made durable at the first call. Throws `DiskError`. */
  static incarnationToJoin(disk: Disk): string {
    if (disk.exists(joiningFile)) {
      const file = disk.open(joiningFile)
      const bytes = new Uint8Array(file.sizeBytes)
      file.read(bytes, 0)
      file.close()
      const { incarnation } = JSON.parse(text(bytes)) as { readonly incarnation: string }
      return incarnation
    }
    const incarnation = crypto.randomUUID()
    writeChecked(disk, joiningFile, { incarnation })
    return incarnation
  }

  /** Makes the directory that of a node that was let in. Throws `DiskError`. */
  static join(
    disk: Disk,
    joined: { readonly clusterId: string; readonly node: NodeId; readonly incarnation: string },
  ): void {
    writeChecked(disk, identityFile, { format: identityFormat, ...joined, nodes: [], peers: {} })
    if (!disk.exists(joiningFile)) return
    disk.remove(joiningFile)
    disk.syncDirectory("")
  }

  get clusterId(): string {
    return this.stored.clusterId
  }

  get node(): NodeId {
    return this.stored.node
  }

  get incarnation(): string {
    return this.stored.incarnation
  }

  /** The incarnation that a node is known by here, from having met it, or of this node itself. */
  incarnationOf(node: NodeId): string | undefined {
    return node === this.node ? this.incarnation : this.stored.peers[`${node}`]
  }

  /**
   * Why a peer that calls itself `node` is refused, or `undefined`. `record` is what the directory knows of that id. The first incarnation
   * of a node is made durable here.
   */
  problemOfPeer(node: NodeId, incarnation: string, record?: NodeRecord): string | undefined {
    if (node === this.node) return `n${node} is this node's own id`
    if (record === undefined && !this.stored.nodes.includes(node)) {
      return `n${node} is not a node of this cluster`
    }
    if (record?.state === "removed") return `n${node} was removed from this cluster`
    const met = this.stored.peers[`${node}`]
    for (const known of [record?.incarnation, met]) {
      if (known !== undefined && known !== incarnation) {
        return `n${node} comes with another data directory than before (incarnation ${incarnation}, not ${known})`
      }
    }
    if (met === undefined) {
      const peers = { ...this.stored.peers, [`${node}`]: incarnation }
      this.write({ ...this.stored, peers })
    }
    return undefined
  }

  private write(stored: Stored): void {
    writeChecked(this.disk, identityFile, stored)
    this.stored = stored
  }
}

function foundersMismatch({ node, nodes }: Stored): string {
  if (nodes.length === 0) return "belongs to a node that joined its cluster: start it with --join"
  const named = nodes.map((id) => `n${id}`).join(", ")
  const list = nodes.map((id) => `${id}=HOST:PORT`).join()
  return `belongs to a cluster of ${named} by its founding and is started with that list (--id ${node} --cluster ${list}), also of those that have left: other nodes join with --join, and leave by \`kvorum node remove\``
}

/** What the file says, verified. `directory` is for messages. Throws `IdentityMismatch`, `DiskError`. */
export function readIdentity(disk: Disk, directory: string): Stored {
  const file = disk.open(identityFile)
  const bytes = new Uint8Array(Math.min(file.sizeBytes, 1 << 20))
  file.read(bytes, 0)
  file.close()
  const path = `${directory}/${identityFile}`
  let parsed: unknown
  try {
    parsed = JSON.parse(text(bytes))
  } catch (cause) {
    throw new DiskError({ reason: "io", path: `${path} is not JSON`, cause })
  }
  const format = (parsed as { format?: unknown } | null)?.format
  if (typeof format === "number" && format > identityFormat) {
    throw new IdentityMismatch({
      detail: `${path} is of format ${format}; this kvorum knows formats up to ${identityFormat}: use the newer kvorum that wrote it`,
    })
  }
  const { checksum, ...fields } = (parsed ?? {}) as { readonly checksum?: unknown }
  const isKnown = Object.keys(parsed ?? {}).every((key) => storedKeys.includes(key))
  if (!isKnown || (checksum !== undefined && checksum !== checksumOf(fields))) {
    throw new IdentityMismatch({ detail: `${path} is damaged: its checksum is another` })
  }
  try {
    return Schema.decodeUnknownSync(Stored)(fields)
  } catch (cause) {
    throw new IdentityMismatch({ detail: `${path} is damaged: ${String(cause)}` })
  }
}
