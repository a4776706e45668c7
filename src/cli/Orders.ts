import { Effect } from "effect"
import type { ClientShape } from "../client/Client.ts"
import { InvalidRequest, type KvorumError } from "../Errors.ts"
import { parseNode } from "./addresses.ts"
import { type ClusterFlags, withCluster } from "./Cluster.ts"
import { Argument, Flag } from "./EffectCli.ts"
import { type CommandEnded, note, usageError } from "./Output.ts"
import { ProgressLine } from "./Progress.ts"

/** What the commands that change the cluster share: each gives one order to a node, which carries it out. */

/** Time for an order that copies data: it is refused, or goes on by itself, beyond that. */
const orderDeadlineMs = 600_000

/** The result, an object; its shape is that of the verb (admin/verbs.ts). */
export const order = (
  options: ClusterFlags & { readonly json: boolean },
  verb: string,
  args: Readonly<Record<string, unknown>>,
): Effect.Effect<Readonly<Record<string, unknown>>, CommandEnded> =>
  withCluster(options, (client) => client.admin(verb, args, { deadlineMs: orderDeadlineMs })).pipe(
    Effect.map(asObject),
  )

function asObject(result: unknown): Readonly<Record<string, unknown>> {
  const isObject = typeof result === "object" && result !== null
  return isObject ? (result as Readonly<Record<string, unknown>>) : {}
}

interface Known {
  readonly state: "running" | "done" | "failed"
  readonly progress?: {
    readonly done: number
    readonly total: number
    readonly doneBytes: number
    readonly totalBytes: number
  }
  readonly result?: unknown
  readonly error?: { readonly message: string }
}

const lookMs = 500
const lookDeadlineMs = 3000

/**
 * An order that may take long, and goes on whoever carries it out dies (admin/LongOrders.ts): shows how far it is on stderr, and asks any node what has become of it when
 * the one that took it says no more.
 */
export const longOrder = (
  options: ClusterFlags & { readonly json: boolean },
  what: {
    readonly verb: string
    readonly args: Readonly<Record<string, unknown>>
    /** What progress is shown of. */
    readonly of: string
    readonly unit?: string
  },
): Effect.Effect<Readonly<Record<string, unknown>>, CommandEnded> =>
  withCluster(options, (client) =>
    Effect.suspend(() => {
      const id = crypto.randomUUID()
      const line = new ProgressLine()
      const given = client.admin(
        what.verb,
        { ...what.args, order: id },
        { deadlineMs: orderDeadlineMs },
      )
      // The one that took it says no more: from then on only what is written down counts.
      let lost: KvorumError | undefined
      const waited = Effect.catchTag(given, "OutcomeUnknown", (error) => {
        lost = error
        return Effect.never
      })
      const watched = watch(client, { ...what, id, line, lost: () => lost })
      return Effect.raceFirst(waited, watched).pipe(Effect.ensuring(Effect.sync(() => line.end())))
    }),
  ).pipe(Effect.map(asObject))

/** Ends with what the order ended with. */
const watch = Effect.fnUntraced(function* (
  client: ClientShape,
  options: {
    readonly id: string
    readonly of: string
    readonly unit?: string
    readonly line: ProgressLine
    readonly lost: () => KvorumError | undefined
  },
): Effect.fn.Return<unknown, KvorumError> {
  const { id, of, unit = "replicas", line, lost } = options
  for (;;) {
    yield* Effect.sleep(lookMs)
    const asked = client.admin("order.show", { order: id }, { deadlineMs: lookDeadlineMs })
    const known = yield* Effect.result(asked)
    if (known._tag === "Failure") {
      // It was never written down.
      const error = lost()
      if (known.failure._tag === "InvalidRequest" && error !== undefined) return yield* error
      continue
    }
    const { state, progress, result, error } = known.success as Known
    if (state === "done") return result
    if (state === "failed") {
      return yield* new InvalidRequest({ detail: error?.message ?? "it failed" })
    }
    if (progress === undefined) continue
    const { done, total, doneBytes, totalBytes } = progress
    line.show({ path: of, doneBytes, totalBytes, pieces: { done, total, unit } })
  }
})

/** Said where an order has left copies nearer to each other than they were. */
export const noteCrowded = ({ crowded }: Readonly<Record<string, unknown>>): Effect.Effect<void> =>
  typeof crowded !== "number"
    ? Effect.void
    : note(
        `the replicas of ${crowded} ranges are now in fewer zones, racks or hosts than before: no other node could take them; let one join there, then kvorum rebalance`,
      )

export const nodeFlag = (name: string, description: string) =>
  Flag.String(name).pipe(Flag.withMetavar("NODE"), Flag.withDescription(description))

export const rangeArgument = Argument.Int("id").pipe(
  Argument.withDescription("Id of a range, as `kvorum range list` shows it"),
)

/** The id in a node's name. */
export const nodeOf = (what: string, word: string): Effect.Effect<number, CommandEnded> => {
  const node = parseNode(word)
  return node === undefined
    ? Effect.fail(usageError(`${what} "${word}" is not the name of a node, such as n4`))
    : Effect.succeed(node)
}
