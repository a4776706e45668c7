import type { ByteReader } from "../../lib/byteReader.ts"
import { MalformedBytes } from "../../lib/byteReader.ts"
import type { ByteWriter } from "../../lib/byteWriter.ts"
import type { NodeId } from "../../types.ts"

/** What a node believes of another one: `suspect` was not reached by a probe, `down` did not clear itself of the suspicion in time. */
export type Belief = "up" | "suspect" | "down"
const beliefs: ReadonlyArray<Belief> = ["up", "suspect", "down"]

/** A rumour. Of one incarnation worse news goes before better; only the node itself makes its incarnation larger. */
export interface Rumour {
  readonly node: NodeId
  readonly belief: Belief
  readonly incarnation: number
}

/**
 * SWIM's messages. `ping`: say that you live. `ask`: ping that one for me. `ack`: the node lives, `about` being itself or whom it was asked to ping.
 *
 *     kind u8 ‖ sequence u64 ‖ about u64 ‖ count u8 ‖ count x (node u64 ‖ belief u8 ‖ incarnation u64)
 */
export interface SwimMessage {
  readonly _tag: "Swim"
  /** No range's business; peer messages name one. */
  readonly range: 0
  readonly kind: SwimKind
  /** Of the one who began; an answer repeats it. */
  readonly sequence: number
  readonly about: NodeId
  readonly rumours: ReadonlyArray<Rumour>
}

type SwimKind = "ping" | "ask" | "ack"
const kinds: ReadonlyArray<SwimKind> = ["ping", "ask", "ack"]

/** Rumours in one message. */
export const rumoursMax = 8

export function writeSwim(writer: ByteWriter, message: SwimMessage): void {
  writer.u8(kinds.indexOf(message.kind))
  writer.u64(message.sequence)
  writer.u64(message.about)
  writer.u8(message.rumours.length)
  for (const { node, belief, incarnation } of message.rumours) {
    writer.u64(node)
    writer.u8(beliefs.indexOf(belief))
    writer.u64(incarnation)
  }
}

export function readSwim(reader: ByteReader): SwimMessage {
  const kind = kinds[reader.u8()]
  if (kind === undefined) throw new MalformedBytes("unknown kind of a SWIM message")
  const [sequence, about, count] = [reader.u64(), reader.u64(), reader.u8()]
  if (count > rumoursMax) throw new MalformedBytes("too many rumours")
  const rumours: Array<Rumour> = []
  for (let i = 0; i < count; i++) {
    const node = reader.u64()
    const belief = beliefs[reader.u8()]
    if (belief === undefined) throw new MalformedBytes("unknown belief")
    rumours.push({ node, belief, incarnation: reader.u64() })
  }
  reader.end()
  return { _tag: "Swim", range: 0, kind, sequence, about, rumours }
}
