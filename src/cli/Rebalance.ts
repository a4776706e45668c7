import { Effect } from "effect"
import { Command } from "./EffectCli.ts"
import * as Flags from "./Flags.ts"
import { longOrder, order } from "./Orders.ts"
import { note, print, printJson } from "./Output.ts"
import { nodeName } from "./receipts.ts"

interface Step {
  readonly _tag: "Move" | "Lead"
  readonly range: number
  readonly from: number
  readonly to: number
  readonly why?: "spread" | "share"
}

const reasons = {
  spread: "its replicas share a failure domain",
  share: "the one has more than its share",
} as const

function lineOf({ _tag, range, from, to, why }: Step): string {
  const places = `${nodeName(from)} -> ${nodeName(to)}`
  if (_tag === "Lead") return `lead range ${range}  ${places}`
  return `move range ${range}  ${places}  ${reasons[why ?? "share"]}`
}

export const rebalance = Command.make(
  "rebalance",
  {
    dryRun: Flags.toggle("dry-run", "Say what would be moved first, and move nothing"),
    json: Flags.json,
    ...Flags.cluster,
  },
  Effect.fnUntraced(function* (options) {
    const { dryRun, json } = options
    const verb = "cluster.rebalance"
    const args = { dryRun }
    const result = yield* dryRun
      ? order(options, verb, args)
      : longOrder(options, { verb, args, of: "rebalance", unit: "steps" })
    if (json) return yield* printJson(result)
    const steps = (result.steps ?? []) as ReadonlyArray<Step>
    for (const step of steps) yield* print(lineOf(step))
    if (dryRun && steps.length === 0) return yield* note("nothing to move")
    if (dryRun) return
    yield* note(
      `${result.moved} replicas were moved and ${result.transferred} ranges handed over: every node carries about its share`,
    )
  }),
).pipe(
  Command.withShortDescription("Even out what nodes carry"),
  Command.withDescription(
    "Moves replicas and leaders between nodes until each carries about as many as the others, and every range is spread over as many zones, racks and hosts as there are; a few at a time, while reads and " +
      "writes go on. What would bring nodes nearer by less than a threshold stays where it is. A node that does not answer, or is drained, is given nothing. With --dry-run, the first steps are printed, a line each, and nothing moves.",
  ),
  Command.withExamples([
    { command: "kvorum rebalance --dry-run", description: "what it would do" },
  ]),
)
