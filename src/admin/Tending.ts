import { Clock, Effect } from "effect"
import { text } from "../lib/bytes.ts"
import { keyIn } from "../lib/position.ts"
import { metaRange } from "../server/bootstrap.ts"
import type { HotKey } from "../server/load/hotKeys.ts"
import type { RangeMeasure } from "../server/load/rangeMeasures.ts"
import { type BalanceOptions, balanceDefaults } from "../topology/balance.ts"
import {
  MergeWatch,
  type PlacedRange,
  type SizedRange,
  type SizingPolicy,
  SplitWatch,
  sizingDefaults,
} from "../topology/sizing.ts"
import type { NamespaceId, RangeId } from "../types.ts"
import { mergeRanges } from "./Merging.ts"
import { boundaryKey } from "./Meta.ts"
import { type Plane, rangesOf } from "./Plane.ts"
import { splitRange } from "./Ranges.ts"
import { evenOut } from "./Rebalancing.ts"
import { replaceDead } from "./Replacing.ts"
import { measuresOf } from "./Reports.ts"

/**
 * What a cluster sees to by itself, without anybody's order:
 *
 * - each node, of the ranges that it leads: one that has grown too large, or is asked too much for long, is cut in two (topology/sizing.ts);
 * - the leader of the meta group, of the whole cluster: the replicas of a node that has been down for long are made anew on others; neighbours that have long been small and quiet are
 *   merged; what nodes carry is evened out (topology/balance.ts), by bytes, requests and number.
 *
 * All of it goes through the same procedures as orders do, one thing at a time, so that whoever leads next goes on from what there is. Holds are remembered by
 * who watches alone: a new leader of the meta group begins to count anew, which is late and never wrong.
 */
export interface TendingPolicy {
  readonly sizing: SizingPolicy
  readonly balance: BalanceOptions
  /** The leader of the meta group looks so often. */
  readonly everyMs: number
  /** Nodes must be out of balance for so many looks in a row before anything moves. */
  readonly unevenLooks: number
  /** A node that was down for so long is not waited for any more. */
  readonly deadAfterMs: number
}

export const tendingDefaults: TendingPolicy = {
  sizing: sizingDefaults,
  // Twice what an order goes by: what nobody asked for had better be worth it.
  balance: { ...balanceDefaults, threshold: 0.1, movesMax: 4 },
  everyMs: 5000,
  unevenLooks: 2,
  deadAfterMs: 600_000,
}

const ownEveryMs = 1000
/** One thing that takes longer than this is left to the next look. */
const stepMs = 120_000

/** Never ends. */
export const tend = (plane: Plane, policy: TendingPolicy): Effect.Effect<never> =>
  Effect.raceFirst(tendOwn(plane, policy), tendAll(plane, policy))

const asSized = (measure: RangeMeasure): SizedRange => ({ ...measure, id: measure.range })

/** Each of these may fail; the next look sees what is left to do. */
const attempt = <E extends { readonly message: string }>(
  what: string,
  work: Effect.Effect<unknown, E>,
): Effect.Effect<void> =>
  Effect.timeoutOption(work, stepMs).pipe(
    Effect.catch((error) => Effect.logInfo(`${what} was not done: ${error.message}`)),
    Effect.catchCause((cause) => Effect.logError(`${what} failed`, cause)),
    Effect.asVoid,
  )

const tendOwn = Effect.fnUntraced(function* (plane: Plane, { sizing }: TendingPolicy) {
  const watch = new SplitWatch(sizing)
  for (;;) {
    yield* Effect.sleep(ownEveryMs)
    const measures = plane.control.measures().filter(({ range }) => range !== metaRange)
    const nowMs = yield* Clock.currentTimeMillis
    for (const verdict of watch.look(measures.map(asSized), nowMs, plane.control.cutOf)) {
      const measure = measures.find(({ range }) => range === verdict.range)
      if (measure === undefined) continue
      if (verdict._tag === "Hot") yield* Effect.logWarning(hotText(plane, measure))
      else {
        yield* Effect.logInfo(splitText(measure, verdict.at === undefined))
        yield* attempt(
          `the split of range ${verdict.range}`,
          splitRange(plane, verdict.range, verdict.at),
        )
      }
    }
  }
})

function splitText({ range, bytes, entries, requestsPerSecond }: RangeMeasure, bySize: boolean) {
  const why = bySize
    ? `it holds ${Math.round(bytes / 2 ** 20)} MiB and ${entries} entries`
    : `${Math.round(requestsPerSecond)} requests a second are asked of it`
  return `range ${range} is cut in two: ${why}`
}

function hotText(plane: Plane, { range, requestsPerSecond, hot }: RangeMeasure): string {
  const rate = `range ${range} has ${Math.round(requestsPerSecond)} requests a second`
  const keys = hot.map((key) => keyText(plane, range, key))
  const why = keys.length === 0 ? "few keys have most of them" : `of these ${keys.join(", ")}`
  return `${rate}, and no cut would spread them: ${why}`
}

function keyText({ control }: Plane, range: RangeId, { position, share }: HotKey): string {
  const descriptor = control.led().find(({ id }) => id === range)
  const { namespaces } = control.directory()
  const namespace = namespaces.find(({ id }) => id === descriptor?.namespace)
  const key = text(keyIn(namespace?.partitioning ?? "hash", position))
  return `${Math.round(100 * share)} % ask for ${JSON.stringify(key)}`
}

const tendAll = Effect.fnUntraced(function* (plane: Plane, policy: TendingPolicy) {
  const watch = new MergeWatch(policy.sizing)
  let uneven = 0
  for (;;) {
    yield* Effect.sleep(policy.everyMs)
    if (!leadsMeta(plane)) {
      uneven = 0
      continue
    }
    yield* attempt("the replacement of a node that is down", replaceDead(plane, policy.deadAfterMs))
    yield* attempt("a merge of cold ranges", mergeCold(plane, watch))
    yield* attempt(
      "the balance of nodes",
      Effect.map(
        evenOut(plane, {
          options: policy.balance,
          isDue: uneven >= policy.unevenLooks,
          goesOn: () => leadsMeta(plane),
        }),
        (isUneven) => {
          uneven = isUneven ? uneven + 1 : 0
        },
      ),
    )
  }
})

function leadsMeta({ control }: Plane): boolean {
  return control.led().some(({ id }) => id === metaRange)
}

const mergeCold = Effect.fnUntraced(function* (plane: Plane, watch: MergeWatch) {
  const { directory, versions } = yield* plane.meta.read
  const ranges = (yield* rangesOf(plane)).map(({ descriptor }) => descriptor)
  const nodes = directory.nodes.filter(({ state }) => state !== "removed").map(({ id }) => id)
  const measures = yield* measuresOf(plane.client, nodes)
  const placed = ranges.map(({ id, namespace, start }): PlacedRange => {
    const measure = measures.get(id)
    return { id, namespace, start, measure: measure === undefined ? undefined : asSized(measure) }
  })
  const least = new Map<NamespaceId, number>()
  for (const record of directory.namespaces) least.set(record.id, record.ranges)
  const rules = {
    rangesMin: (namespace: NamespaceId) => least.get(namespace) ?? 1,
    isKept: (position: Uint8Array) => versions.has(boundaryKey(position)),
  }
  const nowMs = yield* Clock.currentTimeMillis
  for (const [left, right] of watch.look(placed, rules, nowMs)) {
    if (!leadsMeta(plane)) return
    yield* Effect.logInfo(`ranges ${left} and ${right} have long been small and quiet: they merge`)
    yield* attempt(`the merge of ranges ${left} and ${right}`, mergeRanges(plane, left, right))
  }
})
