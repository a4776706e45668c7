import { existsSync, readFileSync, statSync } from "node:fs"
import { basename, dirname, join, resolve } from "node:path"
import { Effect } from "effect"
import { DirectoryInUse, DirectoryLock } from "../disk/DirectoryLock.ts"
import { dumpLines } from "../doctor/dump.ts"
import { examine, holdsData, type Identity } from "../doctor/examination.ts"
import { ReadOnlyDisk } from "../doctor/ReadOnlyDisk.ts"
import type { Report } from "../doctor/report.ts"
import { reportLines } from "../doctor/reportLines.ts"
import { readIdentity } from "../server/Identity.ts"
import {
  clusterFileName,
  identityFileName,
  nodeDirectory,
  parseClusterData,
} from "./clusterData.ts"
import { Command, Flag } from "./EffectCli.ts"
import * as Flags from "./Flags.ts"
import { print, printJson, refusal, usageError, writeFully } from "./Output.ts"
import { ProgressLine } from "./Progress.ts"
import { nodeName } from "./receipts.ts"

interface DoctorOptions {
  readonly data: string | undefined
  readonly dump: string | undefined
  readonly json: boolean
}

export const doctor = Command.make(
  "doctor",
  {
    data: Flags.maybe(
      Flags.data.pipe(
        Flag.withDescription(
          "The directory to examine: a node's, an embedded store's, or that of kvorum start with all its nodes",
        ),
      ),
    ),
    dump: Flags.maybe(
      Flag.String("dump").pipe(
        Flag.withMetavar("FILE"),
        Flag.withDescription(
          "Print one file in words: a table, a manifest, CURRENT, or a segment of the journal",
        ),
      ),
    ),
    json: Flags.json,
  },
  (options) => Effect.scoped(runDoctor(options)),
).pipe(
  Command.withShortDescription("Verify the files of a stopped node"),
  Command.withDescription(
    "Reads every byte of a data directory that no node is using, and says what it holds and what is damaged: file, offset, what was expected and found, " +
      "and which keys or log entries that covers. It goes on behind a damage and changes nothing on the disk. " +
      "Exit code 0: sound; 1: damaged, or the directory cannot be examined. --dump prints one file, even a damaged one.",
  ),
  Command.withExamples([
    { command: "kvorum doctor --data .kvorum/n1", description: "one node of npm start" },
    { command: "kvorum doctor --data .kvorum", description: "all of them" },
    { command: "kvorum doctor --data .kvorum/n1 --json", description: "the same for a script" },
    {
      command: "kvorum doctor --dump .kvorum/n1/engine/00000007.table | head -50",
      description: "what a table holds",
    },
  ]),
)

const runDoctor = Effect.fnUntraced(function* (options: DoctorOptions) {
  const { data, dump, json } = options
  if (dump !== undefined) {
    if (data !== undefined) return yield* usageError("--data and --dump exclude each other")
    if (json) return yield* usageError("--dump prints text: leave out --json")
    return yield* runDump(dump)
  }
  if (data === undefined) return yield* usageError("--data DIR or --dump FILE is needed")
  const reports = yield* examineAll(data).pipe(
    Effect.tapError(({ message }) =>
      json ? printJson({ error: "Refused", message: message ?? "" }) : Effect.void,
    ),
  )
  const places = reports.reduce((total, { damages }) => total + damages.length, 0)
  if (json) yield* printJson({ sound: places === 0, reports })
  else yield* print(reports.map((report) => reportLines(report).join("\n")).join("\n\n"))
  if (places > 0) {
    return yield* refusal(places === 1 ? "1 place is damaged" : `${places} places are damaged`)
  }
})

const examineAll = Effect.fnUntraced(function* (data: string) {
  const directories = directoriesOf(data)
  if (typeof directories === "string") return yield* refusal(directories)
  for (const directory of new Set([data, ...directories])) yield* holdQuietly(directory)
  const reports: Array<Report> = []
  for (const directory of directories) reports.push(yield* examineDirectory(directory))
  return reports
})

/** The directory itself, or the nodes' folders in one that `kvorum start` keeps; else a sentence that says why not. */
function directoriesOf(data: string): ReadonlyArray<string> | string {
  if (!existsSync(data)) return `there is no ${data}`
  if (!statSync(data).isDirectory()) return `${data} is not a directory: --dump prints one file`
  const path = join(data, clusterFileName)
  if (!existsSync(path)) {
    const isNode = existsSync(join(data, identityFileName))
    const isStore = isNode || holdsData(new ReadOnlyDisk(data))
    return isStore ? [data] : `${data} holds no engine and no journal`
  }
  const cluster = parseClusterData(readFileSync(path, "utf8"))
  if (typeof cluster === "string") return `${path} ${cluster}`
  const nodes = Array.from({ length: cluster.nodes }, (_, i) => join(data, nodeDirectory(i + 1)))
  const missing = nodes.find((directory) => !existsSync(directory))
  return missing === undefined ? nodes : `there is no ${missing}, but ${path} names it`
}

/** Holds the lock of a directory, if it has one, until the scope closes; fails when a process has it. */
const holdQuietly = (directory: string) =>
  Effect.acquireRelease(
    Effect.try({
      try: () => DirectoryLock.acquireExisting(directory),
      catch: (error) =>
        refusal(
          error instanceof DirectoryInUse
            ? `${error.message}: stop it first, or examine a copy`
            : error instanceof Error
              ? error.message
              : String(error),
        ),
    }),
    (lock) => Effect.sync(() => lock?.release()),
  )

const identity: Identity = {
  fileName: identityFileName,
  read(disk) {
    try {
      const { node, clusterId } = readIdentity(disk, ".")
      return { words: `node ${nodeName(node)} of cluster ${clusterId}` }
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error)
      return { problem: message.replace(`./${identityFileName} is`, "a file that is") }
    }
  },
}

const examineDirectory = (directory: string) =>
  Effect.gen(function* () {
    const progress = new ProgressLine()
    const steps = examine({ disk: new ReadOnlyDisk(directory), directory, identity })
    for (;;) {
      const step = steps.next()
      if (step.done) {
        progress.end()
        return step.value
      }
      progress.show({ ...step.value, path: join(directory, step.value.path) })
      // Between two pieces, so that Ctrl-C is heard.
      yield* Effect.yieldNow
    }
  })

const runDump = Effect.fnUntraced(function* (file: string) {
  if (!existsSync(file)) return yield* refusal(`there is no ${file}`)
  const path = resolve(file)
  yield* Effect.try({
    try: () => {
      // Gathered, because a call for each line would take longer than reading the file.
      let lines: Array<string> = []
      const flush = () => {
        if (lines.length > 0) writeFully(1, Buffer.from(`${lines.join("\n")}\n`))
        lines = []
      }
      try {
        for (const line of dumpLines(new ReadOnlyDisk(dirname(path)), basename(path))) {
          if (lines.push(line) >= 1000) flush()
        }
      } finally {
        flush()
      }
    },
    catch: (error) => refusal(error instanceof Error ? error.message : String(error)),
  })
})
