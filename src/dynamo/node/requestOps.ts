import { ByteReader } from "../../lib/byteReader.ts"
import { emptyBytes } from "../../lib/bytes.ts"
import type { ByteWriter } from "../../lib/byteWriter.ts"
import type { NamespaceId, NodeId, RingVersion } from "../../types.ts"

/**
 * What a coordinator asks of owners and stand-ins. Sent: do not change.
 *
 *     store   := id varint ‖ namespace varint ‖ ringVersion varint ‖ hintFor varint (0: the receiver is the owner) ‖ level u8 (copies that the writer wants; of hints)
 *                ‖ key length varint ‖ key ‖ state
 *     stored  := id varint ‖ verdict u8
 *     fetch   := id varint ‖ namespace varint ‖ ringVersion varint ‖ 0 | 1 (a digest will do) ‖ key
 *     fetched := id varint ‖ verdict u8 ‖ state (empty: nothing is held of the key) | digest u64
 *
 * An id of 0 asks for no answer. The digest is `hash64` of the state.
 */
export interface StoreOp {
  readonly id: number
  readonly namespace: NamespaceId
  readonly ringVersion: RingVersion
  readonly hintFor: NodeId
  /** Owners that must have confirmed before the hint may be dropped. */
  readonly copies: number
  readonly key: Uint8Array
  readonly state: Uint8Array
}

export interface FetchOp {
  readonly id: number
  readonly namespace: NamespaceId
  readonly ringVersion: RingVersion
  /** Of a large state a digest will do. */
  readonly digest: boolean
  readonly key: Uint8Array
}

/** A state of more bytes is answered by its digest, where that will do. A smaller one costs less to send than to ask for again. */
export const digestAboveBytes = 4096

/** What a node says to either. Sent: do not change. */
export const verdicts = {
  done: 1,
  /** The slot has other owners since the ring that was named. */
  moved: 2,
  /** It does not know the namespace yet, has no room, or can't read what it holds. */
  refused: 3,
  /** What it holds has this digest. */
  digest: 4,
  /** It does not know the ring that was named yet: ask again soon. */
  behind: 5,
} as const

export type Verdict = (typeof verdicts)[keyof typeof verdicts]

export function writeStore(out: ByteWriter, op: StoreOp): void {
  out.varint(op.id)
  out.varint(op.namespace)
  out.varint(op.ringVersion)
  out.varint(op.hintFor)
  out.u8(op.copies)
  out.varint(op.key.length)
  out.raw(op.key)
  out.raw(op.state)
}

/** Byte strings are views. */
export function readStore(body: ByteReader): StoreOp {
  const id = body.varint()
  const namespace = body.varint()
  const ringVersion = body.varint()
  const hintFor = body.varint()
  const copies = body.u8()
  const key = body.raw(body.varint())
  return { id, namespace, ringVersion, hintFor, copies, key, state: body.rest() }
}

export function writeFetch(out: ByteWriter, op: FetchOp): void {
  out.varint(op.id)
  out.varint(op.namespace)
  out.varint(op.ringVersion)
  out.u8(op.digest ? 1 : 0)
  out.raw(op.key)
}

export function readFetch(body: ByteReader): FetchOp {
  const id = body.varint()
  const namespace = body.varint()
  const ringVersion = body.varint()
  return { id, namespace, ringVersion, digest: body.u8() === 1, key: body.rest() }
}

/** Of `stored`, and with a state of `fetched`. */
export function writeVerdict(
  out: ByteWriter,
  id: number,
  verdict: Verdict,
  state?: Uint8Array,
): void {
  out.varint(id)
  out.u8(verdict)
  if (state !== undefined) out.raw(state)
}

/** `fetched` with the digest of a state. */
export function writeDigest(out: ByteWriter, id: number, digest: bigint): void {
  writeVerdict(out, id, verdicts.digest)
  out.u32(Number(digest & 0xffffffffn))
  out.u32(Number(digest >> 32n))
}

/** Throws `MalformedBytes`. */
export function readDigest(bytes: Uint8Array | undefined): bigint {
  const reader = new ByteReader(bytes ?? emptyBytes)
  const low = BigInt(reader.u32())
  return low | (BigInt(reader.u32()) << 32n)
}

export interface VerdictOp {
  readonly id: number
  readonly verdict: number
  /** A view; or a digest. */
  readonly state: Uint8Array | undefined
}

export function readVerdict(body: ByteReader): VerdictOp {
  const id = body.varint()
  const verdict = body.u8()
  return { id, verdict, state: body.remaining === 0 ? undefined : body.rest() }
}
