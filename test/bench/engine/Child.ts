import { amplification, fill, fillSync, fillSyncGathered, sustained } from "./Fill.ts"
import { nodeLoop } from "./NodeLoop.ts"
import type { Figures, Task } from "./Protocol.ts"
import { cachedReads, readMissing, readRandom, readSequential, seekRandom } from "./Reads.ts"
import { fillInOrder, fillUntilKilled, memory, reopen } from "./Recovery.ts"

/** One measurement, in a process of its own: the task as the one argument, the figures as the last line on stdout. */
const runs: Readonly<Record<string, (task: Task) => Promise<Figures>>> = {
  fill,
  amplification,
  fillSync,
  fillSyncGathered,
  sustained,
  readRandom,
  readMissing,
  seekRandom,
  readSequential,
  cachedReads,
  fillUntilKilled,
  reopen,
  fillInOrder,
  memory,
  nodeLoop,
}

const task = JSON.parse(process.argv[2] ?? "{}") as Task
const run = runs[task.run]
if (run === undefined) throw new Error(`no run is called ${task.run}`)
console.log(JSON.stringify(await run(task)))
process.exit(0)
