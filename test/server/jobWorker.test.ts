import { afterEach, expect, test } from "bun:test"
import { existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { FileDisk } from "../../src/disk/FileDisk.ts"
import { utf8 } from "../../src/lib/bytes.ts"
import { WriteBatch } from "../../src/lsm/batch.ts"
import { Engine } from "../../src/lsm/engine.ts"
import { tablePath } from "../../src/lsm/table/format.ts"
import { JobWorker } from "../../src/server/JobWorker.ts"
import type { StoreJob, StoreJobResult } from "../../src/server/storeJobs.ts"
import { keyOf } from "./localDriver.ts"

const folders: Array<string> = []
afterEach(() => {
  for (const path of folders.splice(0)) rmSync(path, { recursive: true, force: true })
})

/** A flush of a few megabytes, as the engine in `root` hands it out. */
function engineIn(root: string): Engine {
  mkdirSync(join(root, "engine"))
  const engine = Engine.open(new FileDisk(root), "engine")
  const value = "v".repeat(1000)
  for (let i = 0; i < 2000; i++) {
    const batch = new WriteBatch()
    batch.put(keyOf(`k${i}`), utf8(value))
    engine.write(batch)
  }
  engine.seal()
  return engine
}

const title =
  "a flush that a thread began behind a job whose end was never heard of is given back, not done again over its own table"

test(title, async () => {
  const root = mkdtempSync(join(tmpdir(), "kvorum-job-"))
  folders.push(root)
  const engine = engineIn(root)
  const flushJob = () => {
    const job = engine.nextJob(0)
    if (job === undefined) throw new Error("the engine has a flush to do")
    return job
  }
  const results: Array<readonly [StoreJob["_tag"], StoreJobResult["_tag"]]> = []
  let heard = Promise.withResolvers<void>()
  const worker = new JobWorker({
    root,
    onResult: (job, result) => {
      results.push([job._tag, result._tag])
      if (job._tag === "Engine") heard.resolve()
    },
    onFatal: (error) => heard.reject(error),
  })
  const job = flushJob()
  worker.post({ _tag: "Reserve", path: "reserve", sizeBytes: 1024 })
  worker.post({ _tag: "Engine", job })
  // Without a turn of this thread's loop, so that the other one's first answer stays unheard.
  const path = join(root, tablePath("engine", job.firstFileNumber))
  const endMs = performance.now() + 20_000
  while (!existsSync(path)) expect(performance.now()).toBeLessThan(endMs)
  worker.kill()
  await heard.promise
  expect(results.filter(([tag]) => tag === "Engine")).toEqual([["Engine", "Failed"]])
  engine.abandon(job)
  heard = Promise.withResolvers()
  worker.post({ _tag: "Engine", job: flushJob() })
  await heard.promise
  expect(results.at(-1)).toEqual(["Engine", "Engine"])
  expect(results.filter(([tag]) => tag === "Reserve")).toEqual([["Reserve", "Done"]])
  await worker.stop()
})
