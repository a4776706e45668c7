import type { ByteWriter } from "../lib/byteWriter.ts"
import type { NodeId } from "../types.ts"

/** What others of this node use of the transport between nodes; PeerTransport.ts explains it. */

export interface PeerAddress {
  readonly node: NodeId
  readonly host: string
  readonly port: number
}

export interface PeerTransportShape {
  /** Where it listens. */
  readonly address: { readonly host: string; readonly port: number }
  /** Gathers one message for a node; `encode` writes its payload, at most 16 MiB. A node of no known address is unreachable. */
  readonly send: <A>(
    to: NodeId,
    encode: (writer: ByteWriter, message: A) => void,
    message: A,
  ) => void
  /** Gives what has gathered to the sockets. */
  readonly flush: () => void
  /** A new peer, or a new address of one. */
  readonly setPeer: (peer: PeerAddress) => void
  /** Ends the connections with a node for good, saying why; it is not called again. */
  readonly removePeer: (node: NodeId, reason: string) => void
  readonly describe: () => ReadonlyArray<PeerState>
}

export interface PeerState {
  readonly node: NodeId
  readonly connected: boolean
  readonly waitingBytes: number
  readonly droppedFrames: number
}
