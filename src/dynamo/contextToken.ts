import { ByteReader, MalformedBytes } from "../lib/byteReader.ts"
import { ByteWriter } from "../lib/byteWriter.ts"
import { crc32 } from "../lib/checksum.ts"
import type { NamespaceId } from "../types.ts"
import { readCounterState } from "./crdt/counter.ts"
import { type ConflictRule, headOf, ruleNumbers } from "./elements.ts"
import { checkVector } from "./versionVector.ts"

/**
 * What a reader gives back with his next write of the same key: what he has seen. To users it is opaque.
 *
 *     token = version u8 (1) ‖ rule u8 ‖ stamp u64 ‖ seen ‖ crc32 u32
 *     seen  = vector, or under `counter` the counter's state
 *
 * The stamp is the highest that was read (0: none, or the rule has none), so that a coordinator whose clock is behind stamps
 * above it. The checksum goes over namespace and key as well: a token of one key given with another is refused, and
 * so is one that was cut or mistyped. It is no protection against one who makes tokens up.
 *
 * A token comes from reading a whole state. The dot of one's own write makes none: as a vector's entry it would cover what
 * others wrote through the same node before, which its writer has never seen.
 */
const version = 1

/** Larger tokens are refused: replicas and live tenures bound what one holds. */
export const tokenBytesMax = 16 * 1024

export interface ContextToken {
  readonly rule: ConflictRule
  readonly stamp: number
  /** Bytes of a vector; under `counter` those of a state, or nothing. */
  readonly seen: Uint8Array
}

const rules = Object.keys(ruleNumbers) as ReadonlyArray<ConflictRule>

function checksum(token: Uint8Array, namespace: NamespaceId, key: Uint8Array): number {
  return crc32(token, crc32(key, namespace))
}

export function encodeToken(
  token: ContextToken,
  namespace: NamespaceId,
  key: Uint8Array,
): Uint8Array {
  const out = new ByteWriter(64)
  out.u8(version)
  out.u8(ruleNumbers[token.rule])
  out.u64(token.stamp)
  out.raw(token.seen)
  out.u32(checksum(out.bytes(), namespace, key))
  return out.take()
}

/** The token in `bytes`, with views into them, or `undefined` when it is none of this key. */
export function decodeToken(
  bytes: Uint8Array,
  namespace: NamespaceId,
  key: Uint8Array,
): ContextToken | undefined {
  if (bytes.length < 14 || bytes.length > tokenBytesMax) return undefined
  const body = bytes.subarray(0, bytes.length - 4)
  try {
    if (new ByteReader(bytes, body.length).u32() !== checksum(body, namespace, key))
      return undefined
    const reader = new ByteReader(body)
    if (reader.u8() !== version) return undefined
    const number = reader.u8()
    const rule = rules.find((name) => ruleNumbers[name] === number)
    if (rule === undefined) return undefined
    const stamp = reader.u64()
    const seen = body.subarray(reader.offset)
    if (rule !== "counter") {
      checkVector(reader)
      reader.end()
    } else if (seen.length > 0) {
      if (seen[0] !== headOf("counter")) return undefined
      readCounterState(seen)
    }
    return { rule, stamp, seen }
  } catch (error) {
    if (error instanceof MalformedBytes) return undefined
    throw error
  }
}

export function tokenText(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("base64url")
}

/** Bytes of what `tokenText` made, or `undefined`. */
export function tokenBytes(text: string): Uint8Array | undefined {
  if (text.length > (tokenBytesMax * 4) / 3 + 4) return undefined
  const bytes = new Uint8Array(Buffer.from(text, "base64url"))
  return tokenText(bytes) === text ? bytes : undefined
}
