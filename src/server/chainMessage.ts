import { type ByteReader, MalformedBytes } from "../lib/byteReader.ts"
import type { ByteWriter } from "../lib/byteWriter.ts"
import type { LogIndex, RangeId, ReplicaId } from "../types.ts"
import type { SumSlice } from "./liveSum.ts"

/** Sent: do not change the order. */
const chainKinds = ["ask", "answer", "differs", "lost", "askSum", "sum", "sumDiffers"] as const
const firstSumKind = chainKinds.indexOf("askSum")

/** What replicas say to each other of the chains of their writes (comparison.ts), and of the sums over their live keys (sumComparison.ts). */
export interface ChainMessage {
  readonly _tag: "Chain"
  /**
   * `ask`: a leader tells its chain at an index and wants the other's; `answer`: that one; `differs`: the leader's word that the receiver is the odd one out; `lost`:
   * the sender has lost in damage what it had promised, cannot learn it again, and wants another replica in its place. `askSum`, `sum` and `sumDiffers` are the
   * first three for a sum, in place of the chain, over `slice`.
   */
  readonly kind: (typeof chainKinds)[number]
  readonly range: RangeId
  readonly from: ReplicaId
  readonly to: ReplicaId
  readonly index: LogIndex
  readonly chain: number
  /** Of sums. */
  readonly slice?: SumSlice
}

/** `u8 kind ‖ u64 range ‖ u64 from ‖ u64 to ‖ u64 index ‖ u32 chain`, of a sum then `u32 slice's bytes ‖ u32 bytes ‖ where the slice begins`. Sent: do not change. */
export function writeChainMessage(writer: ByteWriter, message: ChainMessage): void {
  writer.u8(chainKinds.indexOf(message.kind))
  writer.u64(message.range)
  writer.u64(message.from)
  writer.u64(message.to)
  writer.u64(message.index)
  writer.u32(message.chain)
  if (message.slice === undefined) return
  writer.u32(message.slice.bytes)
  writer.bytes32(message.slice.from)
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
  const message = { _tag: "Chain", kind, range, from, to, index, chain } as const
  if (code < firstSumKind) {
    reader.end()
    return message
  }
  const bytes = reader.u32()
  const slice = { bytes, from: reader.bytes32() }
  reader.end()
  return { ...message, slice }
}
