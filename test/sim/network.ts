import { ByteWriter } from "../../src/lib/byteWriter.ts"
import type { Prng } from "../../src/lib/prng.ts"
import {
  decodePeerMessage,
  encodePeerMessage,
  type PeerMessage,
} from "../../src/server/peerMessage.ts"
import type { NodeId } from "../../src/types.ts"
import type { NetworkParameters } from "./parameters.ts"
import type { Trace } from "./trace.ts"

/** What the network needs of the world. Times are microseconds. */
export interface NetworkWorld {
  readonly now: number
  readonly trace: Trace
  schedule(time: number, run: () => void): void
  deliver(from: NodeId, to: NodeId, message: PeerMessage): void
  /** The sender's transport noticed that something did not get through. */
  lost(from: NodeId, to: NodeId): void
}

/** Of the messages that arrived at a node, so many of either sort are kept to come once more: one of so many, and all of the seldom ones. */
const keptMax = 48
const keepEvery = 5
const frequent: ReadonlySet<string> = new Set([
  "AppendRequest",
  "AppendResponse",
  "Heartbeat",
  "HeartbeatResponse",
])

interface Kept {
  readonly from: NodeId
  readonly carried: PeerMessage | Uint8Array
}

interface Sample {
  /** The place of the next. */
  at: number
  readonly messages: Array<Kept>
}

/**
 * Links between nodes, one per direction. A message is lost, delayed, repeated (maybe seconds later) and overtaken as the seed's
 * parameters say; a link that is cut loses everything until it heals. Messages that are under way when a link is cut still arrive. A link that is held
 * loses nothing, and delivers it late.
 */
export class Network {
  dropped = 0
  duplicated = 0
  delivered = 0
  private readonly world: NetworkWorld
  private readonly parameters: NetworkParameters
  private readonly prng: Prng
  /** Cuts in force, by link. */
  private readonly cuts = new Map<number, number>()
  /** Links that hold back what is on its way, how often they were told to, and what they hold. */
  private readonly holds = new Map<number, { count: number; readonly held: Array<() => void> }>()
  /** When the last message sent on a link arrives, to keep order where the seed asks for it. */
  private readonly lastArrival = new Map<number, number>()
  /** By receiver: samples of what has arrived lately, the oldest overwritten; what is frequent does not push out what is seldom. */
  private readonly kept = new Map<NodeId, readonly [Sample, Sample]>()
  private readonly writer = new ByteWriter(4096)
  private extraLoss = 0
  private perfect = false

  constructor(options: { world: NetworkWorld; parameters: NetworkParameters; prng: Prng }) {
    this.world = options.world
    this.parameters = options.parameters
    this.prng = options.prng
  }

  /** Cuts one direction; cuts count, so that overlapping ones heal one by one. */
  cut(from: NodeId, to: NodeId): void {
    const link = linkOf(from, to)
    this.cuts.set(link, (this.cuts.get(link) ?? 0) + 1)
  }

  heal(from: NodeId, to: NodeId): void {
    const link = linkOf(from, to)
    this.cuts.set(link, Math.max(0, (this.cuts.get(link) ?? 0) - 1))
  }

  /** What is on its way in one direction waits, as behind a connection that stands still, until as many calls of `release`. */
  hold(from: NodeId, to: NodeId): void {
    const link = linkOf(from, to)
    const known = this.holds.get(link)
    if (known === undefined) this.holds.set(link, { count: 1, held: [] })
    else known.count++
  }

  /** All that waited arrives now, in the order in which it would have. */
  release(from: NodeId, to: NodeId): void {
    const link = linkOf(from, to)
    const known = this.holds.get(link)
    if (known === undefined || --known.count > 0) return
    this.holds.delete(link)
    for (const arrive of known.held) arrive()
  }

  /** Adds to the share of messages lost; 0 ends it. */
  setExtraLoss(share: number): void {
    this.extraLoss = share
  }

  /** From now on every message arrives once, in order, soon. */
  becomePerfect(): void {
    this.cuts.clear()
    this.extraLoss = 0
    this.perfect = true
    const holds = [...this.holds.values()]
    this.holds.clear()
    for (const { held } of holds) for (const arrive of held) arrive()
  }

  /** Some of what a node has received before comes to it once more: out of earlier terms, lives and memberships. */
  repeatTo(to: NodeId): void {
    const { prng, parameters, world } = this
    if (parameters.duplicateRate === 0 || this.perfect) return
    const share = prng.float()
    const samples = this.kept.get(to) ?? []
    for (const { from, carried } of samples.flatMap(({ messages }) => messages)) {
      if (!prng.chance(share)) continue
      this.duplicated++
      world.trace.record("duplicate", world.now, from, to)
      this.arriveAt(world.now + Math.round(prng.logUniform(100, 200_000)), from, to, carried)
    }
  }

  private keep(to: NodeId, message: PeerMessage, arrived: Kept): void {
    if (this.parameters.duplicateRate === 0) return
    const isFrequent = message._tag === "Raft" && frequent.has(message.message._tag)
    if (isFrequent && this.delivered % keepEvery !== 0) return
    let samples = this.kept.get(to)
    if (samples === undefined) {
      samples = [
        { at: 0, messages: [] },
        { at: 0, messages: [] },
      ]
      this.kept.set(to, samples)
    }
    const sample = samples[isFrequent ? 0 : 1]
    sample.messages[sample.at] = arrived
    sample.at = (sample.at + 1) % keptMax
  }

  send(from: NodeId, to: NodeId, message: PeerMessage): void {
    const { prng, parameters, world } = this
    const link = linkOf(from, to)
    const carried = parameters.encode ? this.encode(message) : message
    if (this.perfect) {
      this.transmit(link, from, to, carried, parameters.delayMinUs)
      return
    }
    const cut = (this.cuts.get(link) ?? 0) > 0
    if (cut || prng.chance(parameters.lossRate + this.extraLoss)) {
      this.dropped++
      world.trace.record("drop", world.now, from, to)
      if (prng.chance(parameters.lossNoticedRate)) world.lost(from, to)
      return
    }
    this.transmit(link, from, to, carried, this.drawDelay())
    if (prng.chance(parameters.duplicateRate)) {
      this.duplicated++
      const later = prng.logUniform(parameters.duplicateDelayMinUs, parameters.duplicateDelayMaxUs)
      world.trace.record("duplicate", world.now, from, to)
      this.arriveAt(world.now + Math.round(later), from, to, carried)
    }
  }

  private drawDelay(): number {
    const { prng, parameters } = this
    const max = prng.chance(parameters.spikeRate) ? parameters.spikeMaxUs : parameters.delayMaxUs
    return prng.logUniform(parameters.delayMinUs, max)
  }

  private transmit(
    link: number,
    from: NodeId,
    to: NodeId,
    carried: PeerMessage | Uint8Array,
    delayUs: number,
  ): void {
    let arrival = this.world.now + Math.max(1, Math.round(delayUs))
    if (this.parameters.inOrder || this.perfect) {
      arrival = Math.max(arrival, this.lastArrival.get(link) ?? 0)
      this.lastArrival.set(link, arrival)
    }
    this.arriveAt(arrival, from, to, carried)
  }

  private arriveAt(
    time: number,
    from: NodeId,
    to: NodeId,
    carried: PeerMessage | Uint8Array,
  ): void {
    const arrive = () => {
      this.delivered++
      const message = carried instanceof Uint8Array ? decodePeerMessage(carried) : carried
      this.keep(to, message, { from, carried })
      this.world.deliver(from, to, message)
    }
    this.world.schedule(time, () => {
      const known = this.holds.get(linkOf(from, to))
      if (known === undefined) arrive()
      else known.held.push(arrive)
    })
  }

  private encode(message: PeerMessage): Uint8Array {
    this.writer.reset()
    encodePeerMessage(this.writer, message)
    return this.writer.take()
  }
}

function linkOf(from: NodeId, to: NodeId): number {
  return from * 64 + to
}
