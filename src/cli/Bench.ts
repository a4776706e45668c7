import { Effect } from "effect"
import type { EventualFound, EventualWritten, Found, Written } from "../client/Api.ts"
import type { ClientShape } from "../client/Client.ts"
import type { KvorumError } from "../Errors.ts"
import { Prng } from "../lib/prng.ts"
import { withCluster } from "./Cluster.ts"
import { parseConsistency } from "./Durations.ts"
import { Command, Flag } from "./EffectCli.ts"
import { eventualOptions, strongWords } from "./EventualKeys.ts"
import * as Flags from "./Flags.ts"
import { Latencies } from "./latencies.ts"
import { type CommandEnded, note, print, printJson, refusal, usageError } from "./Output.ts"

/**
 * A closed loop: each caller makes one request, waits for its answer and makes the next. Keys are drawn from 100,000, values have 256 bytes. All
 * callers share one connection to each node, so that a cluster of up to eight nodes is loaded over at most eight connections. A call is one key, never a
 * batch; what the callers send to a node within one turn of the event loop leaves in one system call.
 */
const keyCount = 100_000
const valueBytes = 256
const callersMax = 10_000
/** Callers that load the keys before a run of gets. */
const loaders = 256
/** What was acknowledged last takes the others about a heartbeat to apply. */
const settleMs = 500

const key = (index: number) => `key-${String(index).padStart(12, "0")}`

interface Run {
  readonly operation: "put" | "get"
  readonly clients: number
  readonly seconds: number
  readonly calls: Calls
}

/** A call of the namespace that is measured. */
interface Calls {
  readonly put: (key: string, value: Uint8Array) => Effect.Effect<Answer, KvorumError>
  readonly get: (key: string) => Effect.Effect<Answer, KvorumError>
}

type Answer = Found | Written | EventualFound | EventualWritten

/** Nothing was found of a key. */
function isMissing(answer: Answer): boolean {
  if ("found" in answer) return !answer.found
  return "siblings" in answer && answer.siblings.length === 0
}

interface Tally {
  readonly latencies: Latencies
  failed: number
  /** The last error, in case there were any. */
  error: KvorumError | undefined
  /** Gets that found nothing: the keys were loaded, so there must be none but from a replica that lags. */
  missing: number
}

const randomValue = (prng: Prng) => Uint8Array.from({ length: valueBytes }, () => prng.int(0, 255))

const load = ({ put }: Calls, value: Uint8Array) => {
  let next = 0
  const loader = Effect.gen(function* () {
    while (next < keyCount) yield* put(key(next++), value)
  })
  return Effect.all(
    Array.from({ length: loaders }, () => loader),
    {
      concurrency: "unbounded",
      discard: true,
    },
  )
}

const oneCaller = (run: Run, end: number, seed: number, tally: Tally) =>
  Effect.gen(function* () {
    const prng = new Prng(seed)
    const value = randomValue(prng)
    let begin = 0
    // Made once: in the loop they would cost as much as the call.
    const outcome = {
      onSuccess: (answer: Answer) => {
        if (isMissing(answer)) tally.missing++
        tally.latencies.add(Math.round((performance.now() - begin) * 1000))
      },
      onFailure: (error: KvorumError) => {
        tally.failed++
        tally.error = error
      },
    }
    for (;;) {
      begin = performance.now()
      if (begin >= end) return
      const name = key(prng.int(0, keyCount - 1))
      const { put, get } = run.calls
      yield* Effect.match(run.operation === "put" ? put(name, value) : get(name), outcome)
    }
  })

const measure = Effect.fnUntraced(function* (run: Run) {
  const prng = new Prng(Math.floor(Math.random() * 2 ** 32))
  // The first call finds the cluster; that is not part of what is measured.
  yield* run.calls.get(key(0))
  if (run.operation === "get") {
    yield* note(`loading ${keyCount} keys`)
    yield* load(run.calls, randomValue(prng))
    // For replicas that answer local reads.
    yield* Effect.sleep(settleMs)
  }
  const tally: Tally = { latencies: new Latencies(), failed: 0, error: undefined, missing: 0 }
  const begin = performance.now()
  const end = begin + run.seconds * 1000
  const callers = Array.from({ length: run.clients }, () =>
    oneCaller(run, end, prng.uint32(), tally),
  )
  yield* Effect.all(callers, { concurrency: "unbounded", discard: true })
  return { tally, elapsedSeconds: (performance.now() - begin) / 1000 }
})

interface Called extends Calls {
  /** The level as it is printed, of puts and of gets; `undefined`: there is no choice, or the namespace's own. */
  readonly levels: Readonly<Record<Run["operation"], string | undefined>>
}

/** What is called, by the namespace's mode. */
const callsOf = Effect.fnUntraced(function* (
  client: ClientShape,
  name: string,
  consistency: string | undefined,
): Effect.fn.Return<Called, KvorumError | CommandEnded> {
  const namespace = yield* client.namespace(name)
  if (namespace.mode === "eventual") {
    const level = yield* eventualOptions(namespace, { consistency })
    return {
      put: (key, value) => client.eventual.put(name, key, value, level),
      get: (key) => client.eventual.get(name, key, level),
      levels: { put: consistency, get: consistency },
    }
  }
  yield* strongWords(namespace, { consistency })
  const asked = consistency ?? "linearizable"
  const level = parseConsistency(asked)
  if (typeof level === "string") return yield* usageError(level)
  return {
    put: (key, value) => client.put(name, key, value),
    get: (key) => client.get(name, key, level),
    levels: { put: undefined, get: asked },
  }
})

export const bench = Command.make(
  "bench",
  {
    namespace: Flag.String("namespace").pipe(
      Flag.withMetavar("NAME"),
      Flag.withDescription("Whose keys are called (default)"),
      Flag.withDefault("default"),
    ),
    operation: Flag.Literals("operation", ["put", "get"]).pipe(
      Flag.withMetavar("NAME"),
      Flag.withDescription("What every caller does (put)"),
      Flag.withDefault("put" as const),
    ),
    clients: Flag.Int("clients").pipe(
      Flag.withMetavar("N"),
      Flag.withDescription("Callers, each with one request under way (16)"),
      Flag.withDefault(16),
    ),
    seconds: Flag.Int("seconds").pipe(
      Flag.withMetavar("N"),
      Flag.withDescription("How long (10); loading keys before gets is not counted"),
      Flag.withDefault(10),
    ),
    consistency: Flags.consistency,
    json: Flags.json,
    ...Flags.cluster,
  },
  Effect.fnUntraced(function* (options) {
    const { namespace, operation, clients, seconds, consistency } = options
    if (clients < 1 || clients > callersMax) {
      return yield* usageError(`--clients must be 1 to ${callersMax}`)
    }
    if (seconds < 1) return yield* usageError("--seconds must be above 0")
    const { tally, elapsedSeconds, level } = yield* withCluster(
      options,
      Effect.fnUntraced(function* (client) {
        const calls = yield* callsOf(client, namespace, consistency)
        const measured = yield* measure({ operation, clients, seconds, calls })
        return { ...measured, level: calls.levels[operation] }
      }),
    )
    const shown = level === undefined ? {} : { consistency: level }
    const { latencies, failed, error, missing } = tally
    if (error !== undefined)
      yield* note(`${failed} failed, the last with ${error._tag}: ${error.message}`)
    if (missing > 0 && level === "linearizable")
      return yield* refusal(`${missing} of the keys that were loaded were not found`)
    const [p50Us, p99Us] = latencies.percentiles([0.5, 0.99]) as [number, number]
    const opsPerSecond = Math.round((latencies.count / elapsedSeconds) * 10) / 10
    if (options.json) {
      yield* printJson({
        operation,
        ...shown,
        clients,
        seconds,
        opsPerSecond,
        p50Us,
        p99Us,
        failed,
      })
    } else {
      yield* print(
        `${operation} ${level === undefined ? "" : `consistency=${level} `}clients=${clients} seconds=${seconds} ops/s=${opsPerSecond} p50_us=${p50Us} p99_us=${p99Us} failed=${failed}`,
      )
    }
    if (latencies.count === 0) return yield* refusal("no request succeeded")
  }),
).pipe(
  Command.withShortDescription("Measure a cluster"),
  Command.withDescription(
    "Loads a cluster in a closed loop over at most eight connections: 100,000 keys at random, 256-byte values, one request a call. It writes keys key-000000000000 to key-000000099999 of the namespace. In an eventual one take a namespace of conflict rule lww: blind puts pile up as siblings.",
  ),
  Command.withExamples([
    { command: "kvorum bench --operation put --clients 128 --seconds 10", description: "puts" },
    { command: "kvorum bench --operation get --clients 16 --json", description: "gets, as JSON" },
  ]),
)
