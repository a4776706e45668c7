import type { Prng } from "../../src/lib/prng.ts"
import type { BoundsVersion, Version } from "../../src/types.ts"
import { type Command, conditions, encodeCommand, operations } from "../../src/wire/command.ts"
import type { KeyPlace } from "./keys.ts"
import type { RegisterOperation, RegisterValue } from "./linearizability.ts"
import type { Seen, Values } from "./values.ts"

/** A client identity: sequences, and which of them are unanswered. */
export interface Identity {
  readonly id: number
  nextSequence: number
  readonly unanswered: Set<number>
}

/** A mutation as the client keeps it over all its attempts; only the bounds that it names may change. */
export type Mutation = Omit<Command, "boundsVersion">

interface MutationOptions {
  readonly identity: Identity
  readonly sequence: number
  readonly key: KeyPlace
  readonly expiresAt: Version
}

function headOf({ identity, sequence, key, expiresAt }: MutationOptions) {
  let ackedBelow = sequence
  for (const unanswered of identity.unanswered) ackedBelow = Math.min(ackedBelow, unanswered)
  const { position } = key
  return { clientId: identity.id, sequence, ackedBelow, expiresAt, ttl: 0, position }
}

export function registerMutation(
  options: MutationOptions & {
    readonly kind: RegisterOperation["kind"]
    readonly seen: Seen | undefined
    readonly value: RegisterValue
    readonly values: Values
    readonly prng: Prng
  },
): Mutation {
  const { kind, seen, values } = options
  const condition = conditionFor(kind, seen, options.prng.chance(0.4))
  return {
    ...headOf(options),
    operation: kind === "delete" ? operations.delete : operations.put,
    condition,
    expectedVersion: condition === conditions.versionEquals ? (seen as Seen).version : 0,
    value: values.bytesOf(options.value),
    expectedValue: values.bytesOf(condition === conditions.valueEquals ? (seen as Seen).value : 0),
  }
}

export function addMutation(options: MutationOptions & { readonly delta: number }): Mutation {
  const value = new Uint8Array(8)
  new DataView(value.buffer).setBigInt64(0, BigInt(options.delta), true)
  return {
    ...headOf(options),
    operation: operations.add,
    condition: conditions.none,
    expectedVersion: 0,
    value,
    expectedValue: new Uint8Array(0),
  }
}

/** The bytes of an attempt. */
export function encodeMutation(mutation: Mutation, boundsVersion: BoundsVersion): Uint8Array {
  return encodeCommand({ ...mutation, boundsVersion })
}

/** The sum in the answer to an add. */
export function sumOf(value: Uint8Array): number {
  return Number(new DataView(value.buffer, value.byteOffset).getBigInt64(0, true))
}

function conditionFor(kind: RegisterOperation["kind"], seen: Seen | undefined, byValue: boolean) {
  if (kind !== "compareAndSet") return conditions.none
  if (seen === undefined || seen.value === 0) return conditions.absent
  return byValue ? conditions.valueEquals : conditions.versionEquals
}
