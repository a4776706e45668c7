import { type ByteReader, MalformedBytes } from "../lib/byteReader.ts"
import type { ByteWriter } from "../lib/byteWriter.ts"
import type { LogIndex, RangeId, ReplicaId } from "../types.ts"

/** Sent: do not change the order. */
const chainKinds = ["ask", "answer", "differs", "lost"] as const

/** What replicas say to each other of the chains of their writes (comparison.ts). */
export interface ChainMessage {
  readonly _tag: "Chain"
  /**
   * `ask`: a leader tells its chain at an index and wants the other's; `answer`: that one; `differs`: the leader's word that the receiver is the odd one out; `lost`:
   * the sender has lost in damage what it had promised, cannot learn it again, and wants another replica in its place.
   */
  readonly kind: (typeof chainKinds)[number]
  readonly range: RangeId
  readonly from: ReplicaId
  readonly to: ReplicaId
  readonly index: LogIndex
  readonly chain: number
}

/** `u8 kind ‖ u64 range ‖ u64 from ‖ u64 to ‖ u64 index ‖ u32 chain`. Sent: do not change. */
export function writeChainMessage(writer: ByteWriter, message: ChainMessage): void {
  writer.u8(chainKinds.indexOf(message.kind))
  writer.u64(message.range)
  writer.u64(message.from)
  writer.u64(message.to)
  writer.u64(message.index)
  writer.u32(message.chain)
}

/** Throws `MalformedBytes`. */
export function readChainMessage(reader: ByteReader): ChainMessage {
  const code = reader.u8()
  const kind = chainKinds[code]
  if (kind === undefined) throw new MalformedBytes(`a chain message of kind ${code}`)
  const range = reader.u64()
  const from = reader.u64()
  const to = reader.u64()
  const index = reader.u64()
  const chain = reader.u32()
  reader.end()
  return { _tag: "Chain", kind, range, from, to, index, chain }
}
