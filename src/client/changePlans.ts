import type { Position, RangeId } from "../types.ts"
import type { ChangedAnswer } from "../wire/answers.ts"
import type { RangeChange } from "../wire/native.ts"
import { type CallPlan, nothing, unfitting } from "./plans.ts"

/**
 * A change of a range itself. It names the version of what it changes, so a copy whose answer was lost can be sent again: at worst it is refused
 * because it has happened. Therefore a range that has moved on ends the call; whoever ordered the change looks at what is there now.
 */
export function changePlan(options: {
  readonly range: RangeId
  /** The start of the range. */
  readonly position: Position
  readonly change: RangeChange
}): CallPlan<ChangedAnswer> {
  const { range, position, change } = options
  return {
    position,
    isMutation: true,
    anyReplica: false,
    floors: undefined,
    request: (_, deadlineMs) => ({ _tag: "Range", id: 0, range, deadlineMs, change }),
    judge: (answer) => {
      if (answer._tag === "Changed") return { _tag: "Done", answer }
      if (answer._tag !== "Refused") return unfitting(answer)
      if (answer.refusal._tag !== "RangeMoved") return answer
      const detail = `range ${range} has changed since, or this change has happened already: look at it anew`
      return { _tag: "Failed", failure: { error: "RangeMoved", detail } }
    },
    renew: nothing,
    release: nothing,
  }
}
