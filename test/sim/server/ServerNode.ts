import { Cause, Context, Effect, Exit, Layer, Logger, Option } from "effect"
import type { TendingPolicy } from "../../../src/admin/Tending.ts"
import { DataDirectories } from "../../../src/disk/DataDirectory.ts"
import { DirectoryInUse } from "../../../src/disk/DirectoryLock.ts"
import * as Node from "../../../src/Node.ts"
import { bootstrapDescriptors } from "../../../src/server/bootstrap.ts"
import { isNewer } from "../../../src/server/descriptors.ts"
import type { Directory } from "../../../src/server/directory.ts"
import { NodeFailed, StoreFailure } from "../../../src/server/Store.ts"
import { Control, type ControlShape } from "../../../src/server/StoreService.ts"
import type { StoreSettings } from "../../../src/server/settings.ts"
import type { StoreLoop } from "../../../src/server/storeLoop.ts"
import type { StoreLoopOptions } from "../../../src/server/storeTypes.ts"
import type { NodeId } from "../../../src/types.ts"
import { type CheckedNode, type CheckedWorld, NodeChecks } from "../nodeChecks.ts"
import { Observer } from "../observer.ts"
import type { Ending } from "../simulatedNode.ts"
import { Violation } from "../violation.ts"
import type { Machine } from "./machine.ts"
import type { SimulatedTcp } from "./simulatedTcp.ts"

export interface NodeWorld extends CheckedWorld {
  readonly tcp: SimulatedTcp
  readonly nodes: Map<NodeId, ServerNode>
  readonly founders: ReadonlyArray<NodeId>
  readonly settings: StoreSettings
  readonly tending: TendingPolicy | "none"
  /** The process ended by itself, with this reason. */
  stopped(node: ServerNode, reason: string): void
  violated(violation: Violation): void
  note(text: () => string): void
}

const clientPort = 7401
const peerPort = 7501

export function clientAddressOf(host: string): string {
  return `${host}:${clientPort}`
}

/** A node on a machine: `Node.ts` as `kvorum serve` runs it, and what is checked of its store at every step. */
export class ServerNode implements CheckedNode {
  /** That of a founder is given; another one gets it when it joins, and is 0 until then. */
  id: NodeId
  readonly machine: Machine
  private known: NodeChecks | undefined
  /** Of the directory that it has now; others than `known` once it was wiped. */
  private present: NodeChecks | undefined
  /** It has lost its disk: what it had promised it does not know any more, and its cluster must not take it for what it was. */
  isWiped = false
  readonly counts = { snapshotsInstalled: 0, turns: 0, starts: 0 }
  readonly isDamaged = false
  /** Of the process that runs, once it has opened its store. */
  loop: StoreLoop | undefined
  life = 0
  /** It was removed from the cluster, and stays down. */
  isRemoved = false
  private readonly world: NodeWorld

  constructor(id: NodeId, machine: Machine, world: NodeWorld) {
    this.id = id
    this.machine = machine
    this.world = world
  }

  get isMember(): boolean {
    return this.id !== 0
  }

  /** The others must do without it in the end. */
  get isOut(): boolean {
    return this.isRemoved || this.isWiped
  }

  /** What its disk held until it was wiped. Only of one that has opened its store. */
  get checks(): NodeChecks {
    if (this.known === undefined) throw new Error("a node that never ran has no checks")
    return this.known
  }

  get isUp(): boolean {
    return this.machine.process !== undefined
  }

  clock() {
    const { process } = this.machine
    return { monotonicMs: process?.monotonicMs ?? 0, wallMs: process?.wallMs ?? 0 }
  }

  private addresses(host: string) {
    return { peer: { host, port: peerPort }, client: { host, port: clientPort } }
  }

  /** A founder starts with the list of founders; another one joins, or goes on as the node that it has become. */
  private layer() {
    const { world, id, machine } = this
    const bindHost = machine.name
    const { settings, tending } = world
    const base = { dataDirectory: machine.name, bindHost, settings, tending }
    if (world.founders.includes(id)) {
      const members = world.founders.map((node) => ({ node, ...this.addresses(`n${node}`) }))
      return Node.layer({ ...base, node: id, members })
    }
    const endpoints = world.founders.map((node) => clientAddressOf(`n${node}`))
    return Node.joinedLayer({
      ...base,
      ...this.addresses(bindHost),
      endpoints,
      patienceMs: 600_000,
    })
  }

  start(): void {
    const { world, machine } = this
    this.life++
    this.counts.starts++
    world.trace.record("start", world.now, machine.number)
    const process = machine.boot()
    world.tcp.machineStarted()
    const directories = DataDirectories.of({
      make: () => {},
      acquire: (directory) =>
        machine.acquire(() => new DirectoryInUse({ directory, pid: undefined })),
    })
    const logger = Logger.make<unknown, void>(({ message, cause }) => {
      world.note(
        () =>
          `${machine.name} logs ${message}${cause.reasons.length > 0 ? Cause.pretty(cause) : ""}`,
      )
    })
    const program = Effect.scoped(
      Effect.gen({ self: this }, function* () {
        const context = yield* Layer.build(this.layer())
        this.checkDirectory(Context.get(context, Control))
        return yield* Context.get(context, StoreFailure).failed
      }),
    ).pipe(
      Effect.provideService(DataDirectories, directories),
      Effect.provide(Logger.layer([logger])),
    )
    process.run(() => {
      Effect.runFork(program).addObserver((exit) => this.ended(exit))
    })
  }

  /** What the meta group says of a range never goes back. */
  private checkDirectory(control: ControlShape): void {
    if (this.isWiped) return
    const learn = control.learn
    Object.assign(control, {
      learn: (directory: Directory) => {
        const known = new Map(control.directory().ranges.map((range) => [range.id, range]))
        for (const range of directory.ranges) {
          const before = known.get(range.id)
          if (before === undefined || !isNewer(before, range)) continue
          const versions = `${before.boundsVersion}.${before.membersVersion} to ${range.boundsVersion}.${range.membersVersion}`
          const text = `n${this.id}: the record of range ${range.id} goes back from ${versions}`
          this.world.violated(new Violation("directory", text))
        }
        learn(directory)
      },
    })
  }

  private ended(exit: Exit.Exit<unknown, unknown>): void {
    const error = Exit.isFailure(exit)
      ? Option.getOrUndefined(Cause.findErrorOption(exit.cause))
      : undefined
    if (error instanceof NodeFailed && error.cause instanceof Violation) {
      this.world.violated(error.cause)
    }
    const why = Exit.isFailure(exit) ? Cause.pretty(exit.cause) : "it ended"
    this.world.stopped(this, error instanceof NodeFailed ? this.reasonOf(error) : why)
  }

  private reasonOf({ detail, cause }: NodeFailed): string {
    const { stack } = cause instanceof Error ? cause : new Error("")
    return `${detail} ${(stack ?? "").split("\n").slice(0, 5).join(" ")}`
  }

  /** The process ends now. */
  stop(ending: Ending): void {
    const { world, machine } = this
    const { process } = machine
    if (process === undefined) return
    world.trace.record("stop", world.now, machine.number, ending === "power" ? 1 : 2)
    this.loop = undefined
    this.life++
    machine.end(ending)
    this.present?.stopped()
    world.tcp.processEnded(process, ending === "kill")
  }

  /** What a wiped node does with itself alone is nobody's loss: whether others take it for what it was, they show. */
  private checkedWorld(): CheckedWorld {
    const { world } = this
    if (!this.isWiped) return world
    const { trace, parameters, nodes } = world
    const now = () => world.now
    const observer = new Observer()
    for (const range of bootstrapDescriptors(world.founders)) observer.described(0, range, 0)
    return {
      get now() {
        return now()
      },
      trace,
      parameters,
      nodes,
      observer,
      elected: () => {},
    }
  }

  /** It loses its disk, and is started again as if nothing had happened. */
  wipe(): void {
    this.stop("power")
    this.world.trace.record("fault", this.world.now, 99, this.machine.number)
    this.isWiped = true
    this.present = undefined
    this.machine.replaceDisk()
    this.start()
  }

  /** The process opens its store: what is checked of it is tied in. */
  opening(open: (options: StoreLoopOptions) => StoreLoop, options: StoreLoopOptions): StoreLoop {
    this.id = options.node
    this.present ??= new NodeChecks(this, this.checkedWorld())
    this.known ??= this.present
    const { present: checks } = this
    this.world.nodes.set(this.id, this)
    const loop = open({ ...options, parts: { opened: (replica) => checks.opened(replica) } })
    checks.recovered(loop)
    const turn = loop.turn.bind(loop)
    loop.turn = (clock) => {
      const output = turn(clock)
      this.counts.turns++
      checks.noteRoles(loop)
      for (const { message } of output.sends) checks.sent(loop, message)
      for (const reply of output.replies) checks.answered(reply)
      return output
    }
    const receive = loop.receive.bind(loop)
    loop.receive = (from, message) => {
      checks.heard(message)
      receive(from, message)
    }
    const journalDurable = loop.journalDurable.bind(loop)
    loop.journalDurable = (write) => {
      if (write.sync && !this.machine.disk.isDurable(write.path)) {
        throw new Violation("durability", `n${this.id} counts a write as durable that is not`)
      }
      checks.durability.written(write, write.sync)
      journalDurable(write)
    }
    this.loop = loop
    return loop
  }
}
