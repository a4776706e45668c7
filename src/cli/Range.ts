import { Effect } from "effect"
import type { ClientShape } from "../client/Client.ts"
import { InvalidRequest, type KvorumError } from "../Errors.ts"
import { compareBytes, toHex } from "../lib/bytes.ts"
import { positionIn } from "../lib/position.ts"
import { withCluster } from "./Cluster.ts"
import { Argument, Command, Flag } from "./EffectCli.ts"
import * as Flags from "./Flags.ts"
import { longOrder, nodeFlag, nodeOf, noteCrowded, order, rangeArgument } from "./Orders.ts"
import { note, print, printJson, usageError } from "./Output.ts"
import { rangeList } from "./Ranges.ts"
import { nodeName } from "./receipts.ts"
import { argumentBytes } from "./textBytes.ts"

/** The position at which a range is cut, in hexadecimal: that of a key of its namespace. */
const positionOf = Effect.fnUntraced(function* (
  client: ClientShape,
  range: number,
  key: Uint8Array,
): Effect.fn.Return<string, KvorumError> {
  const [namespaces, reports] = yield* Effect.all([client.namespaces(), client.ranges()])
  const report = reports.find(({ descriptor }) => descriptor.id === range)
  if (report === undefined) {
    return yield* new InvalidRequest({
      detail: `there is no range ${range}: see kvorum range list`,
    })
  }
  const { start, end, namespace: id } = report.descriptor
  const namespace = namespaces.find((each) => each.id === id)
  if (namespace === undefined) {
    return yield* new InvalidRequest({
      detail: `range ${range} belongs to no namespace, so no key lies in it`,
    })
  }
  const at = positionIn(namespace, key)
  const isInside = compareBytes(start, at) < 0 && (end.length === 0 || compareBytes(at, end) < 0)
  if (isInside) return toHex(at)
  const holder = reports.find(({ descriptor }) => {
    const isBelow = descriptor.end.length === 0 || compareBytes(at, descriptor.end) < 0
    return compareBytes(descriptor.start, at) <= 0 && isBelow
  })
  const place =
    holder?.descriptor.id === range ? "is its first" : `lies in range ${holder?.descriptor.id}`
  return yield* new InvalidRequest({
    detail: `range ${range} cannot be cut at this key, which ${place}: --at names the first key of the right half`,
  })
})

const split = Command.make(
  "split",
  {
    range: rangeArgument,
    at: Flags.maybe(
      Flag.String("at").pipe(
        Flag.withMetavar("KEY"),
        Flag.withDescription("First key of the right half; default: about the middle of the data"),
      ),
    ),
    hex: Flags.toggle("hex", "The key of --at is hexadecimal"),
    json: Flags.json,
    ...Flags.cluster,
  },
  Effect.fnUntraced(function* (options) {
    const { range, json, hex } = options
    const key = options.at === undefined ? undefined : argumentBytes(options.at, hex)
    if (options.at !== undefined && key === undefined) {
      return yield* usageError(`--at "${options.at}" is not hexadecimal`)
    }
    if (options.at === undefined && hex) return yield* usageError("--hex is for the key of --at")
    const at =
      key === undefined
        ? undefined
        : yield* withCluster(options, (client) => positionOf(client, range, key))
    const args = at === undefined ? { range } : { range, at }
    const result = yield* order(options, "range.split", args)
    yield* json ? printJson(result) : print(`${result.left} ${result.right}`)
  }),
).pipe(
  Command.withShortDescription("Cut a range in two"),
  Command.withDescription(
    "Cuts a range in two and prints the ids of both halves; the left one keeps its id. Reads and writes go on meanwhile: clients find the halves by themselves. In a hash namespace keys lie in order of " +
      "slot, then key, so --at cuts at the slot of its key.",
  ),
  Command.withExamples([
    { command: "kvorum range split 4", description: "about the middle" },
    { command: "kvorum range split 4 --at user:5000", description: "user:5000 goes right" },
  ]),
)

const merge = Command.make(
  "merge",
  {
    range: rangeArgument,
    other: Argument.Int("other").pipe(Argument.withDescription("Its neighbour on either side")),
    json: Flags.json,
    ...Flags.cluster,
  },
  Effect.fnUntraced(function* (options) {
    const { range, other, json } = options
    if (range === other) return yield* usageError(`range ${range} is named twice`)
    const result = yield* order(options, "range.merge", { range, with: other })
    const { id } = result.descriptor as { readonly id: number }
    yield* json ? printJson(result) : print(`${id}`)
  }),
).pipe(
  Command.withShortDescription("Make one range of two neighbours"),
  Command.withDescription(
    "Makes one range of two neighbours of a namespace and prints its id, that of the left one. The replicas of the right one are moved to the nodes of the left one first, as by range move. " +
      "Then all replicas of both must answer: a node that is down is waited for until the order's deadline. Reads go on throughout, writes to the right one wait for a moment.",
  ),
  Command.withExamples([{ command: "kvorum range merge 4 9", description: "9 becomes part of 4" }]),
)

const isolate = Command.make(
  "isolate",
  {
    namespace: Flags.namespace,
    tag: Argument.String("tag").pipe(
      Argument.withDescription("A hash tag with its braces; in an ordered namespace any prefix"),
    ),
    hex: Flags.toggle("hex", "The tag is hexadecimal"),
    json: Flags.json,
    ...Flags.cluster,
  },
  Effect.fnUntraced(function* (options) {
    const { namespace, json } = options
    const prefix = argumentBytes(options.tag, options.hex)
    if (prefix === undefined) return yield* usageError(`"${options.tag}" is not hexadecimal`)
    const result = yield* order(options, "range.isolate", { namespace, prefix: toHex(prefix) })
    const { id } = result.descriptor as { readonly id: number }
    yield* json ? printJson(result) : print(`${id}`)
  }),
).pipe(
  Command.withShortDescription("Give the keys of one hash tag a range of their own"),
  Command.withDescription(
    "Cuts the ranges of a namespace so that all keys of one hash tag, such as {tenant42}, have a range of their own, and prints its id: it can then be led and moved apart from all others. " +
      "What is kept together is the tag's slot, so keys of another tag may lie in it too. In an ordered namespace it is all keys that begin with the prefix given.",
  ),
  Command.withExamples([
    {
      command: "kvorum range isolate default '{tenant42}'",
      description: "all keys with {tenant42} in them",
    },
  ]),
)

/** What an order did, in one line of either kind. */
const report = (
  options: { readonly json: boolean },
  result: Readonly<Record<string, unknown>>,
  done: string,
) => (options.json ? printJson(result) : note(done))

const move = Command.make(
  "move",
  {
    range: rangeArgument,
    nodes: Argument.String("node").pipe(
      Argument.withDescription("The node whose replica goes, then the one that gets it"),
      Argument.variadic({ min: 0, max: 2 }),
    ),
    from: Flags.maybe(nodeFlag("from", "The node whose replica goes, in place of an argument")),
    to: Flags.maybe(nodeFlag("to", "The node that gets one in its place")),
    json: Flags.json,
    ...Flags.cluster,
  },
  Effect.fnUntraced(function* (options) {
    const { range, nodes } = options
    const [source, target] = [nodes[0] ?? options.from, nodes[1] ?? options.to]
    const isTwice = nodes.length > 0 && (options.from ?? options.to) !== undefined
    if (source === undefined || target === undefined || isTwice) {
      return yield* usageError("say from which node to which: range move ID n1 n4")
    }
    const from = yield* nodeOf("from", source)
    const to = yield* nodeOf("to", target)
    if (from === to) return yield* usageError("from and to name the same node")
    const args = { range, from, to }
    const result = yield* longOrder(options, {
      ...{ verb: "range.move", args },
      of: `range ${range}`,
    })
    const done = `range ${range}: the replica of ${nodeName(from)} has moved to ${nodeName(to)}`
    yield* report(options, result, done)
    if (!options.json) yield* noteCrowded(result)
  }),
).pipe(
  Command.withShortDescription("Move a replica to another node"),
  Command.withDescription(
    "Moves one replica of a range: the new node gets a copy of the data first, as a learner without a vote; once it has caught up, it takes the place of the old one in one step. " +
      "Reads and writes go on meanwhile.",
  ),
  Command.withExamples([{ command: "kvorum range move 4 n1 n4", description: "from n1 to n4" }]),
)

/** A command that changes one replica of a range by one order. */
const member = (options: {
  readonly name: string
  readonly verb: string
  readonly flag: string
  readonly short: string
  readonly long: string
  readonly done: string
}) =>
  Command.make(
    options.name,
    {
      range: rangeArgument,
      on: nodeFlag("on", options.flag),
      json: Flags.json,
      ...Flags.cluster,
    },
    Effect.fnUntraced(function* (given) {
      const { range } = given
      const on = yield* nodeOf("--on", given.on)
      const result = yield* order(given, options.verb, { range, on })
      yield* report(given, result, `range ${range}: ${nodeName(on)} ${options.done}`)
    }),
  ).pipe(
    Command.withShortDescription(options.short),
    Command.withDescription(options.long),
    Command.withExamples([
      {
        command: `kvorum range ${options.name} 4 --on n4`,
        description: options.short.charAt(0).toLowerCase() + options.short.slice(1),
      },
    ]),
  )

const addReplica = member({
  name: "add-replica",
  verb: "range.addReplica",
  flag: "The node that gets one",
  short: "Add a replica",
  long: "Adds a replica of a range on a node: it gets a copy of the data first, and a vote once it has caught up.",
  done: "has a replica",
})

const removeReplica = member({
  name: "remove-replica",
  verb: "range.removeReplica",
  flag: "The node whose replica goes",
  short: "Remove a replica",
  long:
    "Removes the replica of a range on a node; its data there is deleted. When the node leads the range, another one takes over. " +
    "Refused when those that remain would have no majority of replicas that answer.",
  done: "has no replica any more",
})

const transfer = Command.make(
  "transfer",
  {
    range: rangeArgument,
    to: nodeFlag("to", "The node that is to lead it; it must have a replica"),
    json: Flags.json,
    ...Flags.cluster,
  },
  Effect.fnUntraced(function* (options) {
    const { range } = options
    const to = yield* nodeOf("--to", options.to)
    const result = yield* order(options, "range.transfer", { range, to })
    yield* report(options, result, `range ${range} is led by ${nodeName(to)}`)
  }),
).pipe(
  Command.withShortDescription("Hand the lead of a range to another node"),
  Command.withDescription(
    "Hands leadership of a range to another of its replicas, within an election timeout. Reads and writes wait for it and go on.",
  ),
)

const list = rangeList("list")

export const range = Command.make("range").pipe(
  Command.withShortDescription("List, split, merge and move ranges"),
  Command.withDescription(
    "A range is an interval of keys with a Raft group of its own. `kvorum range list` shows their ids.",
  ),
  Command.withSubcommands([list, split, merge, isolate, move, addReplica, removeReplica, transfer]),
)
