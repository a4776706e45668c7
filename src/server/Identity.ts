import { createHash, randomUUID } from "node:crypto"
import { Data, Schema } from "effect"
import { type Disk, DiskError } from "../disk/disk.ts"
import { text, utf8 } from "../lib/bytes.ts"
import { crc32 } from "../lib/checksum.ts"
import type { NodeId } from "../types.ts"

/**
 * Who a data directory is: file IDENTITY at its top, JSON, written once at bootstrap and again for each peer met. Stored: do not
 * change, raise `format` instead.
 *
 * The incarnation is made with the directory. A peer's first incarnation is kept for ever; a directory that was emptied comes back
 * under another one and is refused, so that it cannot vote as its former self (DESIGN section 2).
 */
const identityFile = "IDENTITY"
const identityFormat = 1

const Stored = Schema.Struct({
  format: Schema.Number,
  clusterId: Schema.String,
  node: Schema.Number,
  incarnation: Schema.String,
  /** Ids of all nodes at bootstrap. */
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
    readonly nodes: ReadonlyArray<NodeId>
    /** The members as text, in order of id. */
    readonly members: string
  }): Identity {
    const { disk, directory, node } = options
    const nodes = [...options.nodes].sort((left, right) => left - right)
    if (!disk.exists(identityFile)) {
      const identity = new Identity(disk, {
        format: identityFormat,
        clusterId: createHash("sha256").update(options.members).digest("hex").slice(0, 32),
        node,
        incarnation: randomUUID(),
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
      const named = stored.nodes.map((id) => `n${id}`).join(", ")
      throw new IdentityMismatch({
        detail: `${directory} belongs to a cluster of ${named}: joining or leaving a cluster is not possible yet`,
      })
    }
    return new Identity(disk, stored)
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

  /** Why a peer that calls itself `node` is refused, or `undefined`. The first incarnation of a node is made durable here. */
  problemOfPeer(node: NodeId, incarnation: string): string | undefined {
    if (!this.stored.nodes.includes(node)) return `n${node} is not a node of this cluster`
    if (node === this.node) return `n${node} is this node's own id`
    const known = this.stored.peers[`${node}`]
    if (known === undefined) {
      const peers = { ...this.stored.peers, [`${node}`]: incarnation }
      this.write({ ...this.stored, peers })
      return undefined
    }
    return known === incarnation
      ? undefined
      : `n${node} comes with another data directory than before (incarnation ${incarnation}, not ${known})`
  }

  private write(stored: Stored): void {
    const temporary = `${identityFile}.new`
    if (this.disk.exists(temporary)) this.disk.remove(temporary)
    const file = this.disk.create(temporary)
    const checksum = checksumOf(stored)
    file.write(utf8(`${JSON.stringify({ ...stored, checksum })}\n`), 0)
    file.sync()
    file.close()
    this.disk.rename(temporary, identityFile)
    this.disk.syncDirectory("")
    this.stored = stored
  }
}

function checksumOf(fields: object): string {
  return crc32(utf8(JSON.stringify(fields)))
    .toString(16)
    .padStart(8, "0")
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
