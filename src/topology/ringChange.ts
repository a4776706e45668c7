import { slotCount } from "../lib/slot.ts"
import type { NodeId, RingVersion, Slot } from "../types.ts"
import { isPlaced, memberOf, type RingMember } from "./member.ts"
import {
  filledCode,
  ownedCode,
  pendingCode,
  Ring,
  type SlotChange,
  type SlotTable,
} from "./ring.ts"
import { ListTable, type Placement } from "./slotTable.ts"

/**
 * The next version of a ring that is on its way to where its tokens place the slots (DESIGN section 4, "Ring change").
 *
 * Why reads and writes meet. Call a slot's versions O (owned by the old list), P (pending), F (filled), Q (owned by the new list). Coordinators may work by any version, and a
 * replica refuses what is older than the slot's last step that it knows of. With W + R > N in either list:
 *   - By O a write needs W of the old owners, by P and F W of either list, by Q W of the new one. By O and P a read needs R of the old list, by F R of
 *     either, by Q R of the new one. So only three pairs can miss each other: a write by Q and a read by O or P, and a write by O and a read by Q.
 *     (A write by O and a read by F meet in the old list, one by Q and a read by F in the new one: that is why reads by F ask both.)
 *   - Q is made only after every owner, old and new, has confirmed F, those that are gone excepted. After that no old owner answers a read by O or P.
 *   - P begins to fill a new owner only after those who fill it have confirmed P. They are the one that it replaces, or all others when that one
 *     is gone: so a write by O that counts the replaced owner is in what is streamed, or is refused.
 * Were reads by F to count the old owners alone, a write by Q and such a read could miss each other while word of Q is on its way.
 *
 * An owner that has lost data of a slot asks for a fence (dynamo/node/refills.ts): a version that changes the slot and leaves it as it is. From then on nobody counts an
 * acknowledgement that the owner gave before together with one of somebody who knows the fence. While the slot is pending, the new owners begin to fill anew.
 *
 * What it costs: an owner out of reach holds up the changes of its slots, until it is back or said to be gone. And one that is said to be gone must not answer again.
 */
export interface ChangeReports {
  /** The newest ring version that a node has confirmed to work by; 0 when nothing is known. */
  readonly confirmedBy: (node: NodeId) => RingVersion
  /**
   * Whether a new owner holds all of a slot, of every namespace, with its clock, by the step that version `since` began: an older step, or one given up, does
   * not count, since the slot may have been dropped in between.
   */
  readonly isFilled: (slot: Slot, node: NodeId, since: RingVersion) => boolean
  /** Who lost data of slots, which ones, as runs, and by which version it has worked until then. */
  readonly lost?: ReadonlyArray<{
    readonly known: RingVersion
    readonly slots: ReadonlyArray<number>
  }>
}

export interface ChangeOptions {
  /** `ring.goal()`, which costs some milliseconds and stays the same while the members do. */
  readonly goal: Placement
  readonly reports: ChangeReports
  /** Slots that may be changing at once. */
  readonly slotsAtOnceMax: number
}

/** Data to be brought from one node to another before a slot may count as filled. */
export interface Transfer {
  readonly source: NodeId
  readonly target: NodeId
}

/**
 * What a change of a slot has to stream for keys of `replicas` copies. A new owner gets the slot from the one whose place it takes, and an owner that goes without a
 * successor gives it to all that stay; where the source is gone or was never there, all other owners that are not gone send.
 */
export function transfersOf(
  change: SlotChange,
  replicas: number,
  isGone: (node: NodeId) => boolean,
): ReadonlyArray<Transfer> {
  const from = change.from.slice(0, replicas)
  const to = change.to.slice(0, replicas)
  const joining = to.filter((node) => !from.includes(node))
  const parting = from.filter((node) => !to.includes(node))
  const present = from.filter((node) => !isGone(node))
  const transfers: Array<Transfer> = []
  for (const [i, target] of joining.entries()) {
    const replaced = parting[i]
    const isSingle = replaced !== undefined && !isGone(replaced)
    const sources = isSingle ? [replaced] : present
    for (const source of sources) transfers.push({ source, target })
  }
  for (const source of parting.slice(joining.length)) {
    if (isGone(source)) continue
    for (const target of to) {
      if (!joining.includes(target)) transfers.push({ source, target })
    }
  }
  return transfers
}

/**
 * Who has to report a slot filled: whoever stands earlier in the new list than in the old, and so is new for keys of some number of copies; and where
 * the new list is shorter, everybody in it, since those that go without a successor give them what they have.
 */
export function reportersOf(change: SlotChange): ReadonlyArray<NodeId> {
  if (change.to.length < change.from.length) return change.to
  return change.to.filter((node, rank) => {
    const before = change.from.indexOf(node)
    return before < 0 || before > rank
  })
}

/**
 * The next version: every slot whose step is due takes it, and as many others as may begin to change do, those with an owner that is gone first. `undefined` while
 * there is nothing to do but wait, or nothing left to do.
 */
export function nextRing(ring: Ring, options: ChangeOptions): Ring | undefined {
  const draft = new Draft(ring)
  let changing = 0
  for (let slot = 0; slot < slotCount; slot++) {
    if (ring.table.states[slot] === ownedCode) continue
    if (isFutile(ring, slot)) redirect(draft, slot, options.goal)
    else advance(ring, draft, slot, options.reports)
    if (draft.table.states[slot] !== ownedCode) changing++
  }
  for (const { known, slots } of options.reports.lost ?? []) draft.fence(slots, known)
  const isUrgent = urgencyOf(ring)
  for (const urgent of [true, false]) {
    for (let slot = 0; slot < slotCount && changing < options.slotsAtOnceMax; slot++) {
      // A slot takes one step in a version: those who count its versions miss none.
      if (ring.table.states[slot] !== ownedCode || isUrgent(slot) !== urgent) continue
      if (draft.aim(slot, options.goal)) changing++
    }
  }
  return draft.publish(options.reports)
}

/** Slots whose lists are not yet where the goal has them. 0: the ring is at rest. */
export function slotsToMove(ring: Ring, goal: Placement): number {
  const draft = new Draft(ring)
  const numbers = draft.numbersOf(goal)
  let count = 0
  for (let slot = 0; slot < slotCount; slot++) {
    if (draft.table.from[slot] !== numbers[goal.of[slot]]) count++
  }
  return count
}

/** One step of a slot that is changing, if it is due. */
function advance(ring: Ring, draft: Draft, slot: Slot, reports: ChangeReports): void {
  const change = ring.changeOf(slot)
  if (change === undefined) return
  const { state, since } = change
  if (state === "pending") {
    const isFilled = reportersOf(change).every((node) => reports.isFilled(slot, node, since))
    if (isFilled) draft.set(slot, { state: filledCode })
    return
  }
  const owners = [...change.from, ...change.to]
  const present = owners.filter((node) => memberOf(ring.members, node)?.state !== "gone")
  if (present.every((node) => reports.confirmedBy(node) >= since)) {
    draft.set(slot, { state: ownedCode, from: draft.table.to[slot] })
  }
}

/** Whether a slot is changing to a list with somebody in it who is to lose all slots again. */
function isFutile(ring: Ring, slot: Slot): boolean {
  const { lists, to } = ring.table
  return lists.nodesOf(to[slot]).some((node) => {
    const member = memberOf(ring.members, node)
    return member === undefined || !isPlaced(member)
  })
}

/** Sends a changing slot elsewhere, or back. Its present owners have lost nothing yet: every write since is with them too. */
function redirect(draft: Draft, slot: Slot, goal: Placement): void {
  if (!draft.aim(slot, goal)) draft.set(slot, { state: ownedCode, to: draft.table.from[slot] })
}

/** Slots that lack a copy until they have moved. */
function urgencyOf(ring: Ring): (slot: Slot) => boolean {
  const { lists, from } = ring.table
  const gone = new Set(ring.members.filter(({ state }) => state === "gone").map(({ node }) => node))
  const isUrgent = Array.from({ length: lists.count }, (_, list) =>
    lists.nodesOf(list).some((node) => gone.has(node)),
  )
  return (slot) => isUrgent[from[slot]]
}

/** The next version while it is being made. */
class Draft {
  readonly table: SlotTable
  private readonly ring: Ring
  private isChanged = false
  private goalNumbers: Uint16Array | undefined

  constructor(ring: Ring) {
    const { lists, from, to, states, since } = ring.table
    this.ring = ring
    const arrays = { from: from.slice(), to: to.slice(), states: states.slice() }
    this.table = { lists: lists.copy(), ...arrays, since: since.slice() }
  }

  /** The numbers here of the lists of the goal. */
  numbersOf(goal: Placement): Uint16Array {
    const { lists } = goal
    this.goalNumbers ??= Uint16Array.from({ length: lists.count }, (_, list) =>
      this.table.lists.intern(lists.nodesOf(list)),
    )
    return this.goalNumbers
  }

  /** Begins to move a slot to where the goal has it; false when it is there. */
  aim(slot: Slot, goal: Placement): boolean {
    const to = this.numbersOf(goal)[goal.of[slot]]
    if (to === this.table.from[slot]) return false
    this.set(slot, { state: pendingCode, to })
    return true
  }

  set(
    slot: Slot,
    step: { readonly state: number; readonly from?: number; readonly to?: number },
  ): void {
    const { table } = this
    table.states[slot] = step.state
    table.from[slot] = step.from ?? table.from[slot]
    table.to[slot] = step.to ?? table.to[slot]
    table.since[slot] = this.ring.version + 1
    this.isChanged = true
  }

  /** Changes slots, as they are, that have not changed since a version. */
  fence(runs: ReadonlyArray<number>, known: RingVersion): void {
    const { since, states } = this.table
    for (let i = 0; i + 1 < runs.length; i += 2) {
      for (let slot = runs[i]; slot < Math.min(slotCount, runs[i] + runs[i + 1]); slot++) {
        if (since[slot] <= known) this.set(slot, { state: states[slot] })
      }
    }
  }

  publish(reports: ChangeReports): Ring | undefined {
    const lists = this.usedLists()
    const members = this.ring.members.filter(
      (member) => isPlaced(member) || isNamed(lists, member.node),
    )
    if (!this.isChanged && members.length === this.ring.members.length) return undefined
    const floor = Math.max(this.ring.floor, floorOf(members, reports, this.ring.version))
    const { from, to, states, since } = this.table
    for (let slot = 0; slot < slotCount; slot++) {
      // Whoever fills a slot names the version of its step, so that one stays as it is.
      if (states[slot] === ownedCode && since[slot] < floor) since[slot] = floor
    }
    const { strategy, version } = this.ring
    const table = { lists, from, to, states, since }
    return new Ring({ version: version + 1, floor, strategy, members, table })
  }

  /** The lists that slots have, renumbered in the table. */
  private usedLists(): ListTable {
    const { lists, from, to } = this.table
    const used = new ListTable(lists.count)
    const numbers = new Int32Array(lists.count).fill(-1)
    for (const of of [from, to]) {
      for (let slot = 0; slot < slotCount; slot++) {
        const list = of[slot]
        if (numbers[list] < 0) numbers[list] = used.intern(lists.nodesOf(list))
        of[slot] = numbers[list]
      }
    }
    return used
  }
}

function isNamed(lists: ListTable, node: NodeId): boolean {
  for (let list = 0; list < lists.count; list++) if (lists.rankOf(list, node) >= 0) return true
  return false
}

/** What every member that may still speak has confirmed. */
function floorOf(
  members: ReadonlyArray<RingMember>,
  reports: ChangeReports,
  version: RingVersion,
): RingVersion {
  let floor = version
  for (const { node, state } of members) {
    if (state !== "gone") floor = Math.min(floor, reports.confirmedBy(node))
  }
  return floor
}
