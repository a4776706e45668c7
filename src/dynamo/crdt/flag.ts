import { emptyBytes } from "../../lib/bytes.ts"
import type { ByteWriter } from "../../lib/byteWriter.ts"
import { type NewDot, putSet, type SetPut, SetState } from "./set.ts"

/**
 * The rule `crdt:flag`: a flag where enabling wins over a disabling that had not seen it. It is a set whose one possible
 * member is the empty string.
 */
export function putFlag(
  out: ByteWriter,
  local: Uint8Array | undefined,
  dot: NewDot,
  enabled: boolean,
  context?: Uint8Array,
): SetPut {
  if (enabled) return putSet(out, local, dot, { _tag: "Add", value: emptyBytes }, "flag")
  const seen = context === undefined ? {} : { context }
  return putSet(out, local, dot, { _tag: "Clear", ...seen }, "flag")
}

export function flagValue(state: Uint8Array | undefined): boolean {
  return SetState.read(state).members.length > 0
}
