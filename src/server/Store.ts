import { Clock, Context, Data, Deferred, Effect, Layer } from "effect"
import { DataDirectories } from "../disk/DataDirectory.ts"
import { DirectoryInUse } from "../disk/DirectoryLock.ts"
import { DiskError, StorageCorruption } from "../disk/disk.ts"
import { Prng } from "../lib/prng.ts"
import type { NodeId } from "../types.ts"
import { bootstrapDescriptors } from "./bootstrap.ts"
import type { Directory } from "./directory.ts"
import { Identity, IdentityMismatch } from "./Identity.ts"
import { JobWorker } from "./JobWorker.ts"
import { NodeControl } from "./NodeControl.ts"
import { makePeerTransport, type PeerTransportShape } from "./PeerTransport.ts"
import { debtOf, PaceController } from "./pace.ts"
import { decodePeerMessage, encodePeerMessage } from "./peerMessage.ts"
import { StoreDriver } from "./StoreDriver.ts"
import { Control, Store } from "./StoreService.ts"
import { defaultSettings, type StoreSettings } from "./settings.ts"
import { type Lane, laneOf, type StoreJob } from "./storeJobs.ts"
import { StoreLoop } from "./storeLoop.ts"
import { versionOfWall } from "./versionClock.ts"

export interface Address {
  readonly host: string
  readonly port: number
}

/** One node of the cluster, as all nodes know it. */
export interface ClusterMember {
  readonly node: NodeId
  /** Where its peers reach it. */
  readonly peer: Address
  /** Where clients reach it. */
  readonly client: Address
}

/** Where a node stands, and what it can carry. */
export interface NodeStanding {
  /** Names of the failure domains that the node is in: copies are spread over them. */
  readonly zone?: string
  readonly rack?: string
  /** Nodes of one host fail together; default: the host of its address for peers. */
  readonly host?: string
  /** What it is given, in comparison with others; default 1. */
  readonly capacity?: number
}

export interface StoreOptions {
  readonly dataDirectory: string
  readonly node: NodeId
  /** Every node that founds the cluster, this one included. Only this one in a node that has joined (admin/Joining.ts). */
  readonly members: ReadonlyArray<ClusterMember>
  /** The directory is that of a node that was let in; it holds no range until the cluster moves one there. */
  readonly joined?: boolean
  readonly standing?: NodeStanding
  /** Address to bind, for peers and clients. */
  readonly bindHost: string
  /** Ports to bind where they are not those that others call: behind a translation of addresses, or in a container. Default: those of this node's addresses. */
  readonly bindPorts?: { readonly peer: number; readonly client: number }
  readonly settings?: StoreSettings
}

/** The node could not start, or had to stop. The message is one line that names what to look at. */
export class NodeFailed extends Data.TaggedError("NodeFailed")<{
  readonly detail: string
  readonly cause?: unknown
}> {
  override get message(): string {
    return this.detail
  }
}

/** Ends, with the reason, when the node cannot go on. */
export class StoreFailure extends Context.Service<
  StoreFailure,
  {
    /** Never succeeds; fails when the node must stop. */
    readonly failed: Effect.Effect<never, NodeFailed>
  }
>()("kvorum/server/StoreFailure") {}

const printAddress = ({ host, port }: Address) =>
  `${host.includes(":") ? `[${host}]` : host}:${port}`

const randomPrng = () => new Prng(crypto.getRandomValues(new Uint32Array(1))[0] as number)

const recordOf = ({ node, peer, client }: ClusterMember) => ({
  id: node,
  peer: printAddress(peer),
  client: printAddress(client),
  host: peer.host,
})

function explain(directory: string, error: unknown): NodeFailed {
  if (error instanceof NodeFailed) return error
  if (error instanceof DiskError && error.reason === "no-space") {
    return new NodeFailed({
      detail: `the disk of ${directory} is full (${error.path}): free space, then start the node again`,
      cause: error,
    })
  }
  if (error instanceof DirectoryInUse || error instanceof IdentityMismatch) {
    return new NodeFailed({ detail: error.message, cause: error })
  }
  if (error instanceof StorageCorruption) {
    return new NodeFailed({
      detail: `${directory} is damaged where the node must read it: ${error.message}. kvorum doctor names all damage. What other nodes hold is not lost: take this one out (kvorum node remove) and let a new one join`,
      cause: error,
    })
  }
  const message = error instanceof Error ? `${error.name}: ${error.message}` : String(error)
  return new NodeFailed({ detail: `${directory}: ${message}`, cause: error })
}

const acquireDirectory = (path: string) =>
  Effect.acquireRelease(
    Effect.flatMap(DataDirectories, (directories) =>
      Effect.try({
        try: () => directories.acquire(path),
        catch: (error) => explain(path, error),
      }),
    ),
    (directory) => Effect.sync(() => directory.release()),
  )

const startWorker = (driver: StoreDriver, root: string) =>
  Effect.acquireRelease(
    Effect.sync(
      () =>
        new JobWorker({
          root,
          onResult: (job: StoreJob, result) => driver.jobDone(job, result),
          onFatal: (error) => driver.workerFailed(error),
        }),
    ),
    (worker) => Effect.sync(() => worker.terminate()),
  )

const make = Effect.fnUntraced(function* (options: StoreOptions) {
  const { dataDirectory, node, members } = options
  const settings = options.settings ?? defaultSettings
  const clock = yield* Clock.Clock
  const directory = yield* acquireDirectory(dataDirectory)
  const { disk } = directory
  const self = members.find((member) => member.node === node)
  if (self === undefined) {
    return yield* new NodeFailed({ detail: `n${node} is not among the members of the cluster` })
  }
  const attempt = <A>(work: () => A) =>
    Effect.try({ try: work, catch: (error) => explain(dataDirectory, error) })
  const nodes = options.joined === true ? [] : members.map((member) => member.node)
  const identity = yield* attempt(() =>
    Identity.open({
      disk,
      directory: dataDirectory,
      node,
      nodes,
      members: members.map((m) => `${m.node}=${printAddress(m.peer)}`).join(),
    }),
  )
  const origin = clock.monotonicTimeNanosUnsafe()
  const runFork = Effect.runForkWith(yield* Effect.context<never>())
  const readClock = () => ({
    monotonicMs: Number(clock.monotonicTimeNanosUnsafe() - origin) / 1e6,
    wallMs: clock.currentTimeMillisUnsafe(),
  })
  const loop = yield* attempt(() =>
    StoreLoop.open({
      node,
      disk,
      prng: randomPrng(),
      eventualPrng: randomPrng(),
      settings,
      descriptors: nodes.length === 0 ? [] : bootstrapDescriptors(nodes),
      clock: readClock(),
    }),
  )
  const failure = yield* Deferred.make<never, NodeFailed>()
  const fail = (error: unknown) =>
    Deferred.doneUnsafe(failure, Effect.fail(explain(dataDirectory, error)))
  const link: { transport?: PeerTransportShape } = {}
  const lanes = new Map<Lane, JobWorker>()
  const driver = new StoreDriver({
    loop,
    openJournal: (path) => directory.openJournal(path),
    ports: {
      readClock,
      send: (to, message) => link.transport?.send(to, encodePeerMessage, message),
      flush: () => link.transport?.flush(),
      toWorker: (job) => lanes.get(laneOf(job))?.post(job),
      report: (line) => void runFork(Effect.logError(`stored bytes are damaged: ${line}`)),
      fail,
    },
  })
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      driver.stop()
      loop.storage.close()
    }),
  )
  for (const lane of ["engine", "journal"] as const)
    lanes.set(lane, yield* startWorker(driver, dataDirectory))
  const { clusterId, incarnation } = identity
  const control = yield* attempt(
    () =>
      new NodeControl({
        identity,
        self: {
          ...recordOf(self),
          incarnation,
          ...options.standing,
        },
        founders: options.joined === true ? [] : members.map(recordOf),
        disk,
        ranges: () => loop.ranges(),
        learnRange: (descriptor) => loop.learn(descriptor),
        odd: () => loop.oddReplicas(),
        measures: () => loop.rangeMeasures(),
        cutOf: (range) => loop.cutOf(range),
        learnEventual: (directory) => {
          loop.eventual.learnDirectory(directory)
          driver.wake()
        },
        resign: () => {
          loop.eventual.resign()
          driver.wake()
        },
        ringReport: () => loop.eventual.ringReport(),
        believes: (id) => {
          const { monotonicMs } = readClock()
          const belief = loop.swim.beliefOf(id)
          const forMs = loop.swim.believedMs(id, monotonicMs)
          return belief === undefined ? undefined : { belief, forMs }
        },
        learnMembers: (ids) => loop.swim.setMembers(ids, readClock().monotonicMs),
        silentMs: (id) => loop.eventual.machine.silentMs(id),
        forget: (namespace) => {
          driver.wake()
          return loop.eventual.drop(namespace)
        },
        warn: (line) => void runFork(Effect.logWarning(line)),
        fail,
        stop: (detail) => fail(new NodeFailed({ detail })),
      }),
  )
  link.transport = yield* makePeerTransport({
    self: { clusterId, node, incarnation },
    listen: { host: options.bindHost, port: options.bindPorts?.peer ?? self.peer.port },
    peers: control.peers(),
    admit: control.admit,
    onMessage: (from, payload) => driver.receive(from, decodePeerMessage(payload)),
    onUnreachable: (to) => driver.unreachable(to),
  })
  control.transport = link.transport
  yield* Effect.acquireRelease(
    Effect.sync(() => setInterval(() => driver.wake(), settings.tickMs)),
    (timer) => Effect.sync(() => clearInterval(timer)),
  )
  const pace = new PaceController(settings.pace)
  let isFull = false
  yield* Effect.acquireRelease(
    Effect.sync(() =>
      setInterval(() => {
        if (loop.storage.isFull !== isFull) {
          isFull = !isFull
          runFork(Effect.logWarning(isFull ? diskIsFull : diskHasRoom))
        }
        // Requests wait for the ring that others work by.
        if (loop.eventual.isBehind) control.lookAgain()
        const owed = loop.isInstalling ? installDebt : 0
        const debt = Math.max(owed, debtOf(loop.storage.fullness))
        lanes.get("engine")?.setPace(pace.step({ latencyMs: driver.takeLatencyMs(), debt }))
      }, paceEveryMs),
    ),
    (timer) => Effect.sync(() => clearInterval(timer)),
  )
  driver.wake()
  const addresses = { client: printAddress(self.client), peer: printAddress(self.peer) }
  const store = Store.of({
    identity,
    request: (request, reply) => driver.request(request, reply),
    eventual: (request, reply) => driver.requestEventual(request, reply),
    ring: () => control.known.ring,
    ranges: () => control.known.ranges(loop.ranges()),
    namespaces: () => control.known.namespaces,
    nodes: () => control.known.nodes(),
    status: () => ({
      ...{ id: node, pid: process.pid, addresses },
      state: stateOf(loop, control.directory()),
      eventual: {
        ...loop.eventual.status(),
        latencies: driver.requestLatencies.figures(),
      },
    }),
    administer: control.administer,
    time: () => versionOfWall(readClock().wallMs),
  })
  return Context.make(Store, store).pipe(
    Context.add(Control, Control.of(control)),
    Context.add(StoreFailure, StoreFailure.of({ failed: Deferred.await(failure) })),
  )
})

/** The pace of background work is set anew so often, and it is looked whether the disk has become full. */
const paceEveryMs = 250
/** A range without one of its replicas waits for its snapshot to be installed: that gives way to the foreground, but not as far as a compaction. */
const installDebt = 0.05

const diskIsFull =
  "the disk is full: puts are refused, and replicas here fall behind, until space is freed there"
const diskHasRoom = "the disk has room again: puts are taken"

/** "ready" when there is room on the disk, every replica here knows a leader, and the node is to stay. */
function stateOf(loop: StoreLoop, { nodes }: Directory): string {
  if (loop.storage.isFull) return "disk full"
  for (const replica of loop.replicas.values()) {
    if (replica.leaderNode === undefined) return "electing"
  }
  const state = nodes.find(({ id }) => id === loop.node)?.state
  return state === "draining" || state === "leaving" ? state : "ready"
}

/** The store of a node: directory, loop, worker thread and peer transport, from the lock to the last turn. */
export const storeLayer = (options: StoreOptions) => Layer.effectContext(make(options))
