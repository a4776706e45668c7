import { Effect } from "effect"
import type { ConflictRule } from "../dynamo/elements.ts"
import { ruleName } from "../dynamo/node/changes.ts"
import type { NamespaceInfo, RangeReport } from "../wire/answers.ts"
import { withCluster } from "./Cluster.ts"
import { Argument, Command, Flag } from "./EffectCli.ts"
import * as Flags from "./Flags.ts"
import { order } from "./Orders.ts"
import { note, print, printJson, usageError } from "./Output.ts"

/** What `namespace list` shows of one, from what the nodes say of its ranges. */
function rowOf(namespace: NamespaceInfo, reports: ReadonlyArray<RangeReport>) {
  const { id, name, mode, partitioning, eventual } = namespace
  if (eventual !== undefined) {
    const { conflict, copies, write, read } = eventual
    const what = { conflict: ruleName(conflict), write, read }
    return { id, name, mode, partitioning, ranges: 0, replicas: copies, ...what }
  }
  const ranges = reports.filter(({ descriptor }) => descriptor.namespace === id)
  const counts = ranges.map(({ descriptor }) => descriptor.replicas.length)
  const replicas = counts.length === 0 ? 0 : Math.min(...counts)
  return { id, name, mode, partitioning, ranges: ranges.length, replicas }
}

const list = Command.make(
  "list",
  { json: Flags.json, ...Flags.cluster },
  Effect.fnUntraced(function* (options) {
    const [namespaces, reports] = yield* withCluster(options, (client) =>
      Effect.all([client.namespaces(), client.ranges()]),
    )
    const rows = [...namespaces]
      .sort((left, right) => left.id - right.id)
      .map((namespace) => rowOf(namespace, reports))
    if (options.json) return yield* printJson({ namespaces: rows })
    for (const row of rows) {
      const { id, name, mode, partitioning, ranges, replicas } = row
      const how =
        "conflict" in row
          ? `conflict ${row.conflict}  write ${row.write}  read ${row.read}`
          : `${partitioning}  ranges ${ranges}`
      yield* print(`${id}  ${name}  ${mode}  ${how}  replicas ${replicas}`)
    }
  }),
).pipe(
  Command.withShortDescription("Show the namespaces"),
  Command.withDescription(
    "Prints every namespace: its id, name and mode; of a strong one its partitioning, how many ranges it has, and the replicas that each of them has at least; of an eventual one its conflict rule, the levels of requests that name none, and the copies of each key. `system` holds the cluster's own data: anyone may read it.",
  ),
)

const name = Argument.String("name").pipe(
  Argument.withDescription("A letter, then up to 63 letters, digits, dots, dashes and underscores"),
)

const create = Command.make(
  "create",
  {
    name,
    mode: Flag.String("mode").pipe(
      Flag.withMetavar("MODE"),
      Flag.withDescription(
        "strong (the default): linearizable, refuses when it cannot be sure; eventual: always takes writes, and merges",
      ),
      Flag.withDefault("strong"),
    ),
    partitioning: Flag.String("partitioning").pipe(
      Flag.withMetavar("HOW"),
      Flag.withDescription(
        "hash (the default): keys are spread over all ranges; ordered: scans come in order of keys",
      ),
      Flag.withDefault("hash"),
    ),
    ranges: Flags.maybe(
      Flag.Int("ranges").pipe(
        Flag.withMetavar("N"),
        Flag.withDescription("Ranges to begin with; default 1"),
      ),
    ),
    replicas: Flags.maybe(
      Flag.Int("replicas").pipe(
        Flag.withMetavar("N"),
        Flag.withDescription(
          "Replicas of each range, or copies of each key; default 3, or as many as there are nodes",
        ),
      ),
    ),
    conflict: Flags.maybe(
      Flag.String("conflict").pipe(
        Flag.withMetavar("RULE"),
        Flag.withDescription(
          "Of an eventual namespace: siblings (the default) keeps all values that no write has seen; lww the last one; crdt:counter, crdt:flag, crdt:register, crdt:set merge by themselves",
        ),
      ),
    ),
    write: Flags.maybe(
      Flag.String("write").pipe(
        Flag.withMetavar("LEVEL"),
        Flag.withDescription(
          "Of an eventual namespace: copies that a write waits for where it says nothing else: one, quorum (the default), all or localQuorum",
        ),
      ),
    ),
    read: Flags.maybe(
      Flag.String("read").pipe(
        Flag.withMetavar("LEVEL"),
        Flag.withDescription("The same of a read"),
      ),
    ),
    json: Flags.json,
    ...Flags.cluster,
  },
  Effect.fnUntraced(function* (options) {
    const { name, mode, partitioning, ranges, replicas, conflict, write, read, json } = options
    if (mode !== "strong" && mode !== "eventual") {
      return yield* usageError(`--mode "${mode}" is not known: use strong or eventual`)
    }
    if (partitioning !== "hash" && partitioning !== "ordered") {
      return yield* usageError(`--partitioning "${partitioning}" is neither hash nor ordered`)
    }
    for (const [flag, count] of [
      ["--ranges", ranges],
      ["--replicas", replicas],
    ] as const) {
      if (count !== undefined && count < 1) return yield* usageError(`${flag} must be 1 or more`)
    }
    const counts = {
      ...(ranges === undefined ? {} : { ranges }),
      ...(replicas === undefined ? {} : { replicas }),
      ...(conflict === undefined ? {} : { conflict }),
      ...(write === undefined ? {} : { write }),
      ...(read === undefined ? {} : { read }),
    }
    const args = { name, mode, partitioning, ...counts }
    const result = yield* order(options, "namespace.create", args)
    yield* json
      ? printJson(result)
      : print(`namespace ${name} is there: ${mode}, ${howOf(result, partitioning)}`)
  }),
).pipe(
  Command.withShortDescription("Make a namespace"),
  Command.withDescription(
    "Makes a namespace and waits until it takes data. In a hash namespace keys are spread over all its ranges and slots, and a common hash tag ({user1}:name) keeps keys together; " +
      "in an ordered one neighbouring keys lie together and scans come in order. More ranges spread the work over more nodes.",
  ),
  Command.withExamples([
    {
      command: "kvorum namespace create events --mode strong --partitioning ordered --ranges 4",
      description: "scans in order of keys",
    },
    {
      command: "kvorum namespace create carts --mode eventual --conflict crdt:set",
      description: "sets that can be added to on both sides of a cut",
    },
  ]),
)

function howOf(result: unknown, partitioning: string): string {
  const { conflict, replicas } = result as { conflict?: ConflictRule; replicas?: number }
  return conflict === undefined ? partitioning : `${ruleName(conflict)}, ${replicas} copies`
}

const remove = Command.make(
  "delete",
  { name, json: Flags.json, ...Flags.cluster },
  Effect.fnUntraced(function* (options) {
    const { name, json } = options
    const result = yield* order(options, "namespace.delete", { name })
    yield* json ? printJson(result) : note(`namespace ${name} and all that was in it is gone`)
  }),
).pipe(
  Command.withShortDescription("Delete a namespace and everything in it"),
  Command.withDescription(
    "Deletes a namespace with all its keys. There is no way back, and nobody is asked again.",
  ),
)

export const namespace = Command.make("namespace").pipe(
  Command.withShortDescription("Make, list and delete namespaces"),
  Command.withDescription(
    "A namespace is a named set of keys with one mode, and one way to spread them.",
  ),
  Command.withSubcommands([create, list, remove]),
)
