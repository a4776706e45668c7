/** Loaded into a worker thread before its own code: one sync fails there, once. What is synced after it stands in a file. */
import { SyncFaults } from "./syncFaults.ts"

// The object itself: an import would fix the calls before they are replaced.
const fs: typeof import("node:fs") = require("node:fs")
const plan = JSON.parse(process.env.KVORUM_SYNC_FAULT ?? "{}")
const { appendFileSync } = fs
const faults = new SyncFaults()
Object.assign(fs, faults.calls({ ...fs }))
faults.arm(plan.fault)
faults.onLaterSync = (path) => appendFileSync(plan.log, `${path}\n`)
