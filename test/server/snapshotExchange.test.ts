import { expect, test } from "bun:test"
import { bootstrapDescriptors } from "../../src/server/bootstrap.ts"
import type { SnapshotFrame } from "../../src/server/peerMessage.ts"
import { encodeRangeState, noMerges } from "../../src/server/rangeState.ts"
import type { Replica } from "../../src/server/replica.ts"
import { defaultSettings } from "../../src/server/settings.ts"
import { SnapshotExchange } from "../../src/server/snapshotExchange.ts"
import { spillDirectory } from "../../src/server/spill.ts"
import type { Storage } from "../../src/server/storage.ts"
import { runStoreJob, type StoreJob, type StoreJobResult } from "../../src/server/storeJobs.ts"
import type { RangeDescriptor } from "../../src/types.ts"
import { SimulatedDisk } from "../sim/simulatedDisk.ts"

test("a snapshot that found no space does not take the file of the next one with it", () => {
  const disk = new SimulatedDisk()
  disk.makeDirectory(spillDirectory)
  const descriptor = bootstrapDescriptors([1, 2, 3], 1)[1] as RangeDescriptor
  const machine = {
    replica: 1,
    appliedIndex: 5,
    appliedTerm: 1,
    rangeTime: 5,
    chain: 0,
    lastReplica: 3,
    ...noMerges,
  }
  const jobs: Array<{ job: StoreJob; done: (result: StoreJobResult) => void }> = []
  const storage = {
    issue: (job: StoreJob, done: (result: StoreJobResult) => void = () => {}) =>
      void jobs.push({ job, done }),
  }
  const replica = {
    range: 1,
    raft: { term: 1, step: () => {} },
    nodeOf: () => 1,
    machine: { appliedIndex: 0 },
  }
  const exchange = new SnapshotExchange({
    storage: storage as unknown as Storage,
    settings: defaultSettings,
    replicas: new Map([[1, replica as unknown as Replica]]),
    all: [],
    firstId: 1,
    replays: () => false,
    hasRoomFor: () => true,
    sendOff: () => [],
    buried: () => {},
    learn: () => {},
    send: () => {},
    sendAfterPersist: () => {},
  })
  const receive = (snapshot: number, sequence: number) => {
    const bytes = sequence === 0 ? encodeRangeState({ descriptor, ...machine }) : new Uint8Array(10)
    const place = { range: 1, from: 1, to: 2, term: 1, snapshot, sequence, last: false }
    const frame: SnapshotFrame = { _tag: "SnapshotFrame", ...place, bytes }
    exchange.receive(replica as unknown as Replica, frame, 1)
  }
  const runAll = () => {
    for (let next = jobs.shift(); next !== undefined; next = jobs.shift()) {
      next.done(runStoreJob(disk, next.job))
    }
  }
  receive(1, 0)
  // The leader begins another one while the first one's frame is on its way to the disk.
  receive(2, 0)
  jobs.shift()?.done({ _tag: "Failed", failure: { _tag: "NoSpace", path: spillDirectory } })
  runAll()
  receive(2, 1)
  runAll()
  expect(disk.list(spillDirectory)).toHaveLength(1)
})
