import { DiskError, StorageCorruption } from "../../src/disk/disk.ts"
import type { JournalWrite } from "../../src/journal/journal.ts"
import { assert } from "../../src/lib/assert.ts"
import type { Prng } from "../../src/lib/prng.ts"
import type { NodeRecord } from "../../src/server/directory.ts"
import { Identity } from "../../src/server/Identity.ts"
import type { PeerMessage } from "../../src/server/peerMessage.ts"
import type { Reply, Request } from "../../src/server/requests.ts"
import { attemptStoreJob, type StoreJob, type StoreJobResult } from "../../src/server/storeJobs.ts"
import {
  type ClockReading,
  StoreLoop,
  type StoreOutput,
  type StoreParts,
} from "../../src/server/storeLoop.ts"
import type { NodeId, RangeDescriptor } from "../../src/types.ts"
import { NodeChecks } from "./nodeChecks.ts"
import type { Observer } from "./observer.ts"
import type { Parameters } from "./parameters.ts"
import { SimulatedCrash, SimulatedDisk } from "./simulatedDisk.ts"
import type { Trace } from "./trace.ts"
import { Violation } from "./violation.ts"

/** How a process ends: `power` loses what was not synced, `kill` only the process. */
export type Ending = "power" | "kill"

export interface NodeWorld {
  readonly now: number
  readonly trace: Trace
  readonly observer: Observer
  readonly parameters: Parameters
  readonly descriptors: ReadonlyArray<RangeDescriptor>
  /** The nodes that the cluster begins with; another begins with no replica. */
  readonly bootstrapIds: ReadonlyArray<NodeId>
  readonly nodeIds: ReadonlyArray<NodeId>
  readonly parts: StoreParts
  readonly Disk: typeof SimulatedDisk
  readonly nodes: ReadonlyMap<NodeId, SimulatedNode>
  schedule(time: number, run: () => void): void
  send(from: NodeId, to: NodeId, message: PeerMessage): void
  answer(reply: Reply): void
  /** A node has started, with all that its disk was given. */
  recovered(loop: StoreLoop): void
  /** The node has begun to lead a group. */
  elected(node: NodeId): void
  /** The node went down by itself: in the middle of a file operation, or because its disk was too full to start. */
  crashed(node: SimulatedNode): void
}

interface JobUnderWay {
  readonly job: StoreJob
  /** It crashes at this many operations from its start. */
  readonly crashAt: number | undefined
}

/** Counts of what happened on a node, over all its lives. */
export class NodeCounts {
  turns = 0
  jobs: Record<string, number> = {}
  snapshotsInstalled = 0
  starts = 0
  messages = 0
}

/**
 * One node of the world: the store loop that ships over a simulated disk, and a driver like the real one. Journal writes and jobs take their time, and a
 * crash may strike while they do. A paused node does nothing; when it goes on, everything that waited for it happens at once.
 */
export class SimulatedNode {
  readonly id: NodeId
  disk: SimulatedDisk
  private identity: Identity
  /** What the directory of nodes has of it, from its first start on. */
  private readonly record: NodeRecord
  /** By node: the incarnation with which it has a connection. */
  private readonly admitted = new Map<NodeId, string>()
  /** Its disk was emptied: from then on it is another, whom nobody talks to. */
  isWiped = false
  readonly counts = new NodeCounts()
  readonly checks: NodeChecks
  loop: StoreLoop | undefined
  /** Multiplies the time that the disk takes. */
  diskSlowness: number
  readonly usualSlowness: number
  wallSkewMs: number
  /** Bits of its disk were flipped: from then on it may refuse, lag and stop, but answer nothing wrong. */
  isDamaged = false
  hasDamagedTables = false
  /** What it can no longer read may be out of reach for good: it may stop over it. */
  mayBreak = false
  /** From now on it does not sleep between a turn and its outputs. */
  isHealed = false
  /** It has stopped for good, because it cannot read what it must. */
  isBroken = false
  private readonly world: NodeWorld
  private readonly prng: Prng
  private readonly drift: number
  private monotonicOffsetMs = 0
  /** What the monotonic clock showed when the machine fell asleep. */
  private asleepSinceMs: number | undefined
  /** When the machine last woke, and when its wall clock was last set back. */
  private wokeAtUs = Number.NEGATIVE_INFINITY
  private setBackAtUs = Number.NEGATIVE_INFINITY
  /** Number of this life; what belongs to an earlier one is void. */
  life = 0
  private pausedBy = 0
  /** It sleeps between a turn and its outputs. */
  private isMidTurn = false
  private deferred: Array<() => void> = []
  /** Turns, when they are to come after all that came in meanwhile. */
  private deferredTurns: Array<() => void> = []
  private turnsWait = false
  /** While the disk hangs, what would have been done by now. */
  private hanging: { readonly syncsOnly: boolean; readonly held: Array<() => void> } | undefined
  private turnScheduled = false
  /** Turns in a row that called for another and did nothing. */
  private idleTurns = 0
  private writing: JournalWrite | undefined
  private jobs: Array<StoreJob> = []
  private jobUnderWay: JobUnderWay | undefined

  constructor(id: NodeId, world: NodeWorld, prng: Prng) {
    this.id = id
    this.world = world
    this.prng = prng
    this.disk = new world.Disk()
    this.identity = this.newIdentity()
    const { incarnation } = this.identity
    this.record = { id, incarnation, peer: "", client: "", host: "", state: "member" }
    this.checks = new NodeChecks(this, world)
    const { driftMax, wallSkewMaxMs, disk } = world.parameters
    this.usualSlowness = prng.logUniform(1 / disk.unevenness, disk.unevenness)
    this.diskSlowness = this.usualSlowness
    this.drift = 1 + (2 * prng.float() - 1) * driftMax
    this.wallSkewMs = (2 * prng.float() - 1) * wallSkewMaxMs
  }

  get isUp(): boolean {
    return this.loop !== undefined
  }

  get isLeader(): boolean {
    return this.checks.leads
  }

  /** The others must do without it in the end. */
  get isOut(): boolean {
    return this.isBroken || this.hasDamagedTables || this.isWiped
  }

  get isPaused(): boolean {
    return this.pausedBy > 0
  }

  /** What the node would read now. */
  clock(): ClockReading {
    const elapsedMs = (this.world.now / 1000) * this.drift
    return {
      monotonicMs: this.asleepSinceMs ?? this.monotonicOffsetMs + elapsedMs,
      wallMs: startWallMs + elapsedMs + this.wallSkewMs,
    }
  }

  // Life and death

  /** Of every node's directory, kept apart from what the seed decides about: its incarnation is random. */
  private newIdentity(): Identity {
    const { id, world } = this
    const nodes = [...world.nodeIds]
    return Identity.open({ disk: new SimulatedDisk(), directory: "", node: id, nodes, members: "" })
  }

  /** Whether a connection with the peer comes to be: each must take the other for whom it says it is. */
  admits(peer: SimulatedNode): boolean {
    const { incarnation } = peer.identity
    if (this.admitted.get(peer.id) === incarnation) return true
    const isKnown =
      this.identity.problemOfPeer(peer.id, incarnation, peer.record) === undefined &&
      peer.identity.problemOfPeer(this.id, this.identity.incarnation, this.record) === undefined
    if (isKnown) this.admitted.set(peer.id, incarnation)
    return isKnown
  }

  /** While it is down, its disk is replaced by an empty one. */
  wipe(): void {
    assert(this.loop === undefined, "only a node that is down is wiped")
    this.isWiped = true
    this.disk = new this.world.Disk()
    this.identity = this.newIdentity()
    this.admitted.clear()
    this.checks.wiped()
  }

  /** Recovers from the disk and begins to tick. May crash in the middle if `mayCrash`. */
  start(mayCrash: boolean): void {
    assert(this.loop === undefined, "only a node that is down starts")
    const { world, prng, disk } = this
    this.life++
    this.counts.starts++
    this.monotonicOffsetMs = prng.int(1, 1_000_000)
    world.trace.record("start", world.now, this.id)
    const { startCrashRate } = world.parameters.disk
    if (mayCrash && prng.chance(startCrashRate)) disk.crashAfter(disk.operations + prng.int(1, 8))
    try {
      this.loop = StoreLoop.open({
        node: this.id,
        disk,
        prng: prng.fork(),
        settings: world.parameters.settings,
        descriptors: world.descriptors,
        clock: this.clock(),
        bootstrap: world.bootstrapIds.includes(this.id),
        parts: { ...world.parts, opened: (replica) => this.checks.opened(replica) },
      })
    } catch (error) {
      if (this.breaksDown(error)) return
      const isFull = error instanceof DiskError && error.reason === "no-space"
      if (!isFull && !(error instanceof SimulatedCrash)) throw this.failure("start", error)
      this.stop(isFull ? "kill" : "power")
      world.crashed(this)
      return
    }
    disk.crashAfter(undefined)
    this.checks.recovered(this.loop)
    if (!this.isDamaged) world.recovered(this.loop)
    const life = this.life
    const tickUs = world.parameters.settings.tickMs * 1000
    const tick = () => {
      if (this.life !== life) return
      this.whenAwake(() => this.turn(), this.turnsWait)
      const late = prng.chance(0.1) ? prng.logUniform(100, tickUs) : prng.int(0, 200)
      world.schedule(Math.round(world.now + tickUs / this.drift + late), tick)
    }
    world.schedule(world.now + prng.int(0, tickUs), tick)
  }

  /** The process ends now. What it was writing may be in the files in part. */
  stop(ending: Ending): void {
    const { prng, disk, world } = this
    world.trace.record("stop", world.now, this.id, ending === "power" ? 1 : 2)
    this.loop = undefined
    this.life++
    this.pausedBy = 0
    this.isMidTurn = false
    this.asleepSinceMs = undefined
    this.deferred = []
    this.deferredTurns = []
    this.hanging = undefined
    this.turnScheduled = false
    this.checks.stopped()
    // The process is dead; the machine writes on for as long as it has power.
    disk.kill()
    if (prng.chance(0.5)) this.finishJobPartly()
    if (prng.chance(0.7)) this.finishWritePartly(ending)
    this.finishJobPartly()
    this.jobs = []
    this.jobUnderWay = undefined
    this.writing = undefined
    if (ending === "kill") disk.kill()
    else if (prng.chance(0.25)) disk.loseAllUnsynced()
    else if (prng.chance(0.1)) disk.keepAll()
    else disk.crash(prng)
  }

  private finishJobPartly(): void {
    const { prng, disk, jobUnderWay } = this
    this.jobUnderWay = undefined
    if (jobUnderWay === undefined || prng.chance(0.3)) return
    disk.crashAfter(disk.operations + prng.int(1, 10))
    try {
      attemptStoreJob(disk, jobUnderWay.job)
      disk.crashAfter(undefined)
    } catch (error) {
      if (!(error instanceof SimulatedCrash)) throw this.failure("job", error)
      disk.kill()
    }
  }

  private finishWritePartly(ending: Ending): void {
    const { writing, prng } = this
    if (writing === undefined) return
    const bytes =
      ending === "kill" && prng.chance(0.5)
        ? writing.bytes.subarray(0, prng.int(0, writing.bytes.length))
        : writing.bytes
    const file = this.disk.open(writing.path)
    file.write(bytes, writing.offset)
    file.close()
    this.checks.durability.written(writing, false)
  }

  pause(): void {
    this.pausedBy++
    this.turnsWait = this.prng.chance(0.5)
  }

  /** The monotonic clock stands still until the pause ends; it goes on where the wall clock has just gone back (`jumpClock`). */
  sleep(): void {
    if (this.world.now - this.setBackAtUs < clocksApartUs) return
    this.asleepSinceMs ??= this.clock().monotonicMs
  }

  /**
   * Back by as much as the machine sleeps, both clocks would agree that no time has passed: leases rest on that not happening (raft/lease.ts). So while it sleeps,
   * and for a while after that, it jumps forward only.
   */
  jumpClock(byMs: number): void {
    const { now } = this.world
    const hasSlept = this.asleepSinceMs !== undefined || now - this.wokeAtUs < clocksApartUs
    if (byMs < 0 && !hasSlept) this.setBackAtUs = now
    this.wallSkewMs += hasSlept ? Math.abs(byMs) : byMs
  }

  private wake(): void {
    const { asleepSinceMs } = this
    this.asleepSinceMs = undefined
    if (asleepSinceMs === undefined) return
    this.wokeAtUs = this.world.now
    this.monotonicOffsetMs -= this.clock().monotonicMs - asleepSinceMs
  }

  resume(): void {
    this.pausedBy--
    if (this.pausedBy > 0) return
    this.wake()
    this.catchUp()
  }

  /** All that waited happens now, unless it must wait on. */
  private catchUp(): void {
    while (!this.isPaused && !this.isMidTurn) {
      const run = this.deferred.shift() ?? this.deferredTurns.shift()
      if (run === undefined) return
      run()
    }
  }

  /** Runs now, or when the pause ends; never in another life. */
  private whenAwake(run: () => void, isLast = false): void {
    if (this.pausedBy === 0 && !this.isMidTurn) {
      run()
      return
    }
    const { life } = this
    const deferred = isLast ? this.deferredTurns : this.deferred
    deferred.push(() => {
      if (this.life === life) run()
    })
  }

  /** From now on the disk carries out nothing, or no journal write, until it `goesOn`. */
  hang(syncsOnly: boolean): void {
    if (this.loop !== undefined) this.hanging ??= { syncsOnly, held: [] }
  }

  goesOn(): void {
    const { hanging } = this
    this.hanging = undefined
    for (const run of hanging?.held ?? []) run()
  }

  /** Runs now, or when the disk goes on; never in another life. */
  private whenDiskGoes(isSync: boolean, run: () => void): void {
    const { hanging, life } = this
    if (hanging === undefined || (hanging.syncsOnly && !isSync)) run()
    else {
      hanging.held.push(() => {
        if (this.life === life) run()
      })
    }
  }

  // Inputs

  receive(from: NodeId, message: PeerMessage): void {
    if (this.loop === undefined) return
    this.counts.messages++
    this.whenAwake(() => {
      this.guard("receive", () => (this.loop as StoreLoop).receive(from, message))
      this.turnSoon()
    })
  }

  /** False when nobody listens. */
  request(request: Request): boolean {
    if (this.loop === undefined) return false
    this.whenAwake(() => {
      this.guard("request", () => (this.loop as StoreLoop).request(request))
      this.turnSoon()
    })
    return true
  }

  unreachable(node: NodeId): void {
    if (this.loop === undefined) return
    this.whenAwake(() => {
      this.guard("unreachable", () => (this.loop as StoreLoop).unreachable(node))
      this.turnSoon()
    })
  }

  private turnSoon(): void {
    if (this.turnScheduled || this.loop === undefined) return
    this.turnScheduled = true
    const { world, life, prng } = this
    world.schedule(world.now + prng.int(1, world.parameters.turnDelayMaxUs), () => {
      if (this.life !== life) return
      this.whenAwake(() => this.turn(), this.turnsWait)
    })
  }

  private turn(): void {
    const { loop, world } = this
    if (loop === undefined) return
    this.turnScheduled = false
    this.counts.turns++
    const { applied } = world.observer
    const output = this.guard("turn", () => loop.turn(this.clock()))
    if (output === undefined) return
    this.checkProgress(output, world.observer.applied > applied)
    this.checks.noteRoles(loop)
    for (const { message } of output.sends) this.checks.sent(loop, message)
    for (const reply of output.replies) this.checks.answered(reply)
    const { life, prng } = this
    const { midTurnPauseRate, midTurnPauseMaxUs } = world.parameters
    // Leaders have answers to give that may be out of date by then.
    const rate = this.isLeader ? 8 * midTurnPauseRate : midTurnPauseRate
    if (this.isHealed || !prng.chance(rate)) return this.carryOut(loop, output)
    // The process sleeps with its decisions made and nothing of them done.
    this.isMidTurn = true
    const pause = prng.logUniform(1_000, midTurnPauseMaxUs)
    world.schedule(world.now + Math.round(pause), () => {
      if (this.life !== life) return
      this.isMidTurn = false
      this.carryOut(loop, output)
      this.catchUp()
    })
  }

  /** A node that calls for turn after turn and gets nothing done in them spins, which costs a core and is seen by nobody else. */
  private checkProgress(output: StoreOutput, hasApplied: boolean): void {
    const { journal, sends, replies, jobs, more } = output
    const isIdle = journal === undefined && sends.length + replies.length + jobs.length === 0
    this.idleTurns = more && isIdle && !hasApplied ? this.idleTurns + 1 : 0
    if (this.idleTurns < idleTurnsMax) return
    throw new Violation("liveness", `n${this.id} spins: ${idleTurnsMax} turns that did nothing`)
  }

  private carryOut(loop: StoreLoop, output: StoreOutput): void {
    const { world } = this
    const { journal, sends, replies, jobs } = output
    world.trace.record("turn", world.now, this.id, sends.length, replies.length)
    for (const { to, message } of sends) world.send(this.id, to, message)
    for (const reply of replies) world.answer(reply)
    for (const reply of loop.release(this.clock())) {
      this.checks.answered(reply)
      world.answer(reply)
    }
    if (journal !== undefined) this.write(journal)
    if (jobs.length > 0) {
      this.jobs.push(...jobs)
      this.startJob()
    }
    if (output.more) this.turnSoon()
  }

  // Files

  private diskDelay(minUs: number, maxUs: number): number {
    const delayUs = this.prng.logUniform(minUs, maxUs) * this.diskSlowness
    return Math.max(1, Math.min(diskDelayMaxUs, Math.round(delayUs)))
  }

  private write(write: JournalWrite): void {
    assert(this.writing === undefined, "one journal write at a time")
    this.writing = write
    const { world, life } = this
    const { syncMinUs, syncMaxUs } = world.parameters.disk
    const delay = this.diskDelay(syncMinUs, write.sync ? syncMaxUs : syncMinUs)
    world.trace.record("journal", world.now, this.id, write.offset, write.bytes.length)
    world.schedule(world.now + delay, () => {
      if (this.life === life) this.whenDiskGoes(true, () => this.finishWrite(write))
    })
  }

  private finishWrite(write: JournalWrite): void {
    const file = this.disk.open(write.path)
    file.write(write.bytes, write.offset)
    if (write.sync) file.sync()
    file.close()
    this.writing = undefined
    this.checks.durability.written(write, write.sync)
    this.whenAwake(() => {
      this.guard("journalDurable", () => (this.loop as StoreLoop).journalDurable(write))
      this.turnSoon()
    })
  }

  private startJob(): void {
    if (this.jobUnderWay !== undefined) return
    const job = this.jobs.shift()
    if (job === undefined) return
    const { world, life, prng } = this
    const { jobMinUs, jobMaxUs, jobCrashRate } = world.parameters.disk
    const crashAt = prng.chance(jobCrashRate) ? prng.int(1, 10) : undefined
    this.jobUnderWay = { job, crashAt }
    world.schedule(world.now + this.diskDelay(jobMinUs, jobMaxUs), () => {
      if (this.life !== life) return
      this.whenDiskGoes(false, () => this.whenAwake(() => this.finishJob()))
    })
  }

  private finishJob(): void {
    const { disk, world, jobUnderWay } = this
    if (jobUnderWay === undefined) return
    const { job, crashAt } = jobUnderWay
    this.jobUnderWay = undefined
    if (crashAt !== undefined) disk.crashAfter(disk.operations + crashAt)
    let result: StoreJobResult
    try {
      result = attemptStoreJob(disk, job)
    } catch (error) {
      if (this.breaksDown(error)) return
      if (!(error instanceof SimulatedCrash)) throw this.failure(`job ${job._tag}`, error)
      this.stop("power")
      world.crashed(this)
      return
    }
    if (result._tag === "Failed" && result.failure._tag === "Corrupt" && !this.isDamaged) {
      throw this.failure(`job ${job._tag}`, new StorageCorruption(result.failure))
    }
    disk.crashAfter(undefined)
    world.trace.record("job", world.now, this.id, disk.operations)
    this.counts.jobs[job._tag] = (this.counts.jobs[job._tag] ?? 0) + 1
    this.guard("jobDone", () => (this.loop as StoreLoop).jobDone(job, result))
    if (this.loop === undefined) return
    this.startJob()
    this.turnSoon()
  }

  /** `undefined` when the node broke down in the middle. */
  private guard<A>(what: string, run: () => A): A | undefined {
    try {
      return run()
    } catch (error) {
      if (this.breaksDown(error)) return undefined
      throw this.failure(what, error)
    }
  }

  /** A node whose disk is damaged may stop over it, and stays down. */
  private breaksDown(error: unknown): boolean {
    if (!this.mayBreak || !(error instanceof StorageCorruption)) return false
    this.isBroken = true
    this.stop("kill")
    return true
  }

  private failure(what: string, error: unknown): Error {
    if (error instanceof Violation) return error
    const { name, message } =
      error instanceof Error ? error : { name: "error", message: `${error}` }
    const cause = error instanceof DiskError ? error.cause : undefined
    const detail = cause === undefined ? "" : ` (${cause})`
    return new Violation("assertion", `n${this.id} ${what}: ${name}: ${message}${detail}`, error)
  }
}

/** Sleep of a machine and a wall clock set back are further apart than any lease lasts. */
const clocksApartUs = 2_000_000

/** No single write or job takes longer: what began before healing ends soon after it. */
const diskDelayMaxUs = 2_000_000

/** Of turns that do nothing and call for another, two in a row are many. */
const idleTurnsMax = 1000

/** 2025-01-01T00:00:00Z, where every world begins. */
export const startWallMs = 1_735_689_600_000
