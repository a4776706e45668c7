import type { Position, Version } from "../types.ts"
import type { DataAnswer, Refusal } from "../wire/answers.ts"
import type { WireRequest } from "../wire/native.ts"
import type { Route } from "./routes.ts"
import type { Session } from "./session.ts"
import type { SessionFloors } from "./sessionFloors.ts"

/** How each kind of call becomes a request, and what its answers mean: what readPlans.ts, mutationPlans.ts and changePlans.ts have in common. */

/** What the node's answer to one copy of a request means. */
export type Verdict<A> =
  | { readonly _tag: "Done"; readonly answer: A }
  | { readonly _tag: "Refused"; readonly refusal: Refusal }
  /** Refused as too old, without a trace: it may be made anew, with a new identity. */
  | { readonly _tag: "Expired" }
  /** No retry helps, and whatever became of earlier copies is known by this. */
  | { readonly _tag: "Failed"; readonly failure: Failure }

/** The error that ends a call, as data. */
export interface Failure {
  readonly error: "RangeMoved" | "InvalidRequest"
  readonly detail: string
}

/** What differs between kinds of calls. */
export interface CallPlan<A> {
  /** Decides the range. */
  readonly position: Position
  /** A copy of it whose answer was lost may have changed something. */
  readonly isMutation: boolean
  /** Any replica may answer, not only the leader. */
  readonly anyReplica: boolean
  /** What the user's session has seen, raised by the answer. */
  readonly floors: SessionFloors | undefined
  /** Why it cannot be sent to the range of this route at all. Asked while no copy can have been carried out. */
  problem?(route: Route): Failure | undefined
  /** The request for this route. The first call fixes what every copy carries. */
  request(route: Route, deadlineMs: number): WireRequest
  judge(answer: DataAnswer): Verdict<A>
  /** Forgets what every copy carried: the next `request` begins anew. Only when no copy can be under way. */
  renew(): void
  /** The call has ended. */
  release(): void
}

/** Gives a mutation its identity, when its range is first known. */
export interface Identities {
  session(route: Route): Session
  expiresAt(route: Route, deadlineMs: number): Version
}

export function unfitting(answer: DataAnswer): Verdict<never> {
  const message = `the node answered with ${answer._tag}, which is no answer to this request`
  return { _tag: "Refused", refusal: { _tag: "InvalidRequest", message } }
}

export const nothing = () => {}
