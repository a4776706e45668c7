import { ByteReader, MalformedBytes } from "../lib/byteReader.ts"
import { text, utf8 } from "../lib/bytes.ts"
import type { ByteWriter } from "../lib/byteWriter.ts"
import type { NodeId } from "../types.ts"
import { beginFrame, endFrame } from "./frames.ts"
import { asArray, asCount, asText, pack, unpack } from "./packed.ts"

/**
 * What nodes say to each other around their messages, inside frames (frames.ts). Little-endian. Do not change: sent.
 *
 *     hello, each way:   u32 magic "KVPR" ‖ u16 version ‖ u8 accepted ‖ packed [clusterId, node, incarnation]   or   UTF-8 reason
 *     then, from the side that connected:   u8 1 ‖ message (server/peerMessage.ts)      u8 2: ping
 *     from the side that accepted:          u8 3: pong
 *     either:                               u8 255 ‖ UTF-8 reason, and the connection is closed
 */
export const peerMagic = 0x5250564b
export const peerVersion = 5

export const peerKinds = { message: 1, ping: 2, pong: 3, closing: 255 } as const

export interface PeerHello {
  readonly clusterId: string
  readonly node: NodeId
  readonly incarnation: string
}

export function writePeerHello(writer: ByteWriter, hello: PeerHello, version = peerVersion): void {
  const start = beginFrame(writer)
  writer.u32(peerMagic)
  writer.u16(version)
  writer.u8(1)
  writer.raw(pack([hello.clusterId, hello.node, hello.incarnation]))
  endFrame(writer, start)
}

export function writePeerRefusal(writer: ByteWriter, reason: string): void {
  const start = beginFrame(writer)
  writer.u32(peerMagic)
  writer.u16(peerVersion)
  writer.u8(0)
  writer.raw(utf8(reason))
  endFrame(writer, start)
}

/** A string is why there will be no connection: the other's word, or its version. Throws `MalformedBytes`. */
export function readPeerHello(payload: Uint8Array): PeerHello | string {
  const reader = new ByteReader(payload)
  if (reader.u32() !== peerMagic) throw new MalformedBytes("not a Kvorum peer")
  const version = reader.u16()
  if (reader.u8() === 0) return `refused by the peer: ${text(reader.rest())}`
  if (version !== peerVersion) {
    return `peer protocol version ${version} is not spoken here: this node speaks ${peerVersion}`
  }
  const [clusterId, node, incarnation] = asArray(unpack(reader.rest()), 3)
  return { clusterId: asText(clusterId), node: asCount(node), incarnation: asText(incarnation) }
}

export function writePeerPing(writer: ByteWriter, kind: "ping" | "pong"): void {
  const start = beginFrame(writer)
  writer.u8(peerKinds[kind])
  endFrame(writer, start)
}

export function writePeerClosing(writer: ByteWriter, reason: string): void {
  const start = beginFrame(writer)
  writer.u8(peerKinds.closing)
  writer.raw(utf8(reason))
  endFrame(writer, start)
}

export type PeerFrame =
  | { readonly _tag: "Message"; readonly payload: Uint8Array }
  | { readonly _tag: "Ping" | "Pong" }
  | { readonly _tag: "Closing"; readonly reason: string }

/** Throws `MalformedBytes`. A message is a view. */
export function readPeerFrame(payload: Uint8Array): PeerFrame {
  const reader = new ByteReader(payload)
  const kind = reader.u8()
  switch (kind) {
    case peerKinds.message:
      return { _tag: "Message", payload: reader.rest() }
    case peerKinds.ping:
      reader.end()
      return { _tag: "Ping" }
    case peerKinds.pong:
      reader.end()
      return { _tag: "Pong" }
    case peerKinds.closing:
      return { _tag: "Closing", reason: text(reader.rest()) }
    default:
      throw new MalformedBytes(`unknown frame kind ${kind}`)
  }
}
