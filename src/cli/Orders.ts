import { Effect } from "effect"
import { parseNode } from "./addresses.ts"
import { type ClusterFlags, withCluster } from "./Cluster.ts"
import { Argument, Flag } from "./EffectCli.ts"
import { type CommandEnded, usageError } from "./Output.ts"

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
    Effect.map((result) =>
      typeof result === "object" && result !== null
        ? (result as Readonly<Record<string, unknown>>)
        : {},
    ),
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
