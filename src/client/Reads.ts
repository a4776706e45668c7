import type { Effect } from "effect"
import type { KvorumError } from "../Errors.ts"
import { positionIn } from "../lib/position.ts"
import { keyProblem } from "../wire/limits.ts"
import type { Found, ReadOptions } from "./Api.ts"
import { type Caller, invalid } from "./Caller.ts"
import { levelOf } from "./ReadLevel.ts"
import { getPlan } from "./readPlans.ts"

/** Reads as Effects over the core. */
export class Reads {
  private readonly caller: Caller

  constructor(caller: Caller) {
    this.caller = caller
  }

  get(
    namespace: string,
    key: Uint8Array,
    options: ReadOptions | undefined,
  ): Effect.Effect<Found, KvorumError> {
    const level = levelOf(options)
    if (typeof level === "string") return invalid(level)
    const problem = keyProblem(key.length)
    if (problem !== undefined) return invalid(problem)
    return this.caller.within(namespace, options, ({ namespace: found, leftMs, floors }) =>
      this.caller.call(
        getPlan({ ...level, floors, position: positionIn(found, key) }),
        leftMs,
        ({ value, version, receipt }): Found =>
          value === undefined
            ? { found: false, receipt }
            : // An own copy: a view would keep everything that arrived with it.
              { found: true, value: value.slice(), version, receipt },
      ),
    )
  }
}
