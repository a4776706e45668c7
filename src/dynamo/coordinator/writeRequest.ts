import { assert } from "../../lib/assert.ts"
import type { Lsn, MonotonicMs, NodeId } from "../../types.ts"
import {
  askAgainMs,
  isWriteMet,
  type Level,
  nodesIn,
  type SlotPlan,
  type StandIn,
} from "./slotPlan.ts"

/**
 * One write at its coordinator. Pure: inputs are methods, outputs are data.
 *
 * The flow.
 *   1. `canBegin` says whether the level can be met by the nodes that are up. If not, nothing has been written: `QuorumUnavailable`.
 *   2. The caller mints the dot and merges the write into its own store; that append has an LSN.
 *   3. `durable` with that LSN opens the gate: the whole state goes to every owner. Nothing leaves before, else a crash could use the dot again.
 *   4. An owner that fails, or is silent for `patienceMs`, is stood in for: the next stand-in is given the state as a hint for it, unless the
 *      write is `strict`. A stand-in holds for one owner only, so as many nodes hold the write as bits are counted.
 *   5. The client is answered as soon as the level is met; the request goes on until every owner, or a stand-in for it, holds the write, or until the
 *      deadline. Not met by then, or no longer to be met: `OutcomeUnknown`, since the coordinator at least holds the write and will spread it.
 *
 * When the ring changes. An owner that says that the slot has moved holds nothing yet. For `patienceMs` the write waits for a newer ring; where its coordinator cannot learn one, cut off
 * as it is, the owner is asked to keep the write as a hint for whoever owns the slot by its own ring, and counts as a stand-in for itself (DESIGN section 4, "Ring change"); of a
 * strict write it does not, and nobody is asked. An owner that is behind, and has yet to learn the ring of this write, is asked again and again, at longer and longer intervals.
 *   With a newer plan everything begins anew, but for the reply: `replan` forgets who held the write by the old plan, so that acknowledgements of two rings never make up a level together. What
 * makes reads and writes meet (topology/ringChange.ts) speaks of W owners who took the write under one version. The coordinator's own copy counts again only where its driver says that it
 * holds the write by the new plan too.
 *
 * Invariants: at most one reply; a reply `written` is given only while `isWriteMet` by answers to the present plan; a strict write sends no hint.
 *
 * Left out: stand-ins are given out in order: at `localQuorum` an owner elsewhere that fails first may take the one that a local owner needs later, and the write ends as
 * `OutcomeUnknown`.
 */
export interface WriteStart {
  readonly plan: SlotPlan
  readonly self: NodeId
  readonly level: Level
  readonly strict: boolean
  /** Where the coordinator's own append of the write ends. */
  readonly lsn: Lsn
  readonly patienceMs: number
  readonly deadlineMs: MonotonicMs
}

export interface StoreMessage {
  readonly target: NodeId
  /** The owner that the target shall bring the state to; `undefined`: the target is the owner. */
  readonly hintFor: NodeId | undefined
}

export interface WriteReceipt {
  readonly asked: Level
  readonly strict: boolean
  /** Owners that held the write when the client was answered. */
  readonly stored: ReadonlyArray<NodeId>
  readonly standIns: ReadonlyArray<{ readonly node: NodeId; readonly owner: NodeId }>
  /** Whether owners alone met the level. */
  readonly sloppy: boolean
}

export interface WriteReply {
  readonly _tag: "written" | "OutcomeUnknown"
  readonly receipt: WriteReceipt
}

/** What the caller has to do now; each call gives what is new since the one before. */
export interface WriteOutput {
  readonly messages: ReadonlyArray<StoreMessage>
  readonly reply: WriteReply | undefined
  readonly done: boolean
}

/** Whether a write can be at its level with the nodes that are up, each node standing in for at most one owner. */
export function canBegin(
  plan: SlotPlan,
  request: { readonly level: Level; readonly strict: boolean },
  isUp: (node: NodeId) => boolean,
): boolean {
  const { owners, localMask } = plan
  let stored = 0
  for (let i = 0; i < owners.count; i++) if (isUp(owners.nodes[i])) stored |= 1 << i
  let hinted = 0
  let hintedLocally = 0
  if (!request.strict) {
    const standIns = plan.standIns.filter(({ node }) => isUp(node))
    for (let i = 0; i < owners.count; i++) {
      if ((stored & (1 << i)) !== 0) continue
      const standIn = takeStandIn(standIns, (localMask & (1 << i)) !== 0)
      if (standIn === undefined) break
      hinted |= 1 << i
      if (standIn.isLocal) hintedLocally |= 1 << i
    }
  }
  return isWriteMet(plan, request.level, { stored, hinted, hintedLocally })
}

/** Takes the first out of `standIns`; for an owner of the coordinator's zone the first that is there too, if any is. */
function takeStandIn<T extends { readonly isLocal: boolean }>(
  standIns: Array<T>,
  local: boolean,
): T | undefined {
  const index = local ? standIns.findIndex(({ isLocal }) => isLocal) : -1
  return standIns.splice(Math.max(index, 0), 1)[0]
}

export class WriteRequest {
  private readonly start: Omit<WriteStart, "plan" | "lsn">
  private plan: SlotPlan
  private lsn: Lsn
  /** Whether the coordinator holds the write as the plan has it: as an owner, or as a hint. */
  private holds = true
  private standInsLeft: Array<StandIn>
  /** By owner: the stand-in asked for it, if any. */
  private askedStandIn: Array<StandIn | undefined> = []
  private messages: Array<StoreMessage> = []
  private reply: WriteReply | undefined
  private stored = 0
  private hinted = 0
  private hintedLocally = 0
  /** Bits of owners that refused, or cannot be reached. */
  private failed = 0
  /** Bits of owners for which there is no stand-in left, or may be none. */
  private unaided = 0
  private moved = 0
  private behind = 0
  private askAgainAtMs: MonotonicMs = 0
  private askAgainAfterMs = askAgainMs
  private sentAtMs: MonotonicMs | undefined
  private replied = false
  private done = false

  constructor(start: WriteStart) {
    this.start = start
    this.plan = start.plan
    this.lsn = start.lsn
    this.standInsLeft = [...start.plan.standIns]
    this.checkPlan()
    const isHere = ({ node }: { readonly node: NodeId }) => node === start.self
    const mayBegin = this.isOwner(start.self) || (!start.strict && start.plan.standIns.some(isHere))
    assert(mayBegin, () => `n${start.self} may not coordinate this write`)
  }

  private checkPlan(): void {
    const { owners, standIns } = this.plan
    for (const { node } of standIns) assert(!this.isOwner(node), () => `n${node} is both`)
    assert(owners.count >= 1, "a slot without owners")
  }

  /**
   * The slot has other owners: begins anew with them. No answer to what was sent before may be handed in from now on. `holds`: whether the coordinator has the write as the new
   * plan asks of it, as an owner or as a hint; with `lsn` that is durable.
   */
  replan(plan: SlotPlan, { lsn, holds }: { readonly lsn: Lsn; readonly holds: boolean }): void {
    this.plan = plan
    this.lsn = lsn
    this.holds = holds
    this.standInsLeft = [...plan.standIns]
    this.askedStandIn = []
    this.messages = []
    this.stored = 0
    this.hinted = 0
    this.hintedLocally = 0
    this.failed = 0
    this.unaided = 0
    this.moved = 0
    this.behind = 0
    this.sentAtMs = undefined
    this.checkPlan()
  }

  /** It has not been answered. */
  get isOpen(): boolean {
    return !this.replied
  }

  /** Everything in the coordinator's journal below `lsn` is durable. */
  durable(lsn: Lsn, nowMs: MonotonicMs): void {
    if (lsn < this.lsn || this.sentAtMs !== undefined || this.done) return
    this.sentAtMs = nowMs
    const { owners } = this.plan
    for (let i = 0; i < owners.count; i++) {
      const target = owners.nodes[i]
      if (target !== this.start.self) this.messages.push({ target, hintFor: undefined })
      else if (this.holds) this.stored |= 1 << i
      else this.failAt(i)
    }
    this.advance()
  }

  /** `node` holds the write durably: as an owner, or as the hint it was sent. */
  storedBy(node: NodeId): void {
    if (this.done) return
    const { owners } = this.plan
    for (let i = 0; i < owners.count; i++) {
      const bit = 1 << i
      // Of one that has refused the write as an owner it can only be the hint.
      if (owners.nodes[i] === node && (this.moved & bit) === 0) this.stored |= bit
      const standIn = this.askedStandIn[i]
      if (standIn?.node !== node) continue
      this.hinted |= bit
      if (standIn.isLocal) this.hintedLocally |= bit
    }
    this.advance()
  }

  /** `node` refused the write, or is out of reach. Whatever it still says is taken. */
  failedAt(node: NodeId): void {
    if (this.done) return
    const { owners } = this.plan
    for (let i = 0; i < owners.count; i++) {
      const isOwner = owners.nodes[i] === node
      if (isOwner) this.failed |= 1 << i
      const asked = this.askedStandIn[i]
      const isStandIn = asked?.node === node && (this.hinted & (1 << i)) === 0
      if ((isOwner && asked === undefined) || isStandIn) this.standInFor(i)
    }
    this.advance()
  }

  /** The owner says that the slot has other owners by now, and holds nothing. */
  movedAt(node: NodeId): void {
    const bit = this.bitOf(node)
    if (!this.done) this.moved |= bit & ~this.stored
  }

  /** The owner does not know the ring of this write yet. */
  behindAt(node: NodeId, nowMs: MonotonicMs): void {
    if (this.behind === 0) this.askAgainAtMs = nowMs + this.askAgainAfterMs
    this.behind |= this.bitOf(node) & ~this.stored
  }

  tick(nowMs: MonotonicMs): void {
    if (this.done) return
    const { deadlineMs, patienceMs } = this.start
    if (nowMs >= deadlineMs) {
      this.finish()
      return
    }
    if (this.sentAtMs === undefined) return
    if (this.behind !== 0 && nowMs >= this.askAgainAtMs) this.askAgain()
    if (nowMs - this.sentAtMs < patienceMs) return
    for (let i = 0; i < this.plan.owners.count; i++) {
      const bit = 1 << i
      const isAided = this.askedStandIn[i] !== undefined || (this.unaided & bit) !== 0
      if ((this.stored & bit) !== 0 || isAided) continue
      if ((this.moved & bit) !== 0) this.leaveWith(i)
      else this.standInFor(i)
    }
    this.advance()
  }

  take(): WriteOutput {
    const output = { messages: this.messages, reply: this.reply, done: this.done }
    this.messages = []
    this.reply = undefined
    return output
  }

  private isOwner(node: NodeId): boolean {
    return this.bitOf(node) !== 0
  }

  private bitOf(node: NodeId): number {
    const { owners } = this.plan
    for (let i = 0; i < owners.count; i++) if (owners.nodes[i] === node) return 1 << i
    return 0
  }

  private askAgain(): void {
    for (const target of nodesIn(this.plan.owners, this.behind & ~this.stored)) {
      this.messages.push({ target, hintFor: undefined })
    }
    this.behind = 0
    this.askAgainAfterMs *= 2
  }

  private failAt(owner: number): void {
    this.failed |= 1 << owner
    this.standInFor(owner)
  }

  private standInFor(owner: number): void {
    const { plan } = this
    const local = (plan.localMask & (1 << owner)) !== 0
    const standIn = this.start.strict ? undefined : takeStandIn(this.standInsLeft, local)
    this.askedStandIn[owner] = standIn
    if (standIn === undefined) this.unaided |= 1 << owner
    else this.messages.push({ target: standIn.node, hintFor: plan.owners.nodes[owner] })
  }

  /** Has an owner that takes no writes by this plan keep it as a hint. */
  private leaveWith(owner: number): void {
    const { owners, localMask } = this.plan
    if (this.start.strict) return
    const node = owners.nodes[owner]
    this.askedStandIn[owner] = { node, isLocal: (localMask & (1 << owner)) !== 0 }
    this.messages.push({ target: node, hintFor: node })
  }

  private advance(): void {
    if (this.sentAtMs === undefined) return
    const { stored, hinted, hintedLocally, plan } = this
    const { level } = this.start
    if (isWriteMet(plan, level, { stored, hinted, hintedLocally })) this.answer("written")
    const open = plan.owners.writeMask & ~(stored | hinted)
    // While a newer plan is to come nothing is lost yet.
    const isLost = this.moved === 0 && (open & ~(this.failed & this.unaided)) === 0
    if (open === 0 || isLost) this.finish()
  }

  private finish(): void {
    this.answer("OutcomeUnknown")
    this.done = true
  }

  private answer(_tag: WriteReply["_tag"]): void {
    if (this.replied) return
    this.replied = true
    this.reply = { _tag, receipt: this.receipt() }
  }

  private receipt(): WriteReceipt {
    const { plan } = this
    const { level, strict } = this.start
    const stored: Array<NodeId> = []
    const standIns: Array<{ node: NodeId; owner: NodeId }> = []
    for (let i = 0; i < plan.owners.count; i++) {
      const owner = plan.owners.nodes[i]
      const standIn = this.askedStandIn[i]
      if ((this.stored & (1 << i)) !== 0) stored.push(owner)
      else if ((this.hinted & (1 << i)) !== 0 && standIn !== undefined) {
        standIns.push({ node: standIn.node, owner })
      }
    }
    const byOwners = { stored: this.stored, hinted: 0, hintedLocally: 0 }
    return { asked: level, strict, stored, standIns, sloppy: !isWriteMet(plan, level, byOwners) }
  }
}
