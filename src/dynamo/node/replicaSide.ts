import { type ByteReader, MalformedBytes } from "../../lib/byteReader.ts"
import { hash64 } from "../../lib/checksum.ts"
import { slotOf } from "../../lib/slot.ts"
import type { NodeId } from "../../types.ts"
import { isEpoch } from "../dot.ts"
import { checkState, ruleOf } from "../keyState.ts"
import { SlotClock } from "../slotClock.ts"
import { opCodes } from "./opCodes.ts"
import type { Owner } from "./owner.ts"
import type { NodeHost } from "./ports.ts"
import {
  digestAboveBytes,
  type FetchOp,
  readFetch,
  readStore,
  type StoreOp,
  type Verdict,
  verdicts,
  writeDigest,
  writeVerdict,
} from "./requestOps.ts"
import { actorOfEnd, readEnd, writeEnd } from "./tenures.ts"

/** Takes a state for an owner who is out of reach; false: there is no room, or this node may not. */
export type HoldHint = (op: StoreOp) => boolean

/** A node as an owner that others ask, or as a stand-in: what it says to `store` and `fetch`. Each answer leaves when what it speaks of is durable. */
export class ReplicaSide {
  private readonly host: NodeHost
  private readonly owner: Owner
  private readonly hold: HoldHint
  /** The newest version of the ring that a message has named. */
  ringHeard = 0

  constructor(host: NodeHost, owner: Owner, hold: HoldHint) {
    this.host = host
    this.owner = owner
    this.hold = hold
  }

  /** Throws `MalformedBytes` for a state that no version of this program writes. `code`: of the answer. */
  answerStore(from: NodeId, body: ByteReader, code: number = opCodes.stored): void {
    const { host, owner } = this
    const op = readStore(body)
    const slot = slotOf(op.key)
    let said = this.judge(op)
    if (said === verdicts.done) {
      checkState(op.state)
      const isTaken =
        op.hintFor === 0 ? owner.merge(op.namespace, slot, op.key, op.state) : this.hold(op)
      if (!isTaken) said = verdicts.refused
    }
    if (op.id === 0) return
    const mark = op.hintFor === 0 ? owner.markOf(op.namespace, slot) : host.store.mark
    const waits = said === verdicts.done ? mark : 0
    host.outbox.send(from, code, waits, (out) => writeVerdict(out, op.id, said))
  }

  answerFetch(from: NodeId, body: ByteReader): void {
    const { host, owner } = this
    const op = readFetch(body)
    const slot = slotOf(op.key)
    const judged = this.judgeOwner(op)
    const lacks = judged === verdicts.done && host.isRefilling(slot)
    const verdict = lacks ? verdicts.refused : judged
    if (verdict !== verdicts.done) {
      host.outbox.send(from, opCodes.fetched, 0, (out) => writeVerdict(out, op.id, verdict))
      return
    }
    const mark = owner.markOf(op.namespace, slot)
    const state = owner.state(op.namespace, slot, op.key)
    host.outbox.send(from, opCodes.fetched, mark, (out) => {
      if (op.digest && state !== undefined && state.length > digestAboveBytes) {
        writeDigest(out, op.id, hash64(state))
      } else writeVerdict(out, op.id, verdicts.done, state)
    })
  }

  /** A stand-in's tenure has ended, and all of it is here: the clock need not wait for what was replaced before it came. Throws `MalformedBytes`. */
  answerTenureEnd(from: NodeId, body: ByteReader): void {
    const { host, owner } = this
    const end = readEnd(body)
    const { namespace, slot, counter } = end
    if (!isEpoch(end.epoch)) throw new MalformedBytes(`a tenure in epoch ${end.epoch}`)
    const copies = host.namespaces.get(namespace)?.copies
    // Who does not own the slot by its own ring says nothing: it is asked again.
    if (copies === undefined || host.ring?.isOwner(slot, copies, host.node) !== true) return
    // It said that it holds the tenure's hints before it lost data; whoever has them still has to bring them first.
    if (host.isRefilling(slot)) return
    const verdict = host.ring.verdictOf(slot, end.ringVersion)
    if (verdict === "ahead") return
    const clock = owner.copyClock(namespace, slot)
    const actor = actorOfEnd(from, end)
    // An owner since then: it was given nothing of the tenure, and what it has was brought by others.
    if (verdict === "current" && !clock.covers(actor, counter)) {
      const told = new SlotClock()
      told.closeLost(actor, counter)
      owner.adopt(namespace, slot, told)
    }
    const mark = owner.markOf(namespace, slot)
    host.outbox.send(from, opCodes.tenureKnown, mark, (out) => writeEnd(out, end))
  }

  private judge(op: StoreOp): Verdict {
    const { host } = this
    if (host.store.isFull) return verdicts.refused
    const namespace = host.namespaces.get(op.namespace)
    if (namespace === undefined || ruleOf(op.state) !== namespace.rule) return verdicts.refused
    if (op.hintFor === 0) return this.judgeOwner(op)
    return host.ring?.isMember(host.node) === true ? verdicts.done : verdicts.refused
  }

  private judgeOwner(op: Pick<FetchOp, "key" | "namespace" | "ringVersion">): Verdict {
    const { ring, namespaces, node } = this.host
    const namespace = namespaces.get(op.namespace)
    if (ring === undefined || namespace === undefined) return verdicts.refused
    const slot = slotOf(op.key)
    const verdict = ring.verdictOf(slot, op.ringVersion)
    if (verdict === "moved") return verdicts.moved
    // The sender knows a newer ring: this node has to learn it before it can tell.
    if (verdict === "ahead") {
      this.ringHeard = Math.max(this.ringHeard, op.ringVersion)
      return verdicts.behind
    }
    return ring.isOwner(slot, namespace.copies, node) ? verdicts.done : verdicts.moved
  }
}
