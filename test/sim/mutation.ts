import type { Prng } from "../../src/lib/prng.ts"
import type { Version } from "../../src/types.ts"
import { conditions, encodeCommand, operations } from "../../src/wire/command.ts"
import type { KeyPlace } from "./keys.ts"
import type { RegisterOperation, RegisterValue } from "./linearizability.ts"
import type { Seen, Values } from "./values.ts"

/** A client identity: sequences, and which of them are unanswered. */
export interface Identity {
  readonly id: number
  nextSequence: number
  readonly unanswered: Set<number>
}

/** A mutation as the client sends it, on every attempt the same bytes. */
export function encodeMutation(options: {
  readonly identity: Identity
  readonly sequence: number
  readonly key: KeyPlace
  readonly kind: RegisterOperation["kind"]
  readonly seen: Seen | undefined
  readonly value: RegisterValue
  readonly expiresAt: Version
  readonly values: Values
  readonly prng: Prng
}): Uint8Array {
  const { identity, sequence, key, kind, seen, values } = options
  const condition = conditionFor(kind, seen, options.prng.chance(0.4))
  let ackedBelow = sequence
  for (const unanswered of identity.unanswered) ackedBelow = Math.min(ackedBelow, unanswered)
  return encodeCommand({
    operation: kind === "delete" ? operations.delete : operations.put,
    condition,
    boundsVersion: key.range.boundsVersion,
    clientId: identity.id,
    sequence,
    ackedBelow,
    expiresAt: options.expiresAt,
    expectedVersion: condition === conditions.versionEquals ? (seen as Seen).version : 0,
    position: key.position,
    value: values.bytesOf(options.value),
    expectedValue: values.bytesOf(condition === conditions.valueEquals ? (seen as Seen).value : 0),
  })
}

function conditionFor(kind: RegisterOperation["kind"], seen: Seen | undefined, byValue: boolean) {
  if (kind !== "compareAndSet") return conditions.none
  if (seen === undefined || seen.value === 0) return conditions.absent
  return byValue ? conditions.valueEquals : conditions.versionEquals
}
