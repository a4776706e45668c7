import { appendFileSync, closeSync, existsSync, fsyncSync, openSync } from "node:fs"
import { join } from "node:path"
import { Clock, Effect } from "effect"
import { DirectoryInUse, DirectoryLock } from "../disk/DirectoryLock.ts"
import { FileDisk } from "../disk/FileDisk.ts"
import { DryDisk } from "../doctor/dryDisk.ts"
import { ReadOnlyDisk } from "../doctor/ReadOnlyDisk.ts"
import { toHex } from "../lib/bytes.ts"
import { readIdentity } from "../server/Identity.ts"
import {
  makeSoleVoter,
  openStopped,
  planRecovery,
  type RecoveryPlan,
  type SurveyedRange,
  surveyRanges,
} from "../server/quorumLoss.ts"
import { defaultSettings } from "../server/settings.ts"
import type { NodeId } from "../types.ts"
import { identityFileName } from "./clusterData.ts"
import { Command, Flag } from "./EffectCli.ts"
import * as Flags from "./Flags.ts"
import { note, print, printJson, refusal, usageError } from "./Output.ts"
import { nodeName } from "./receipts.ts"

/** One line for each recovery, at the top of every directory that it changed. Kept for ever: who looks for lost writes finds here what was decided. */
const auditFileName = "RECOVERED.jsonl"

interface RecoverOptions {
  readonly data: string
  readonly lost: string | undefined
  readonly dryRun: boolean
  readonly acceptDataLoss: boolean
  readonly json: boolean
}

/** A node that survives, and is stopped. */
interface Survivor {
  readonly node: NodeId
  readonly founders: ReadonlyArray<NodeId>
  readonly directory: string
  readonly surveys: ReadonlyArray<SurveyedRange>
}

const unsafeQuorum = Command.make(
  "unsafe-quorum",
  {
    data: Flags.data.pipe(
      Flag.withMetavar("DIR,DIR..."),
      Flag.withDescription("The data directories of all nodes that survive; all must be stopped"),
    ),
    lost: Flags.maybe(
      Flag.String("lost").pipe(
        Flag.withMetavar("n2,n3..."),
        Flag.withDescription(
          "The nodes that are lost for good, with their disks; none when damage to journals is all there is",
        ),
      ),
    ),
    dryRun: Flags.toggle("dry-run", "Say what would be done and what may be lost; change nothing"),
    acceptDataLoss: Flags.toggle(
      "accept-data-loss",
      "Do it. Acknowledged writes that only the lost nodes had are lost",
    ),
    json: Flags.json,
  },
  (options) => Effect.scoped(recover(options)),
).pipe(
  Command.withShortDescription(
    "Make ranges work again that have lost most of their voters for good",
  ),
  Command.withDescription(
    "For each range of which no majority survives, the surviving replica with the last log becomes the only voter. Writes that were acknowledged by lost nodes alone are lost, and nothing can tell which: " +
      "run it with --dry-run first, and only when the lost nodes can never come back. Every recovery is recorded in RECOVERED.jsonl of the directories that it changes. " +
      "Then start the survivors, `kvorum node remove` the lost nodes, and give the ranges new replicas with `kvorum range add-replica`.",
  ),
  Command.withExamples([
    {
      command: "kvorum recover unsafe-quorum --data /var/lib/kvorum --lost n2,n3 --dry-run",
      description: "what would be done, and what may be lost",
    },
    {
      command:
        "kvorum recover unsafe-quorum --data /var/lib/kvorum --lost n2,n3 --accept-data-loss",
      description: "do it",
    },
  ]),
)

export const recoverCommand = Command.make("recover").pipe(
  Command.withShortDescription("Last resorts"),
  Command.withDescription("Commands for clusters that cannot help themselves any more."),
  Command.withSubcommands([unsafeQuorum]),
)

function parseLost(words: string): ReadonlySet<NodeId> | string {
  const lost = new Set<NodeId>()
  if (words === "") return lost
  for (const word of words.split(",")) {
    const match = /^n?([1-9][0-9]{0,8})$/.exec(word.trim())
    if (match === null) return `--lost: "${word}" is not a node, such as n2`
    lost.add(Number(match[1]))
  }
  return lost
}

const recover = Effect.fnUntraced(function* (options: RecoverOptions) {
  const { dryRun, acceptDataLoss, json } = options
  if (dryRun && acceptDataLoss) {
    return yield* usageError(
      "--dry-run and --accept-data-loss exclude each other: nothing was done",
    )
  }
  if (!dryRun && !acceptDataLoss) {
    return yield* usageError(
      "one of --dry-run and --accept-data-loss is needed; begin with --dry-run",
    )
  }
  const lost = parseLost(options.lost ?? "")
  if (typeof lost === "string") return yield* usageError(lost)
  const directories = options.data.split(",").map((directory) => directory.trim())
  const survivors: Array<Survivor> = []
  for (const directory of directories) survivors.push(yield* survey(directory))
  const problem = survivorsProblem(survivors, lost)
  if (problem !== undefined) return yield* refusal(problem)
  const plan = planRecovery({
    surveys: survivors.flatMap(({ surveys }) => surveys),
    survivors: new Set(survivors.map(({ node }) => node)),
    lost,
  })
  if (plan.missing.length > 0) {
    const names = plan.missing.map(nodeName).join(", ")
    return yield* refusal(
      `ranges have replicas on ${names}: name each under --lost, or give its directory under --data`,
    )
  }
  const report = reportOf(plan, lost)
  if (!json) yield* print(reportLines(plan, lost).join("\n"))
  if (acceptDataLoss) yield* carryOut(survivors, plan, report)
  if (json) yield* printJson({ ...report, done: acceptDataLoss })
  else if (dryRun)
    yield* note("Nothing was changed. To do it: --accept-data-loss in place of --dry-run")
  else yield* note(`Done. Start ${survivors.map(({ node }) => nodeName(node)).join(", ")} now.`)
})

function survivorsProblem(
  survivors: ReadonlyArray<Survivor>,
  lost: ReadonlySet<NodeId>,
): string | undefined {
  const seen = new Set<NodeId>()
  for (const { node, directory } of survivors) {
    if (lost.has(node)) return `${directory} is ${nodeName(node)}, which --lost names`
    if (seen.has(node)) return `two directories are ${nodeName(node)}`
    seen.add(node)
  }
  return undefined
}

/** Holds the directory until the scope ends, and reads what it holds without changing it. */
const survey = Effect.fnUntraced(function* (directory: string) {
  if (!existsSync(join(directory, identityFileName))) {
    return yield* refusal(`${directory} is not the data of a node: there is no ${identityFileName}`)
  }
  const wallMs = yield* Clock.currentTimeMillis
  const attempt = <A>(work: () => A) => Effect.try({ try: work, catch: refusalOf })
  yield* Effect.acquireRelease(
    attempt(() => DirectoryLock.acquire(directory)),
    (lock) => Effect.sync(() => lock.release()),
  )
  return yield* attempt((): Survivor => {
    const disk = new DryDisk(new ReadOnlyDisk(directory))
    const { node, nodes } = readIdentity(disk, directory)
    const stopped = openStopped({ disk, node, founders: nodes, settings: defaultSettings, wallMs })
    try {
      return { node, founders: nodes, directory, surveys: surveyRanges(stopped) }
    } finally {
      stopped.loop.storage.close()
    }
  })
})

function refusalOf(error: unknown) {
  if (error instanceof DirectoryInUse) return refusal(`${error.message}: stop it first`)
  return refusal(error instanceof Error ? error.message : String(error))
}

/** The audit line first, durable, then the logs: a crash between the two leaves a line that says too much, never a change without one. */
const carryOut = Effect.fnUntraced(function* (
  survivors: ReadonlyArray<Survivor>,
  plan: RecoveryPlan,
  report: ReturnType<typeof reportOf>,
) {
  const wallMs = yield* Clock.currentTimeMillis
  for (const { node, founders, directory } of survivors) {
    const chosen = plan.ranges.filter((range) => range.chosen.node === node)
    if (chosen.length === 0) continue
    yield* Effect.try({
      try: () => {
        writeAudit(directory, { at: new Date(wallMs).toISOString(), ...report })
        const disk = new FileDisk(directory)
        const stopped = openStopped({ disk, node, founders, settings: defaultSettings, wallMs })
        try {
          for (const range of chosen) makeSoleVoter(stopped, range.chosen)
        } finally {
          stopped.loop.storage.close()
        }
      },
      catch: refusalOf,
    })
  }
})

function writeAudit(directory: string, line: object): void {
  const path = join(directory, auditFileName)
  appendFileSync(path, `${JSON.stringify(line)}\n`, { mode: 0o600 })
  for (const name of [path, directory]) {
    const descriptor = openSync(name, "r")
    fsyncSync(descriptor)
    closeSync(descriptor)
  }
}

function reportOf(plan: RecoveryPlan, lost: ReadonlySet<NodeId>) {
  return {
    lost: [...lost].sort((left, right) => left - right).map(nodeName),
    ranges: plan.ranges.map(({ descriptor, voters, chosen, others }) => ({
      range: descriptor.id,
      start: toHex(descriptor.start),
      end: toHex(descriptor.end),
      voters: voters.map(nodeName),
      chosen: nodeName(chosen.node),
      replica: chosen.replica,
      lastIndex: chosen.lastIndex,
      lastTerm: chosen.lastTerm,
      commitIndex: chosen.commitIndex,
      damagedEntries: chosen.damagedEntries ?? 0,
      dropped: others.map(({ node, lastIndex }) => ({ node: nodeName(node), lastIndex })),
    })),
    untouched: plan.untouched.map(({ id }) => id),
    gone: plan.gone.map(({ start, end }) => ({ start: toHex(start), end: toHex(end) })),
  }
}

function reportLines(plan: RecoveryPlan, lost: ReadonlySet<NodeId>): ReadonlyArray<string> {
  const report = reportOf(plan, lost)
  const lines = [
    report.lost.length === 0
      ? "DATA LOSS IS POSSIBLE: no node is given up, only what damage took from their journals."
      : `DATA LOSS IS POSSIBLE: ${report.lost.join(", ")} ${report.lost.length === 1 ? "is" : "are"} given up for good and must never start again.`,
    "",
  ]
  for (const range of report.ranges) {
    lines.push(
      `range ${range.range} [${range.start}, ${range.end}) of ${range.voters.join(" ")}: ${range.chosen} becomes its only voter`,
      `  writes acknowledged after index ${range.lastIndex} (term ${range.lastTerm}) are LOST, if there were any`,
    )
    if (range.damagedEntries > 0) {
      lines.push(`  damage took ${range.damagedEntries} entries after that: they are LOST`)
    }
    const doubtful = range.lastIndex - range.commitIndex
    if (doubtful > 0) {
      lines.push(
        doubtful === 1
          ? "  its last entry, which may never have been acknowledged, will take effect"
          : `  its last ${doubtful} entries, which may never have been acknowledged, will take effect`,
      )
    }
    for (const { node, lastIndex } of range.dropped) {
      lines.push(`  the replica on ${node} (to index ${lastIndex}) will be removed`)
    }
  }
  if (report.ranges.length === 0)
    lines.push("every range has a majority of whole replicas: there is nothing to do")
  for (const { start, end } of report.gone) {
    lines.push(`NOTHING SURVIVES of the keys [${start}, ${end}): this cannot bring them back`)
  }
  if (report.untouched.length > 0) {
    lines.push(`ranges ${report.untouched.join(" ")} still have a majority and stay as they are`)
  }
  return lines
}
