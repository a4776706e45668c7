import type { Prng } from "../../lib/prng.ts"
import type { MonotonicMs, NodeId } from "../../types.ts"
import { type Belief, type Rumour, rumoursMax, type SwimMessage } from "./messages.ts"

/**
 * Who is up: SWIM with suspicion (Das, Gupta, Motivala, "SWIM: Scalable Weakly-consistent Infection-style Process Group Membership Protocol", 2002). Who *belongs* to the cluster is the
 * directory's to say; this tells which of those live, at a cost for each node that does not grow with the cluster.
 *
 *  1. Every period one other node is pinged, each in turn in an order shuffled anew every round, so that all are within two rounds (4.3).
 *  2. One that does not answer in time is pinged by up to three others on our behalf: a bad link between two is no death (4.1).
 *  3. One that nobody reached in the period is *suspect*, and everybody hears so. It hears it, too, and clears itself with a larger incarnation (4.2); else it is *down* after a while.
 *  4. What is new travels on pings and acks, each rumour a few times, the youngest first (4.1).
 *
 * Beyond the paper: who is down comes back by clearing itself, being pinged on like all others; whoever is talked to is told what is believed of it. A node that was
 * paused, whose own gap is longer than a period, judges nobody by what it missed meanwhile. Any message of a suspect itself is not enough to clear it: its answer to the rumour is.
 *
 * Pure: told of time, messages and members; says what to send.
 */
export interface SwimSettings {
  readonly periodMs: number
  /** An answer that takes longer is asked for by way of others. */
  readonly directMs: number
  readonly suspectMs: number
}

export const swimDefaults: SwimSettings = { periodMs: 1000, directMs: 300, suspectMs: 10_000 }

/** Asked to ping on our behalf. */
const helpersMax = 3
/** A rumour is told so many times the logarithm of the number of nodes. */
const tellFactor = 3
/** Pings on behalf of others under way; more are not taken. */
const errandsMax = 64

interface Known {
  readonly node: NodeId
  belief: Belief
  incarnation: number
  /** Since when it is believed. */
  sinceMs: MonotonicMs
  /** How often it has been told. */
  told: number
}

/** Of the present period. */
interface Probe {
  readonly node: NodeId
  readonly sequence: number
  readonly sentMs: MonotonicMs
  isAnswered: boolean
  hasHelpers: boolean
}

interface Errand {
  readonly asker: NodeId
  readonly sequence: number
  readonly node: NodeId
  readonly untilMs: MonotonicMs
}

export class Swim {
  private readonly self: NodeId
  private readonly settings: SwimSettings
  private readonly prng: Prng
  private readonly send: (to: NodeId, message: SwimMessage) => void
  private readonly known = new Map<NodeId, Known>()
  private readonly own: Known
  /** Still to be pinged in this round. */
  private round: Array<NodeId> = []
  private probe: Probe | undefined
  private readonly errands = new Map<number, Errand>()
  private nextSequence: number
  private tickedMs: MonotonicMs
  private periodAtMs: MonotonicMs

  constructor(options: {
    readonly self: NodeId
    readonly settings: SwimSettings
    readonly prng: Prng
    readonly nowMs: MonotonicMs
    readonly send: (to: NodeId, message: SwimMessage) => void
  }) {
    const { self, settings, prng, nowMs, send } = options
    this.self = self
    this.settings = settings
    this.prng = prng
    this.send = send
    this.own = { node: self, belief: "up", incarnation: 0, sinceMs: nowMs, told: 0 }
    // Answers to what this node asked before it was started again must not match.
    this.nextSequence = prng.int(1, 2 ** 40)
    this.tickedMs = nowMs
    this.periodAtMs = nowMs
  }

  /** Who belongs to the cluster. Somebody new counts as up until a probe says otherwise. */
  setMembers(nodes: ReadonlyArray<NodeId>, nowMs: MonotonicMs): void {
    const members = new Set(nodes)
    for (const node of this.known.keys()) if (!members.has(node)) this.known.delete(node)
    for (const node of members) {
      if (node === this.self || this.known.has(node)) continue
      this.known.set(node, { node, belief: "up", incarnation: 0, sinceMs: nowMs, told: 0 })
    }
  }

  /** `undefined` of a node that is no member. */
  beliefOf(node: NodeId): Belief | undefined {
    return node === this.self ? "up" : this.known.get(node)?.belief
  }

  /** For how long that has been believed here. */
  believedMs(node: NodeId, nowMs: MonotonicMs): number {
    const known = this.known.get(node)
    return known === undefined ? 0 : nowMs - known.sinceMs
  }

  tick(nowMs: MonotonicMs): void {
    const gap = nowMs - this.tickedMs
    this.tickedMs = nowMs
    if (this.known.size === 0) return
    if (gap > this.settings.periodMs) return this.forgive(gap, nowMs)
    this.askOthers(nowMs)
    this.bury(nowMs)
    if (nowMs < this.periodAtMs) return
    this.periodAtMs = nowMs + this.settings.periodMs
    this.judge(nowMs)
    this.begin(nowMs)
  }

  /** What was not heard while this node stood still says nothing of others. */
  private forgive(gapMs: number, nowMs: MonotonicMs): void {
    this.probe = undefined
    this.periodAtMs = nowMs
    for (const known of this.known.values()) {
      if (known.belief === "suspect") known.sinceMs = Math.min(nowMs, known.sinceMs + gapMs)
    }
  }

  private begin(nowMs: MonotonicMs): void {
    const node = this.nextToProbe()
    if (node === undefined) return
    const sequence = this.nextSequence++
    this.probe = { node, sequence, sentMs: nowMs, isAnswered: false, hasHelpers: false }
    this.say(node, { kind: "ping", sequence, about: node })
  }

  private nextToProbe(): NodeId | undefined {
    for (;;) {
      if (this.round.length === 0) {
        this.round = [...this.known.keys()]
        if (this.round.length === 0) return undefined
        this.prng.shuffle(this.round)
      }
      const node = this.round.pop() as NodeId
      if (this.known.has(node)) return node
    }
  }

  private askOthers(nowMs: MonotonicMs): void {
    const { probe } = this
    if (probe === undefined || probe.isAnswered || probe.hasHelpers) return
    if (nowMs - probe.sentMs < this.settings.directMs) return
    probe.hasHelpers = true
    const helpers = [...this.known.values()]
      .filter(({ node, belief }) => node !== probe.node && belief === "up")
      .map(({ node }) => node)
    this.prng.shuffle(helpers)
    const { sequence, node: about } = probe
    for (const helper of helpers.slice(0, helpersMax)) {
      this.say(helper, { kind: "ask", sequence, about })
    }
  }

  /** At the end of a period. */
  private judge(nowMs: MonotonicMs): void {
    const { probe } = this
    this.probe = undefined
    if (probe === undefined || probe.isAnswered) return
    const known = this.known.get(probe.node)
    if (known?.belief === "up") this.believe(known, "suspect", known.incarnation, nowMs)
  }

  private bury(nowMs: MonotonicMs): void {
    for (const known of this.known.values()) {
      if (known.belief !== "suspect" || nowMs - known.sinceMs < this.settings.suspectMs) continue
      this.believe(known, "down", known.incarnation, nowMs)
    }
  }

  receive(from: NodeId, message: SwimMessage, nowMs: MonotonicMs): void {
    for (const rumour of message.rumours) this.hear(rumour, nowMs)
    const { kind, sequence, about } = message
    switch (kind) {
      case "ping":
        return this.say(from, { kind: "ack", sequence, about: this.self })
      case "ask":
        return this.runErrand({ asker: from, sequence, node: about }, nowMs)
      case "ack":
        return this.acknowledged(sequence, about)
      default:
        return kind satisfies never
    }
  }

  private runErrand(errand: Omit<Errand, "untilMs">, nowMs: MonotonicMs): void {
    for (const [sequence, { untilMs }] of this.errands) {
      if (nowMs >= untilMs) this.errands.delete(sequence)
    }
    if (this.errands.size >= errandsMax || !this.known.has(errand.node)) return
    const sequence = this.nextSequence++
    this.errands.set(sequence, { ...errand, untilMs: nowMs + this.settings.periodMs })
    this.say(errand.node, { kind: "ping", sequence, about: errand.node })
  }

  private acknowledged(sequence: number, about: NodeId): void {
    if (this.probe?.sequence === sequence && this.probe.node === about) {
      this.probe.isAnswered = true
      return
    }
    const errand = this.errands.get(sequence)
    if (errand === undefined || errand.node !== about) return
    this.errands.delete(sequence)
    this.say(errand.asker, { kind: "ack", sequence: errand.sequence, about })
  }

  private hear({ node, belief, incarnation }: Rumour, nowMs: MonotonicMs): void {
    if (node === this.self) {
      // Whoever says so has to hear better; one of a life before this start, too.
      if (incarnation < this.own.incarnation) return
      if (belief === "up" && incarnation === this.own.incarnation) return
      this.own.incarnation = incarnation + 1
      this.own.told = 0
      return
    }
    const known = this.known.get(node)
    if (known === undefined) return
    const isNewer = incarnation > known.incarnation
    const isWorse = incarnation === known.incarnation && rank[belief] > rank[known.belief]
    if (isNewer || isWorse) this.believe(known, belief, incarnation, nowMs)
  }

  private believe(known: Known, belief: Belief, incarnation: number, nowMs: MonotonicMs): void {
    if (known.belief !== belief) known.sinceMs = nowMs
    known.belief = belief
    known.incarnation = incarnation
    known.told = 0
  }

  private say(to: NodeId, what: Pick<SwimMessage, "kind" | "sequence" | "about">): void {
    this.send(to, { _tag: "Swim", range: 0, ...what, rumours: this.rumoursFor(to) })
  }

  /** What is believed of the one that is talked to, if it is bad; of oneself; then what has been told least. */
  private rumoursFor(to: NodeId): ReadonlyArray<Rumour> {
    const tellMax = Math.ceil(tellFactor * Math.log2(this.known.size + 2))
    const listener = this.known.get(to)
    const chosen: Array<Known> = []
    if (listener !== undefined && listener.belief !== "up") chosen.push(listener)
    const others = [this.own, ...this.known.values()]
      .filter((known) => known !== listener && known.incarnation + rank[known.belief] > 0)
      .filter(({ told }) => told < tellMax)
      .sort((left, right) => left.told - right.told)
    for (const known of others) {
      if (chosen.length >= rumoursMax) break
      known.told++
      chosen.push(known)
    }
    return chosen.map(({ node, belief, incarnation }) => ({ node, belief, incarnation }))
  }
}

const rank = { up: 0, suspect: 1, down: 2 } as const
