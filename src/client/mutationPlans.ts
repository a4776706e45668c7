import { compareBytes, emptyBytes } from "../lib/bytes.ts"
import type { Position, RangeDescriptor, Version } from "../types.ts"
import type { DataAnswer, MutatedAnswer } from "../wire/answers.ts"
import { type BatchOperation, encodeBatch } from "../wire/batch.ts"
import {
  type Command,
  commandStatuses,
  conditions,
  encodeCommand,
  operations,
} from "../wire/command.ts"
import { isResult } from "../wire/commandCodes.ts"
import { type CallPlan, type Failure, type Identities, unfitting, type Verdict } from "./plans.ts"
import type { Session } from "./session.ts"
import type { SessionFloors } from "./sessionFloors.ts"

/** How puts, deletes, adds and atomic batches become commands, and what their answers mean. */

export type Condition =
  | { readonly _tag: "None" }
  | { readonly _tag: "Version"; readonly version: Version }
  | { readonly _tag: "Absent" }
  | { readonly _tag: "Value"; readonly value: Uint8Array }

/** One change of one key. */
export interface Change {
  readonly operation: "put" | "delete" | "add"
  readonly position: Position
  /** Of an add: the eight bytes of its number (lib/int64.ts). */
  readonly value: Uint8Array
  readonly condition: Condition
  /** Microseconds; 0 = none. */
  readonly ttl: number
}

/** What a command says besides its identity. */
export type CommandBody = Omit<Command, Identity>
type Identity = "boundsVersion" | "clientId" | "sequence" | "ackedBelow" | "expiresAt"

export function changeBody(change: Change): CommandBody {
  return bodyOf(change)
}

/** All of them at once, or none. At least one. */
export function batchBody(changes: ReadonlyArray<Change>): CommandBody {
  return {
    operation: operations.batch,
    condition: conditions.none,
    expectedVersion: 0,
    ttl: 0,
    position: (changes[0] as Change).position,
    value: encodeBatch(changes.map(bodyOf)),
    expectedValue: emptyBytes,
  }
}

function bodyOf(change: Change): BatchOperation {
  const { operation, condition, ttl, position, value } = change
  return {
    operation: operations[operation],
    condition: conditionCode(condition),
    expectedVersion: condition._tag === "Version" ? condition.version : 0,
    ttl,
    position,
    value,
    expectedValue: condition._tag === "Value" ? condition.value : emptyBytes,
  }
}

function conditionCode(condition: Condition): Command["condition"] {
  switch (condition._tag) {
    case "None":
      return conditions.none
    case "Version":
      return conditions.versionEquals
    case "Absent":
      return conditions.absent
    case "Value":
      return conditions.valueEquals
    default:
      return condition satisfies never
  }
}

/** Where these lie in a command (wire/command.ts). */
const boundsVersionOffset = 12
const ackedBelowOffset = 32

export function mutatePlan(options: {
  readonly body: CommandBody
  /** Of a batch: all of its positions, which must lie in one range. */
  readonly positions?: ReadonlyArray<Position>
  readonly deadlineMs: number
  readonly identities: Identities
  readonly floors: SessionFloors | undefined
}): CallPlan<MutatedAnswer> {
  const { body, positions, identities, floors } = options
  let session: Session | undefined
  let sequence = 0
  let command = emptyBytes
  const settle = () => {
    session?.settle(sequence)
    session = undefined
  }
  return {
    position: body.position,
    isMutation: true,
    anyReplica: false,
    floors,
    problem: ({ descriptor }) =>
      positions === undefined ? undefined : spreadProblem(positions, descriptor),
    request: (route, deadlineMs) => {
      const { id: range, boundsVersion } = route.descriptor
      if (session === undefined) {
        session = identities.session(route)
        const identity = session.begin()
        sequence = identity.sequence
        command = encodeCommand({
          ...body,
          ...identity,
          boundsVersion,
          clientId: session.clientId,
          expiresAt: identities.expiresAt(route, options.deadlineMs),
        })
      } else {
        // Another copy of the same one, also where its range was split meanwhile: the half has the parent's table of results.
        const view = new DataView(command.buffer)
        view.setUint32(boundsVersionOffset, boundsVersion, true)
        // Where nothing but copies comes to a range whose table is full, they alone can make room in it.
        view.setBigUint64(ackedBelowOffset, BigInt(session.ackedBelow), true)
      }
      return { _tag: "Mutate", id: 0, range, deadlineMs, command }
    },
    judge: judgeMutation,
    renew: settle,
    release: settle,
  }
}

function spreadProblem(
  positions: ReadonlyArray<Position>,
  range: RangeDescriptor,
): Failure | undefined {
  const { start, end } = range
  for (const position of positions) {
    const isInside =
      compareBytes(start, position) <= 0 && (end.length === 0 || compareBytes(position, end) < 0)
    if (isInside) continue
    return {
      error: "InvalidRequest",
      detail:
        "the keys of an atomic batch must lie in one range, and these lie in several: in a hash namespace, give them one hash tag, as in {user1}:name and {user1}:mail, " +
        "which keeps them in one slot, and so in one range unless one was cut inside that slot",
    }
  }
  return undefined
}

function judgeMutation(answer: DataAnswer): Verdict<MutatedAnswer> {
  if (answer._tag === "Refused") return answer
  if (answer._tag !== "Mutated") return unfitting(answer)
  if (isResult(answer.status)) return { _tag: "Done", answer }
  if (answer.status === commandStatuses.expired) return { _tag: "Expired" }
  if (answer.status === commandStatuses.rangeMoved) {
    return { _tag: "Refused", refusal: { _tag: "RangeMoved", descriptors: [] } }
  }
  return { _tag: "Refused", refusal: { _tag: "Overloaded", what: "the range's session table" } }
}
