import { Journal } from "/work/main/src/journal/journal.ts"
import { Replay } from "/work/main/src/journal/replay.ts"
import { runJournalLife as longRun } from "/work/main/test/journal/crashSweep.ts"

const counts: Record<string, number> = {}
for (const name of [
  "append",
  "rewrite",
  "hardState",
  "release",
  "reset",
  "destroy",
  "checkpoint",
  "restore",
]) {
  const old = (Replay.prototype as any)[name]
  ;(Replay.prototype as any)[name] = function (...a: any[]) {
    counts[name] = (counts[name] ?? 0) + 1
    return old.apply(this, a)
  }
}
const j: any = Journal.prototype
for (const name of ["segmentsToDelete", "insertCheckpoint", "sealIfIdle"]) {
  const old = j[name]
  j[name] = function (...a: any[]) {
    const r = old.apply(this, a)
    const n = name === "segmentsToDelete" ? r.length : name === "sealIfIdle" ? (r ? 1 : 0) : 1
    counts[name] = (counts[name] ?? 0) + n
    return r
  }
}
let rec = 0,
  b = 0
const t = performance.now()
const [from, to] = [Number(process.argv[2]), Number(process.argv[3])]
for (let seed = from; seed < to; seed++) {
  try {
    const w = longRun(seed, 3000)
    rec += w.recoveries
    b += w.batches
  } catch (e: any) {
    console.log("seed", seed, String(e).slice(0, 500), e.stack?.slice(0, 600))
    process.exit(1)
  }
}
console.log({ rec, b, ...counts, ms: performance.now() - t })
