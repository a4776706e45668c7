import type { MonotonicMs, NodeId } from "../../types.ts"
import type { ExchangeDifferences } from "./exchangeDifferences.ts"
import type { RunTask } from "./exchangeFills.ts"
import type { ExchangePass } from "./exchangePass.ts"
import type { Pull } from "./exchangePull.ts"

export interface Task extends RunTask {
  /** The second half of a complete exchange, which the other node has asked for after the first. */
  readonly isInvited?: boolean
}

/** A pull and its question under way. */
export interface UnderWay {
  readonly id: number
  readonly task: Task
  readonly pull: Pull
  step: number
  /** Of the question, to ask it once more; `undefined`: the next one waits for the budget. */
  body: Uint8Array | undefined
  mark: number
  attempts: number
  askAgainMs: MonotonicMs
}

/** Another owner of slots that this node owns. */
export interface Peer {
  readonly node: NodeId
  isUp: boolean
  underWay: UnderWay | undefined
  /** Runs that go before the pass, the next first. */
  urgent: Array<Task>
  readonly pass: ExchangePass
  restUntilMs: MonotonicMs
  readonly differences: ExchangeDifferences
}

export function isSameTask(left: RunTask, right: RunTask): boolean {
  return left.namespace === right.namespace && left.start === right.start
}
