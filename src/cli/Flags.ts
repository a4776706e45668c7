import { Option } from "effect"
import { portBaseDefault } from "./addresses.ts"
import { parseDurationMs } from "./Durations.ts"
import { Argument, Flag } from "./EffectCli.ts"

/** Flags and arguments that several commands share. */

/** A switch. It never takes the next word as its value, so that `put default --json 1 x` keeps its key `1`. */
export function toggle(name: string, description: string): Flag.Flag<boolean> {
  return Flag.Boolean(name).pipe(
    Flag.withOptionalValue("true"),
    Flag.withoutNegation,
    Flag.withDescription(description),
    Flag.withDefault(false),
  )
}

/** `undefined` in place of `None`, which reads better outside the library. */
export function maybe<A>(flag: Flag.Flag<A>): Flag.Flag<A | undefined> {
  return flag.pipe(Flag.optional, Flag.map(Option.getOrUndefined))
}

export const json = toggle("json", "Print exactly one line of JSON, the last on stdout")

export const partial = toggle(
  "partial",
  "Go on without parts that no node answers for, and name them; without it the command fails then",
)

export const hex = toggle(
  "hex",
  "Keys and values on the command line and in the output are hexadecimal",
)

export const namespace = Argument.String("namespace").pipe(
  Argument.withDescription("Namespace; a new cluster has `default` (strong) and `eventual`"),
)

export const key = Argument.String("key").pipe(
  Argument.withDescription("Key: text, hexadecimal with --hex, or - for the bytes of stdin"),
)

export const value = Argument.String("value").pipe(
  Argument.withDescription("Value: text, hexadecimal with --hex, or - for the bytes of stdin"),
)

export const consistency = maybe(
  Flag.String("consistency").pipe(
    Flag.withMetavar("LEVEL"),
    Flag.withDescription(
      "Strong: linearizable (the default), bounded:500ms (any duration) or local. Eventual: one, quorum, all or localQuorum; default as the namespace has it",
    ),
  ),
)

/** Of commands that have no level in strong namespaces. */
export const eventualConsistency = maybe(
  Flag.String("consistency").pipe(
    Flag.withMetavar("LEVEL"),
    Flag.withDescription(
      "Of an eventual namespace: how many copies to wait for: one, quorum, all or localQuorum",
    ),
  ),
)

export const context = maybe(
  Flag.String("context").pipe(
    Flag.withMetavar("TOKEN"),
    Flag.withDescription(
      "Of an eventual namespace: what a read of this key printed; the write replaces what was shown then, and nothing else",
    ),
  ),
)

export const strict = toggle(
  "strict",
  "Of an eventual namespace: no stand-in may hold the write for a node that is out of reach",
)

export const ttl = maybe(
  Flag.String("ttl").pipe(
    Flag.withMetavar("DURATION"),
    Flag.withDescription("The value expires after it, such as 500ms, 30s or 2h"),
  ),
)

/** The option that a write takes for `--ttl`, or a sentence that says what is wrong with it. */
export function ttlOption(source: string | undefined): { readonly ttlMs?: number } | string {
  if (source === undefined) return {}
  const ttlMs = parseDurationMs(source)
  if (typeof ttlMs === "string") return `--ttl: ${ttlMs}`
  return ttlMs > 0 ? { ttlMs } : "--ttl must be above 0; leave it out for a value that stays"
}

/** Where the cluster is found. */
export const cluster = {
  endpoints: maybe(
    Flag.String("endpoints").pipe(
      Flag.withMetavar("HOST:PORT,..."),
      Flag.withDescription(
        "Client addresses of nodes; else --port-base, else the variable KVORUM_ENDPOINTS, " +
          `else the ports of npm start (${portBaseDefault + 1} and up)`,
      ),
    ),
  ),
  portBase: maybe(
    Flag.Int("port-base").pipe(
      Flag.withMetavar("N"),
      Flag.withDescription("The cluster that `kvorum start --port-base N` started on this machine"),
    ),
  ),
}

export const data = Flag.String("data").pipe(Flag.withMetavar("DIR"))

export const host = Flag.String("host").pipe(Flag.withMetavar("ADDRESS"))
