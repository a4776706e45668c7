import { assert } from "../lib/assert.ts"
import { compareBytes, equalBytes } from "../lib/bytes.ts"
import type {
  MonotonicMs,
  NodeId,
  Position,
  RangeDescriptor,
  RangeId,
  Term,
  Version,
} from "../types.ts"
import type { RangeReport } from "../wire/answers.ts"

/** Sets of replicas that are remembered; beyond, they are remembered anew. */
const placesMax = 4096

/** What the client believes of one interval of positions. */
export interface Route {
  readonly descriptor: RangeDescriptor
  /** Who led it when last heard of; `undefined` = ask any replica. */
  leader: NodeId | undefined
  /** The term in which `leader` was heard to lead. */
  leaderTerm: Term
  /** The range's time as last told, and when; 0 = never. */
  rangeTime: Version
  rangeTimeAt: MonotonicMs
}

/**
 * The client's routing table: disjoint intervals in order of start. It may have gaps (not heard of yet) and be out of date; then the
 * node asked says so, and the table learns.
 *
 * There may be thousands, and a node's answer tells of all: to take a report costs no look at all routes.
 *
 * Invariants: intervals are disjoint and sorted; a descriptor is taken only if its boundsVersion exceeds that of every other
 * range it overlaps and, against its own range, (boundsVersion, membersVersion) is newer (DESIGN section 2). What is known of an
 * interval's time survives a change of its range.
 */
export class RoutingTable {
  private readonly routes: Array<Route> = []
  /** Of each route's start the first six bytes as a number: nearly all of a search is done in these, which lie side by side. */
  private heads = new Float64Array(16)
  private readonly places = new Map<string, RangeDescriptor["replicas"]>()
  private readonly byRange = new Map<RangeId, Route>()

  get all(): ReadonlyArray<Route> {
    return this.routes
  }

  /** The route whose interval holds `position`, or `undefined` in a gap. */
  find(position: Position): Route | undefined {
    const route = this.routes[this.startsUpTo(position) - 1]
    if (route === undefined) return undefined
    const { end } = route.descriptor
    return end.length === 0 || compareBytes(position, end) < 0 ? route : undefined
  }

  /** Intervals that start at or before `position`. */
  private startsUpTo(position: Position): number {
    const { routes, heads } = this
    const head = headOf(position)
    let low = 0
    let high = routes.length
    while (low < high) {
      const middle = (low + high) >>> 1
      const other = heads[middle] as number
      const isUpTo =
        other < head ||
        (other === head && compareBytes((routes[middle] as Route).descriptor.start, position) <= 0)
      if (isUpTo) low = middle + 1
      else high = middle
    }
    return low
  }

  byId(range: RangeId): Route | undefined {
    return this.byRange.get(range)
  }

  /** Takes a report of a node: its descriptor if newer, its leader if of a later term. */
  report(report: RangeReport): void {
    this.learn(report.descriptor)
    const route = this.byId(report.descriptor.id)
    if (route === undefined || report.leader === undefined) return
    if (report.term > route.leaderTerm || route.leader === undefined) {
      route.leader = report.leader
      route.leaderTerm = Math.max(report.term, route.leaderTerm)
    }
  }

  /** Takes a descriptor if it is newer than what is known. True if the table changed. */
  learn(descriptor: RangeDescriptor): boolean {
    // From outside: an empty interval would break the table's order.
    if (descriptor.end.length > 0 && compareBytes(descriptor.start, descriptor.end) >= 0)
      return false
    const own = this.byRange.get(descriptor.id)
    if (own !== undefined && !isNewer(descriptor, own.descriptor)) return false
    const overlapping = this.overlapping(descriptor)
    for (const { descriptor: other } of overlapping) {
      if (other.id !== descriptor.id && other.boundsVersion >= descriptor.boundsVersion)
        return false
    }
    const latest = overlapping.reduce<Route | undefined>(
      (best, route) => (best === undefined || route.rangeTime > best.rangeTime ? route : best),
      undefined,
    )
    // A half of a split is first led by whoever led the whole; its terms are its own.
    const leader = own === undefined ? latest?.leader : own.leader
    const isMember = descriptor.replicas.some((place) => place.node === leader)
    for (const route of overlapping) this.remove(route)
    if (own !== undefined && !overlapping.includes(own)) this.remove(own)
    this.insert({
      descriptor: this.shared(descriptor),
      leader: isMember ? leader : undefined,
      leaderTerm: isMember ? (own?.leaderTerm ?? 0) : 0,
      rangeTime: latest?.rangeTime ?? 0,
      rangeTimeAt: latest?.rangeTimeAt ?? 0,
    })
    return true
  }

  /** With the very arrays that other routes have for the same places and for the same end: halves of a split have both in common, and there may be very many. */
  private shared(descriptor: RangeDescriptor): RangeDescriptor {
    const name = descriptor.replicas
      .map(({ node, replica, role }) => `${node}/${replica}${role}`)
      .join()
    let replicas = this.places.get(name)
    if (replicas === undefined) {
      if (this.places.size >= placesMax) this.places.clear()
      replicas = descriptor.replicas
      this.places.set(name, replicas)
    }
    const place = this.startsUpTo(descriptor.start)
    const before = this.routes[place - 1]?.descriptor.end
    const after = this.routes[place]?.descriptor.start
    const start = sameOf(descriptor.start, before)
    return { ...descriptor, replicas, start, end: sameOf(descriptor.end, after) }
  }

  /** They follow each other, and only the first one can start before the descriptor does. */
  private overlapping(descriptor: RangeDescriptor): ReadonlyArray<Route> {
    const { routes } = this
    const result: Array<Route> = []
    let i = this.startsUpTo(descriptor.start)
    const before = routes[i - 1]
    if (before !== undefined && overlap(before.descriptor, descriptor)) i--
    for (; i < routes.length; i++) {
      const route = routes[i] as Route
      if (!overlap(route.descriptor, descriptor)) break
      result.push(route)
    }
    return result
  }

  private remove(route: Route): void {
    const index = this.startsUpTo(route.descriptor.start) - 1
    assert(this.routes[index] === route, () => `range ${route.descriptor.id} is in its place`)
    this.heads.copyWithin(index, index + 1, this.routes.length)
    this.routes.splice(index, 1)
    this.byRange.delete(route.descriptor.id)
  }

  private insert(route: Route): void {
    const index = this.startsUpTo(route.descriptor.start)
    assertApart(this.routes[index - 1], route)
    assertApart(route, this.routes[index])
    if (this.routes.length === this.heads.length) {
      const larger = new Float64Array(2 * this.heads.length)
      larger.set(this.heads)
      this.heads = larger
    }
    this.heads.copyWithin(index + 1, index, this.routes.length)
    this.heads[index] = headOf(route.descriptor.start)
    this.routes.splice(index, 0, route)
    this.byRange.set(route.descriptor.id, route)
  }
}

function sameOf(position: Position, known: Position | undefined): Position {
  return known !== undefined && equalBytes(known, position) ? known : position
}

/** The first six bytes, with zeros for those that are not there: of two positions the lesser never has the larger one. */
function headOf(position: Position): number {
  let head = 0
  for (let i = 0; i < 6; i++)
    head = head * 256 + (i < position.length ? (position[i] as number) : 0)
  return head
}

/** A node that answered as leader leads, unless a later term is known. */
export function heardLeader(route: Route, node: NodeId, term: Term): void {
  if (term < route.leaderTerm) return
  route.leader = node
  route.leaderTerm = term
}

/** A node said that it does not lead; `hint` is whom it believes to. */
export function heardNotLeader(route: Route, node: NodeId, hint: NodeId | undefined): void {
  if (hint !== undefined && hint !== node) route.leader = hint
  else if (route.leader === node) route.leader = undefined
}

/** Keeps the time told of the interval: a leader's as it is, another's only if it is later than what was known. */
export function heardTime(
  route: Route,
  heard: { readonly rangeTime: Version; readonly fromLeader: boolean; readonly nowMs: MonotonicMs },
): void {
  const { rangeTime, fromLeader, nowMs } = heard
  if (rangeTime === 0 || (!fromLeader && rangeTime <= timeOf(route, nowMs))) return
  route.rangeTime = rangeTime
  route.rangeTimeAt = nowMs
}

/** The range's time now, as far as this client can tell: what it was told, moved on by its own monotonic clock. 0 = unknown. */
export function timeOf(route: Route, nowMs: MonotonicMs): Version {
  if (route.rangeTime === 0) return 0
  return route.rangeTime + Math.max(0, Math.floor((nowMs - route.rangeTimeAt) * 1000))
}

function isNewer(descriptor: RangeDescriptor, known: RangeDescriptor): boolean {
  if (descriptor.boundsVersion !== known.boundsVersion) {
    return descriptor.boundsVersion > known.boundsVersion
  }
  return descriptor.membersVersion > known.membersVersion
}

function overlap(left: RangeDescriptor, right: RangeDescriptor): boolean {
  return (
    (left.end.length === 0 || compareBytes(right.start, left.end) < 0) &&
    (right.end.length === 0 || compareBytes(left.start, right.end) < 0)
  )
}

/** Neighbours of the table, where there are two. */
function assertApart(left: Route | undefined, right: Route | undefined): void {
  if (left === undefined || right === undefined) return
  const { id, end } = left.descriptor
  assert(
    end.length > 0 && compareBytes(end, right.descriptor.start) <= 0,
    () => `ranges ${id} and ${right.descriptor.id} are disjoint`,
  )
}
