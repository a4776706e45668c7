import { slotCount } from "../lib/slot.ts"
import type { Slot } from "../types.ts"
import { isPlaced, type RingMember, replicasMax, type Strategy } from "./member.ts"

/** Tokens in order of slot, each with the index of its member. */
export interface TokenTable {
  readonly slots: Uint16Array
  readonly members: Uint16Array
}

export function tokenTable(members: ReadonlyArray<RingMember>): TokenTable {
  const pairs: Array<number> = []
  for (let i = 0; i < members.length; i++) {
    if (!isPlaced(members[i])) continue
    for (const token of members[i].tokens) pairs.push(token * 2 ** 16 + i)
  }
  pairs.sort((left, right) => left - right)
  const slots = Uint16Array.from(pairs, (pair) => pair >>> 16)
  return { slots, members: Uint16Array.from(pairs, (pair) => pair & 0xffff) }
}

/** The token whose arc holds a slot: the first at or after it, around the end to the first of all. */
export function arcOf(slots: Uint16Array, slot: Slot): number {
  let low = 0
  let high = slots.length
  while (low < high) {
    const middle = (low + high) >> 1
    if (slots[middle] < slot) low = middle + 1
    else high = middle
  }
  return low === slots.length ? 0 : low
}

/** Slots of the arc that ends with token `i`. */
export function arcLength(slots: Uint16Array, i: number): number {
  if (slots.length === 1) return slotCount
  const before = slots[i === 0 ? slots.length - 1 : i - 1]
  return (slots[i] - before + slotCount) % slotCount
}

/** In a list: too few members have tokens. No member has this index. */
export const noMember = 0xffff

/** A token that is not in the table yet: it stands before token `at`. */
export interface ExtraToken {
  readonly at: number
  readonly member: number
}

/**
 * Preference lists: the members that hold the slots of an arc, the most preferred first, so that a key of N copies has the first N as owners. Each
 * next one is, of those not chosen yet, in the failure domains that hold the fewest of those before it (zones first, then racks, then hosts, as the
 * strategy says), and of these the next one clockwise (Dynamo 4.3 and 6.2). A list for N copies is thus the beginning of any longer one, whatever the strategy:
 * one table serves namespaces of every N.
 */
export class PreferenceWalk {
  /** Members in a list: seven, or as many as there are. */
  readonly depth: number
  private readonly zones: Uint16Array
  private readonly racks: Uint16Array
  private readonly hosts: Uint16Array
  private readonly strategy: Strategy
  private readonly placedCount: number
  /** Domains of the strategy's first kind, and what one use of one of them counts. */
  private readonly domainCount: number
  private readonly domainUse: number
  /** Chosen so far of each domain, and the members seen: cleared by a new stamp. */
  private readonly zoneUses: Float64Array
  private readonly rackUses: Float64Array
  private readonly hostUses: Float64Array
  private readonly seen: Float64Array
  /** The members met on the way from `start`, in order; `noMember` in the place of those chosen. */
  private readonly walked: Uint16Array
  private walkedCount = 0
  private steps = 0
  private extra: ExtraToken | undefined
  private stamp = 0

  constructor(members: ReadonlyArray<RingMember>, strategy: Strategy) {
    this.strategy = strategy
    this.placedCount = members.filter(isPlaced).length
    this.depth = Math.min(replicasMax, this.placedCount)
    this.zones = numbered(members, ({ zone }) => zone)
    this.racks = numbered(members, ({ zone, rack }) => `${zone}\0${rack}`)
    this.hosts = numbered(members, ({ host }) => host)
    const [domains, use] = {
      simple: [this.hosts, 1],
      rack: [this.racks, 8],
      zone: [this.zones, 64],
    }[strategy] as [Uint16Array, number]
    this.domainCount = new Set(domains.filter((_, i) => isPlaced(members[i]))).size
    this.domainUse = use
    this.zoneUses = new Float64Array(members.length)
    this.rackUses = new Float64Array(members.length)
    this.hostUses = new Float64Array(members.length)
    this.seen = new Float64Array(members.length)
    this.walked = new Uint16Array(members.length)
  }

  /**
   * Writes the list of the arc that ends with token `start` to `out` from `offset`: `depth` member indexes, `noMember` where there are too few with
   * tokens.
   */
  list(tokens: TokenTable, start: number, out: Uint16Array, offset = 0, extra?: ExtraToken): void {
    this.stamp += replicasMax + 1
    this.walkedCount = 0
    this.steps = 0
    this.extra = extra
    for (let chosen = 0; chosen < this.depth; chosen++) {
      const at = this.best(tokens, start, chosen)
      if (at < 0) {
        out[offset + chosen] = noMember
        continue
      }
      const member = this.walked[at]
      this.walked[at] = noMember
      out[offset + chosen] = member
      this.count(this.zoneUses, this.zones[member])
      this.count(this.rackUses, this.racks[member])
      this.count(this.hostUses, this.hosts[member])
    }
  }

  /**
   * Where in `walked` the next choice is. The walk ends with the first whose domains cannot be bettered: all that have a member left have had
   * their even share of those chosen, or more.
   */
  private best(tokens: TokenTable, start: number, chosen: number): number {
    const leastUses = this.domainUse * Math.floor(chosen / this.domainCount)
    let best = -1
    let bestUses = Number.POSITIVE_INFINITY
    for (let i = 0; bestUses > leastUses; i++) {
      if (i === this.walkedCount && !this.walkOn(tokens, start)) break
      const candidate = this.walked[i]
      if (candidate === noMember) continue
      const uses = this.usesOf(candidate)
      if (uses < bestUses) {
        bestUses = uses
        best = i
      }
    }
    return best
  }

  /** Adds the next member clockwise that was not met before to `walked`; false when there is none. */
  private walkOn(tokens: TokenTable, start: number): boolean {
    const { seen, stamp } = this
    const count = tokens.slots.length
    if (this.walkedCount === this.placedCount) return false
    for (;;) {
      const at = (start + this.steps) % count
      let member = this.extra?.member ?? noMember
      if (this.extra !== undefined && (this.extra.at === at || this.steps === count)) {
        this.extra = undefined
      } else {
        if (this.steps === count) return false
        member = tokens.members[at]
        this.steps++
      }
      if (seen[member] === stamp) continue
      seen[member] = stamp
      this.walked[this.walkedCount++] = member
      return true
    }
  }

  /** How little a member would spread the list: the first domain that counts in the highest digit. */
  private usesOf(member: number): number {
    let uses = this.used(this.hostUses, this.hosts[member])
    if (this.strategy === "simple") return uses
    uses += 8 * this.used(this.rackUses, this.racks[member])
    return this.strategy === "rack"
      ? uses
      : uses + 64 * this.used(this.zoneUses, this.zones[member])
  }

  private used(uses: Float64Array, domain: number): number {
    return uses[domain] < this.stamp ? 0 : uses[domain] - this.stamp
  }

  private count(uses: Float64Array, domain: number): void {
    uses[domain] = this.stamp + this.used(uses, domain) + 1
  }
}

function numbered(
  members: ReadonlyArray<RingMember>,
  nameOf: (member: RingMember) => string,
): Uint16Array {
  const numbers = new Map<string, number>()
  return Uint16Array.from(members, (member) => {
    const name = nameOf(member)
    const known = numbers.get(name) ?? numbers.size
    numbers.set(name, known)
    return known
  })
}

/** The lists of all arcs one after the other, `depth` members each. */
export function preferenceLists(tokens: TokenTable, walk: PreferenceWalk): Uint16Array {
  const lists = new Uint16Array(tokens.slots.length * walk.depth)
  for (let i = 0; i < tokens.slots.length; i++) walk.list(tokens, i, lists, i * walk.depth)
  return lists
}
