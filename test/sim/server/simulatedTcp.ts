import { crc32 } from "../../../src/lib/checksum.ts"
import type { Prng } from "../../../src/lib/prng.ts"
import type { NetworkParameters } from "../parameters.ts"
import type { Trace } from "../trace.ts"
import type { ProcessWorld, SimulatedProcess } from "./simulatedProcess.ts"

/** The handlers of a socket of the runtime, as far as the program has any. */
interface Handlers {
  open?(socket: End): void
  data?(socket: End, chunk: Uint8Array): void
  drain?(socket: End): void
  close?(socket: End): void
  connectError?(socket: undefined, error: Error): void
}

export interface SocketOptions {
  readonly hostname: string
  readonly port: number
  readonly socket: Handlers
}

export interface TcpWorld extends ProcessWorld {
  readonly trace: Trace
  /** Whether the machine has power; packets to one that has none get no answer. */
  isOn(host: string): boolean
}

interface Listener {
  readonly process: SimulatedProcess
  readonly handlers: Handlers
}

/** What travels on a connection, in order: bytes, or its end. */
type Segment = Uint8Array | "end"

/** Packets that were lost are sent again after so long. */
const resendUs = 200_000

/**
 * TCP between simulated processes. What one end writes arrives at the other in order, in pieces cut anywhere, after a delay; loss is delay here. A link that is
 * cut holds everything back until it heals; nobody is told. The kernel of a machine that is on says that a process is gone, one without power says nothing.
 */
export class SimulatedTcp {
  bytes = 0
  connections = 0
  private readonly world: TcpWorld
  private readonly parameters: NetworkParameters
  private readonly prng: Prng
  private readonly listeners = new Map<string, Listener>()
  private readonly ends = new Set<End>()
  /** Links cut in one direction, "from to", and how often. */
  private readonly cuts = new Map<string, number>()
  /** What waits for a link or a machine, oldest first. */
  private held: Array<{ readonly from: string; readonly to: string; readonly run: () => void }> = []
  private perfect = false
  /** Times by which every delay grows, while a link is slow. */
  private slowness = 1

  constructor(options: { world: TcpWorld; parameters: NetworkParameters; prng: Prng }) {
    this.world = options.world
    this.parameters = options.parameters
    this.prng = options.prng
  }

  // What the runtime offers

  listen(process: SimulatedProcess, { hostname, port, socket }: SocketOptions) {
    const name = `${hostname}:${port}`
    if (this.listeners.has(name)) throw new Error(`${name} is in use`)
    const listener = { process, handlers: socket }
    this.listeners.set(name, listener)
    return {
      port,
      stop: () => {
        if (this.listeners.get(name) === listener) this.listeners.delete(name)
      },
    }
  }

  connect(process: SimulatedProcess, options: SocketOptions): Promise<End> {
    const { hostname, port, socket } = options
    return new Promise((resolve, reject) => {
      const refused = () =>
        process.run(() => {
          const error = new Error("Failed to connect")
          socket.connectError?.(undefined, error)
          reject(error)
        })
      this.carry(process.host, hostname, () => {
        const listener = this.listeners.get(`${hostname}:${port}`)
        if (listener === undefined) return this.carry(hostname, process.host, refused)
        const near = new End(this, process, socket)
        const far = new End(this, listener.process, listener.handlers)
        near.join(far)
        this.ends.add(near).add(far)
        this.connections++
        far.process.run(() => far.open())
        this.carry(hostname, process.host, () => {
          // It died meanwhile, and its kernel knows of no such connection.
          if (process.isDead) return far.broken()
          process.run(() => {
            near.open()
            resolve(near)
          })
        })
      })
    })
  }

  // Processes and faults

  /** The process is no more. With `kernel` its machine goes on, and tells the other ends. */
  processEnded(process: SimulatedProcess, kernel: boolean): void {
    for (const [name, listener] of this.listeners) {
      if (listener.process === process) this.listeners.delete(name)
    }
    for (const end of this.ends) {
      if (end.process !== process) continue
      this.ends.delete(end)
      if (kernel) end.sendEnd()
      else end.isSilent = true
    }
  }

  /** A machine has power again: what waited for it arrives, to find nobody. */
  machineStarted(): void {
    this.release()
  }

  cut(from: string, to: string): void {
    const link = `${from} ${to}`
    this.cuts.set(link, (this.cuts.get(link) ?? 0) + 1)
  }

  heal(from: string, to: string): void {
    const link = `${from} ${to}`
    this.cuts.set(link, Math.max(0, (this.cuts.get(link) ?? 0) - 1))
    this.release()
  }

  /** Whether a link of this machine is cut, in either direction. */
  isCutOff(host: string): boolean {
    for (const [link, count] of this.cuts) {
      if (count > 0 && link.split(" ").includes(host)) return true
    }
    return false
  }

  setSlowness(factor: number): void {
    this.slowness = factor
  }

  becomePerfect(): void {
    this.cuts.clear()
    this.slowness = 1
    this.perfect = true
    this.release()
  }

  private isOpen(from: string, to: string): boolean {
    return (this.cuts.get(`${from} ${to}`) ?? 0) === 0 && this.world.isOn(to)
  }

  private release(): void {
    const { held, world, prng } = this
    this.held = []
    for (const packet of held) {
      const { from, to, run } = packet
      if (!this.isOpen(from, to)) this.held.push(packet)
      else world.schedule(world.now + prng.int(100, resendUs), () => this.arrive(from, to, run))
    }
  }

  // Packets

  delayUs(): number {
    const { prng, parameters } = this
    if (this.perfect) return Math.max(1, Math.round(parameters.delayMinUs))
    // What waits for a lost or late packet holds up all behind it, so that both weigh more than for messages.
    const max = prng.chance(parameters.spikeRate / 10)
      ? parameters.spikeMaxUs
      : parameters.delayMaxUs
    let delay = prng.logUniform(parameters.delayMinUs, max) * this.slowness
    if (prng.chance(parameters.lossRate / 10)) delay += resendUs
    return Math.max(1, Math.round(delay))
  }

  /** `run` happens when the packet arrives; not while the link is cut or the machine off. */
  carry(from: string, to: string, run: () => void, delayUs = this.delayUs()): void {
    this.world.schedule(this.world.now + delayUs, () => this.arrive(from, to, run))
  }

  private arrive(from: string, to: string, run: () => void): void {
    if (this.isOpen(from, to)) run()
    else this.held.push({ from, to, run })
  }

  get now(): number {
    return this.world.now
  }

  delivered(bytes: Uint8Array): void {
    this.bytes += bytes.length
    this.world.trace.record("deliver", this.world.now, bytes.length, crc32(bytes))
  }

  /** Where a chunk is cut when it is read. */
  pieceOf(bytes: number): number {
    return this.prng.chance(0.1) ? this.prng.int(1, bytes) : bytes
  }

  get sendBufferBytes(): number {
    return this.parameters.inOrder ? 64 * 1024 : 4 * 1024
  }

  gone(end: End): void {
    this.ends.delete(end)
  }
}

/** One end of a connection: the socket that a program holds. */
export class End {
  readonly process: SimulatedProcess
  data: unknown
  /** Its machine lost power: it answers nothing any more. */
  isSilent = false
  private readonly tcp: SimulatedTcp
  private readonly handlers: Handlers
  private peer: End | undefined
  private state: "open" | "ended" | "closed" = "open"
  /** Written here and not yet taken by the other side's program. */
  private unreadBytes = 0
  private wantsRoom = false
  private lastArrival = 0
  private sent = 0
  private received = 0
  /** What came before something that was sent earlier, by its number. */
  private readonly early = new Map<number, Segment>()
  private readonly arrived: Array<Segment> = []
  private paused = false
  /** Whether its program has been told that it is open; nothing is read before. */
  private isOpened = false

  constructor(tcp: SimulatedTcp, process: SimulatedProcess, handlers: Handlers) {
    this.tcp = tcp
    this.process = process
    this.handlers = handlers
  }

  join(peer: End): void {
    this.peer = peer
    peer.peer = this
  }

  open(): void {
    this.isOpened = true
    this.handlers.open?.(this)
    this.readOn()
  }

  // What a program calls

  write(bytes: Uint8Array, from = 0, count = bytes.length - from): number {
    if (this.state !== "open") return -1
    const room = Math.max(0, this.tcp.sendBufferBytes - this.unreadBytes)
    const taken = Math.min(room, count)
    if (taken < count) this.wantsRoom = true
    if (taken === 0) return 0
    this.unreadBytes += taken
    this.send(bytes.slice(from, from + taken))
    return taken
  }

  end(): void {
    if (this.state !== "open") return
    this.state = "ended"
    this.send("end")
  }

  terminate(): void {
    if (this.state === "closed") return
    const told = this.state === "ended"
    this.close()
    if (!told) this.send("end")
  }

  setNoDelay(): void {}

  pause(): void {
    this.paused = true
  }

  resume(): void {
    if (!this.paused) return
    this.paused = false
    this.process.immediate(() => this.readOn())
  }

  // On the way

  private send(segment: Segment): void {
    const { tcp, peer } = this
    if (peer === undefined) return
    const arrival = Math.max(this.lastArrival, tcp.now + tcp.delayUs())
    this.lastArrival = arrival
    const number = this.sent++
    const delayUs = arrival - tcp.now
    tcp.carry(this.process.host, peer.process.host, () => peer.receive(number, segment), delayUs)
  }

  /** The kernel says that the process has gone. */
  sendEnd(): void {
    if (this.state === "open") this.send("end")
    this.state = "closed"
  }

  private receive(number: number, segment: Segment): void {
    if (this.process.isDead) {
      // The kernel of a machine that has come back knows of no such connection.
      if (this.isSilent && segment !== "end") this.peer?.refuse()
      return
    }
    if (this.state === "closed") return
    this.early.set(number, segment)
    for (;;) {
      const next = this.early.get(this.received)
      if (next === undefined) break
      this.early.delete(this.received++)
      this.arrived.push(next)
    }
    if (this.isOpened) this.process.run(() => this.readOn())
  }

  /** Whoever is at the other end does not know this connection. */
  private refuse(): void {
    const { peer } = this
    if (peer === undefined) return
    this.tcp.carry(peer.process.host, this.process.host, () => this.broken())
  }

  broken(): void {
    this.process.run(() => this.close())
  }

  private readOn(): void {
    while (!this.paused && this.state !== "closed") {
      const segment = this.arrived.shift()
      if (segment === undefined) return
      if (segment === "end") return this.close()
      const bytes = this.tcp.pieceOf(segment.length)
      const piece = bytes === segment.length ? segment : segment.slice(0, bytes)
      if (bytes < segment.length) this.arrived.unshift(segment.slice(bytes))
      this.tcp.delivered(piece)
      this.peer?.taken(bytes)
      this.handlers.data?.(this, piece)
    }
  }

  /** The other program has read so many bytes; that this end learns a packet later. */
  private taken(bytes: number): void {
    this.unreadBytes -= bytes
    const { peer, tcp } = this
    if (!this.wantsRoom || peer === undefined) return
    this.wantsRoom = false
    tcp.carry(peer.process.host, this.process.host, () =>
      this.process.run(() => {
        if (this.state === "open") this.handlers.drain?.(this)
      }),
    )
  }

  private close(): void {
    if (this.state === "closed") return
    this.state = "closed"
    this.arrived.length = 0
    this.tcp.gone(this)
    this.process.immediate(() => this.handlers.close?.(this))
  }
}
