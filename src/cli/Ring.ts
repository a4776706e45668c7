import { Effect } from "effect"
import { withCluster } from "./Cluster.ts"
import { Command } from "./EffectCli.ts"
import * as Flags from "./Flags.ts"
import { note, print, printJson } from "./Output.ts"
import { nodeName } from "./receipts.ts"

interface Shown {
  readonly version: number
  readonly strategy: string
  readonly slotsToMove: number
  readonly changing: { readonly pending: number; readonly filled: number }
  readonly members: ReadonlyArray<{
    readonly node: number
    readonly zone: string
    readonly rack: string
    readonly host: string
    readonly state: string
    readonly virtualNodes: number
    readonly firstOf: number
    readonly ownerOfThree: number
  }>
}

export const ring = Command.make(
  "ring",
  { json: Flags.json, ...Flags.cluster },
  Effect.fnUntraced(function* (options) {
    const shown = (yield* withCluster(options, (client) =>
      client.admin("ring.show", {}),
    )) as Shown | null
    if (options.json) return yield* printJson({ ring: shown })
    if (shown === null) return yield* note("there is no ring yet: the cluster is being founded")
    const { version, strategy, slotsToMove, changing, members } = shown
    const moving =
      slotsToMove === 0
        ? "at rest"
        : `${slotsToMove} slots to move, ${changing.pending} pending, ${changing.filled} filled`
    yield* print(`version ${version}  strategy ${strategy}  ${moving}`)
    for (const member of members) {
      const { node, zone, rack, host, state, virtualNodes, firstOf, ownerOfThree } = member
      const where = [zone && `zone ${zone}`, rack && `rack ${rack}`, `host ${host}`]
      const slots = `first owner of ${firstOf} slots, one of three of ${ownerOfThree}`
      yield* print(
        `${nodeName(node)}  ${state}  ${where.filter(Boolean).join("  ")}  ${virtualNodes} virtual nodes  ${slots}`,
      )
    }
  }),
).pipe(
  Command.withShortDescription("Show the ring of the eventual namespaces"),
  Command.withDescription(
    "Prints the ring that places the keys of eventual namespaces: its version, whether slots are on their way from owner to owner, and of each node its failure domains, its virtual nodes, and how many of the 16,384 slots it is the first owner of, or one of the first three.",
  ),
)
