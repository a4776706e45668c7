import { compareBytes, emptyBytes } from "../lib/bytes.ts"
import type { Consistency, Position, Version } from "../types.ts"
import type {
  DataAnswer,
  MutatedAnswer,
  PageEntry,
  Receipt,
  Refusal,
  ValueAnswer,
} from "../wire/answers.ts"
import {
  type Command,
  type CommandStatus,
  commandStatuses,
  conditions,
  encodeCommand,
  operations,
} from "../wire/command.ts"
import type { WireRequest } from "../wire/native.ts"
import type { Route } from "./routes.ts"
import type { Session } from "./session.ts"

/** How each kind of call becomes a request, and what its answers mean. */

/** What the node's answer to one copy of a request means. */
export type Verdict<A> =
  | { readonly _tag: "Done"; readonly answer: A }
  | { readonly _tag: "Refused"; readonly refusal: Refusal }
  /** Refused as too old, without a trace: it may be made anew, with a new identity. */
  | { readonly _tag: "Expired" }

/** What differs between kinds of calls. */
export interface CallPlan<A> {
  /** Decides the range. */
  readonly position: Position
  /** A copy of it whose answer was lost may have changed something. */
  readonly isMutation: boolean
  /** Any replica may answer, not only the leader. */
  readonly anyReplica: boolean
  /** The request for this route. The first call fixes what every copy carries. */
  request(route: Route, deadlineMs: number): WireRequest
  judge(answer: DataAnswer): Verdict<A>
  /** Forgets what every copy carried: the next `request` begins anew. Only when no copy can be under way. */
  renew(): void
  /** The call has ended. */
  release(): void
}

export type Condition =
  | { readonly _tag: "None" }
  | { readonly _tag: "Version"; readonly version: Version }
  | { readonly _tag: "Absent" }
  | { readonly _tag: "Value"; readonly value: Uint8Array }

export interface Mutation {
  readonly operation: keyof typeof operations
  readonly position: Position
  readonly value: Uint8Array
  readonly condition: Condition
}

/** Gives a mutation its identity, when its range is first known. */
export interface Identities {
  session(route: Route): Session
  expiresAt(route: Route, deadlineMs: number): Version
}

/** Offset of the boundsVersion in a command (wire/command.ts). */
const boundsVersionOffset = 12

export function mutatePlan(options: {
  readonly mutation: Mutation
  readonly deadlineMs: number
  readonly identities: Identities
}): CallPlan<MutatedAnswer> {
  const { mutation, identities } = options
  let session: Session | undefined
  let sequence = 0
  let command = emptyBytes
  const settle = () => {
    session?.settle(sequence)
    session = undefined
  }
  return {
    position: mutation.position,
    isMutation: true,
    anyReplica: false,
    request: (route, deadlineMs) => {
      const { id: range, boundsVersion } = route.descriptor
      if (session === undefined) {
        session = identities.session(route)
        const identity = session.begin()
        sequence = identity.sequence
        command = encodeCommand({
          ...commandOf(mutation),
          ...identity,
          boundsVersion,
          clientId: session.clientId,
          expiresAt: identities.expiresAt(route, options.deadlineMs),
        })
      } else {
        new DataView(command.buffer).setUint32(boundsVersionOffset, boundsVersion, true)
      }
      return { _tag: "Mutate", id: 0, range, deadlineMs, command }
    },
    judge: judgeMutation,
    renew: settle,
    release: settle,
  }
}

type Identity = "boundsVersion" | "clientId" | "sequence" | "ackedBelow" | "expiresAt"

function commandOf(mutation: Mutation): Omit<Command, Identity> {
  const { condition } = mutation
  return {
    operation: operations[mutation.operation],
    condition: conditionCode(condition),
    expectedVersion: condition._tag === "Version" ? condition.version : 0,
    position: mutation.position,
    value: mutation.value,
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

/** The statuses that are results; the others are refusals. */
const results: ReadonlySet<CommandStatus> = new Set([
  commandStatuses.done,
  commandStatuses.conditionFalse,
  commandStatuses.absent,
])

function judgeMutation(answer: DataAnswer): Verdict<MutatedAnswer> {
  if (answer._tag === "Refused") return answer
  if (answer._tag !== "Mutated") return unfitting(answer)
  if (results.has(answer.status)) return { _tag: "Done", answer }
  if (answer.status === commandStatuses.expired) return { _tag: "Expired" }
  if (answer.status === commandStatuses.rangeMoved) {
    return { _tag: "Refused", refusal: { _tag: "RangeMoved", descriptors: [] } }
  }
  return { _tag: "Refused", refusal: { _tag: "Overloaded", what: "the range's session table" } }
}

function unfitting(answer: DataAnswer): Verdict<never> {
  const message = `the node answered with ${answer._tag}, which is no answer to this request`
  return { _tag: "Refused", refusal: { _tag: "InvalidRequest", message } }
}

const nothing = () => {}

export function getPlan(options: {
  readonly position: Position
  readonly level: Consistency
}): CallPlan<ValueAnswer> {
  const { position, level } = options
  return {
    position,
    isMutation: false,
    anyReplica: level === "local",
    request: (route, deadlineMs) => ({
      _tag: "Get",
      id: 0,
      range: route.descriptor.id,
      deadlineMs,
      level,
      boundsVersion: route.descriptor.boundsVersion,
      position,
    }),
    judge: (answer) => {
      if (answer._tag === "Refused") return answer
      return answer._tag === "Value" ? { _tag: "Done", answer } : unfitting(answer)
    },
    renew: nothing,
    release: nothing,
  }
}

export interface ScanInterval {
  readonly lower: Position
  /** Exclusive. */
  readonly upper: Position
  readonly prefix: Uint8Array
}

export interface RangePage {
  readonly entries: ReadonlyArray<PageEntry>
  /** Where to go on in the whole interval; `undefined` at its end. */
  readonly next: Position | undefined
  readonly receipt: Receipt
}

/** One page of one range: the part of `interval` that lies in the range of its lower end. */
export function pagePlan(options: {
  readonly interval: ScanInterval
  readonly level: Consistency
  readonly limit: number
}): CallPlan<RangePage> {
  const { interval, level, limit } = options
  let upper = interval.upper
  return {
    position: interval.lower,
    isMutation: false,
    anyReplica: level === "local",
    request: (route, deadlineMs): WireRequest => {
      const { id: range, end, boundsVersion } = route.descriptor
      upper = end.length > 0 && compareBytes(end, interval.upper) < 0 ? end : interval.upper
      const { lower, prefix } = interval
      return {
        _tag: "Scan",
        id: 0,
        range,
        deadlineMs,
        level,
        boundsVersion,
        lower,
        upper,
        limit,
        prefix,
      }
    },
    judge: (answer) => {
      if (answer._tag === "Refused") return answer
      if (answer._tag !== "Page") return unfitting(answer)
      const next = answer.next ?? (compareBytes(upper, interval.upper) < 0 ? upper : undefined)
      const { entries, receipt } = answer
      return { _tag: "Done", answer: { entries, next, receipt } }
    },
    renew: nothing,
    release: nothing,
  }
}
