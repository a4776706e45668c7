import { openJournalFile } from "../../src/disk/DataDirectory.ts"
import { FileDisk } from "../../src/disk/FileDisk.ts"
import { text, utf8 } from "../../src/lib/bytes.ts"
import { hashPosition } from "../../src/lib/position.ts"
import { Prng } from "../../src/lib/prng.ts"
import { bootstrapDescriptors } from "../../src/server/bootstrap.ts"
import { plainRead } from "../../src/server/requests.ts"
import { StoreDriver } from "../../src/server/StoreDriver.ts"
import type { StoreSettings } from "../../src/server/settings.ts"
import { attemptStoreJob } from "../../src/server/storeJobs.ts"
import { StoreLoop } from "../../src/server/storeLoop.ts"
import { versionOfWall } from "../../src/server/versionClock.ts"
import { command } from "./commands.ts"
import { outcomeOf } from "./loopNode.ts"

/** A node of one, on real files; its jobs are done in this thread. */
export class DrivenNode {
  readonly root: string
  readonly loop: StoreLoop
  readonly driver: StoreDriver
  readonly failures: Array<unknown> = []
  readonly acknowledged = new Map<string, string>()
  answers = 0
  private closed = false
  private readonly timer: ReturnType<typeof setInterval>
  private sequence = Math.floor(performance.now()) * 1000

  constructor(root: string, settings: StoreSettings) {
    this.root = root
    const disk = new FileDisk(root)
    const readClock = () => ({ monotonicMs: performance.now(), wallMs: Date.now() })
    this.loop = StoreLoop.open({
      node: 1,
      disk,
      prng: new Prng(1),
      settings,
      descriptors: bootstrapDescriptors([1], 1),
      clock: readClock(),
    })
    this.driver = new StoreDriver({
      loop: this.loop,
      openJournal: (path) => openJournalFile(disk.absolutePath(path)),
      ports: {
        readClock,
        send: () => {},
        flush: () => {},
        report: () => {},
        fail: (error) => void this.failures.push(error),
        toWorker: (job) => {
          setImmediate(() => {
            // A job of a node that has ended must not meet the next one in its folder.
            if (this.closed || this.failures.length > 0) return
            try {
              this.driver.jobDone(job, attemptStoreJob(disk, job))
            } catch (error) {
              this.driver.workerFailed(error as Error)
            }
          })
        },
      },
    })
    this.timer = setInterval(() => this.driver.wake(), 2)
  }

  private ask<A>(make: (done: (answer: A) => void) => void): Promise<A> {
    return new Promise(make)
  }

  put(key: string, value: string): void {
    const sequence = ++this.sequence
    const expiresAt = versionOfWall(Date.now()) + 60_000_000
    const bytes = command(key, { text: value, sequence, ackedBelow: sequence, expiresAt })
    const request = {
      _tag: "Mutate",
      token: 0,
      range: 1,
      deadlineMs: 5000,
      command: bytes,
    } as const
    this.driver.request(request, (reply) => {
      this.answers++
      if (outcomeOf(reply) === "Mutated") this.acknowledged.set(key, value)
    })
  }

  get(key: string): Promise<string> {
    const position = hashPosition(1, utf8(key))
    const level = "linearizable" as const
    const fields = { token: 0, range: 1, deadlineMs: 5000, boundsVersion: 1, ...plainRead }
    return this.ask((done) => {
      this.driver.request({ _tag: "Get", ...fields, level, position }, (reply) =>
        done(
          reply._tag === "Value" && reply.value !== undefined
            ? text(reply.value)
            : outcomeOf(reply),
        ),
      )
    })
  }

  async ready(): Promise<void> {
    while (this.failures.length === 0 && !this.loop.replicas.get(1)?.isLeader) await Bun.sleep(2)
  }

  close(): void {
    this.closed = true
    clearInterval(this.timer)
    this.driver.stop()
    this.loop.storage.close()
  }
}
