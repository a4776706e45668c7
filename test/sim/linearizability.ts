/**
 * Is a history of one register linearizable? The algorithm of Wing and Gong with Lowe's cache, as Porcupine has it: try to put
 * the operations in one order that respects real time, depth first, and never visit the same set of placed operations with the
 * same state twice.
 *
 * - An operation that answered took effect at one instant between its call and its return; both ends count as inside.
 * - An operation whose outcome is unknown (`info`) took effect at one instant after its call, or never. Because values are unique, one
 *   whose value somebody has seen did take effect, before the first that saw it returned. The others (ghosts) are tried last, so
 *   that many of them cost little in a history that can do without; and those that nothing can tell apart are tried once for all.
 * - The search counts its steps. Past the budget the answer is "undecided", which callers must count as a violation.
 */

/** A register's content: a positive number that only one operation writes, or 0 for an absent key. */
export type RegisterValue = number

export interface RegisterOperation {
  readonly kind: "put" | "get" | "compareAndSet" | "delete"
  /** Written by put and compareAndSet; returned by get. */
  readonly value: RegisterValue
  /** What compareAndSet expects; 0 = absent. */
  readonly expected: RegisterValue
  /** `no` is a compareAndSet whose condition was false, or a delete of an absent key. A get that answered is `ok`. */
  readonly outcome: "ok" | "no" | "info"
  /** A compareAndSet that answered `no` may have told what it found instead. */
  readonly found: RegisterValue | undefined
  readonly callTime: number
  /** At or after `callTime`; ignored for `info`. */
  readonly returnTime: number
}

export type Verdict =
  | { readonly _tag: "Linearizable" }
  /** `stuckAt` is the operation that returned first among those that the longest order found could not place. */
  | { readonly _tag: "Violation"; readonly stuckAt: RegisterOperation }
  | { readonly _tag: "Undecided" }

/** The state after `operation`, or -1 when it cannot happen in `state`. */
function stepRegister(operation: RegisterOperation, state: RegisterValue): number {
  switch (operation.kind) {
    case "put":
      return operation.value
    case "get":
      return operation.value === state ? state : -1
    case "compareAndSet":
      if (operation.outcome === "no") {
        const found = operation.found ?? state
        return state !== operation.expected && state === found ? state : -1
      }
      return state === operation.expected ? operation.value : -1
    case "delete":
      if (operation.outcome === "no") return state === 0 ? 0 : -1
      return state !== 0 ? 0 : -1
    default:
      return operation.kind satisfies never
  }
}

/** The content that every ghost leaves whose own value nothing names. */
const ghostValue = 2 ** 31 - 1

/** Earliest return of an operation that shows a value to have been in the register. */
function firstSeen(operations: ReadonlyArray<RegisterOperation>): Map<RegisterValue, number> {
  const times = new Map<RegisterValue, number>()
  for (const { kind, value, expected, outcome, found, returnTime } of operations) {
    if (outcome === "info") continue
    let seen: RegisterValue | undefined
    if (kind === "get") seen = value
    else if (kind === "compareAndSet") seen = outcome === "ok" ? expected : found
    if (seen === undefined || seen === 0) continue
    times.set(seen, Math.min(times.get(seen) ?? Number.POSITIVE_INFINITY, returnTime))
  }
  // A compareAndSet whose value was seen has itself seen what it expected.
  for (let changed = true; changed; ) {
    changed = false
    for (const { kind, value, expected, outcome } of operations) {
      if (kind !== "compareAndSet" || outcome !== "info" || expected === 0) continue
      const time = times.get(value)
      if (time === undefined || time >= (times.get(expected) ?? Number.POSITIVE_INFINITY)) continue
      times.set(expected, time)
      changed = true
    }
  }
  return times
}

/** Replaces unknown outcomes by what other operations have shown of them; `undefined` for one that was seen before its call. */
function resolveUnknown(
  operations: ReadonlyArray<RegisterOperation>,
): ReadonlyArray<RegisterOperation> | undefined {
  const seen = firstSeen(operations)
  const named = new Set<RegisterValue>()
  for (const { outcome, expected } of operations) if (outcome === "no") named.add(expected)
  const ghosts = new Set<RegisterValue>()
  for (const { kind, outcome, value } of operations) {
    if (outcome !== "info" || kind === "get" || kind === "delete") continue
    if (!seen.has(value) && !named.has(value)) ghosts.add(value)
  }
  const result: Array<RegisterOperation> = []
  for (const operation of operations) {
    const { kind, value, expected, outcome, callTime } = operation
    if (outcome !== "info") {
      result.push(operation)
      continue
    }
    if (kind === "get") continue
    const returnTime = kind === "delete" ? undefined : seen.get(value)
    if (returnTime !== undefined) {
      if (returnTime < callTime) return undefined
      result.push({ ...operation, outcome: "ok", returnTime })
    } else if (!ghosts.has(value)) {
      result.push(operation)
    } else if (!ghosts.has(expected)) {
      // From one ghost to another is no change.
      result.push({ ...operation, value: ghostValue })
    }
  }
  return result
}

/** Checks one register that begins absent. `budget` bounds the search, in attempts to place an operation. */
export function checkRegister(
  given: ReadonlyArray<RegisterOperation>,
  budget = 8_000_000,
): Verdict {
  const operations = resolveUnknown(given)
  if (operations === undefined) {
    const seen = firstSeen(given)
    const isEarly = ({ value, callTime }: RegisterOperation) =>
      (seen.get(value) ?? callTime) < callTime
    return { _tag: "Violation", stuckAt: given.find(isEarly) as RegisterOperation }
  }
  // Few ghosts happened in a history that is fine: trying with few first keeps dead ends from being searched with every set of ghosts.
  for (const ghostsMax of [0, 1, 2, 4]) {
    const verdict = new Search(operations, { ghostsMax, exact: false }).run(budget / 8)
    if (verdict._tag === "Linearizable") return verdict
  }
  const ghostsMax = operations.length
  const verdict = new Search(operations, { ghostsMax, exact: false }).run(budget)
  // The cache keeps hashes; a collision can only hide an order, so that only this answer needs to be sure.
  return verdict._tag === "Violation"
    ? new Search(operations, { ghostsMax, exact: true }).run(budget)
    : verdict
}

/** Calls and returns of answered operations in time order, as a doubly linked list by position; 0 is the head. */
class Search {
  private readonly answered: Array<RegisterOperation> = []
  private readonly unknown: Array<RegisterOperation>
  private readonly next: Int32Array
  private readonly previous: Int32Array
  /** Of a position: the operation, as a number in `answered`. */
  private readonly operationAt: Int32Array
  /** Of a call's position: where its return is; 0 for a return's position. */
  private readonly returnOf: Int32Array
  private readonly unknownPlaced: Uint8Array
  /** Of an unknown operation: the last one before it that does the same, or -1. */
  private readonly twinBefore: Int32Array
  private readonly exact: boolean
  /** Unknown operations that may be placed. */
  private readonly ghostsMax: number
  private ghostsPlaced = 0
  private readonly hashes: Uint32Array
  private hashLow = 0
  private hashHigh = 0
  private readonly placedBits: Uint8Array
  private readonly seen = new Set<number | string>()

  constructor(
    operations: ReadonlyArray<RegisterOperation>,
    options: { readonly ghostsMax: number; readonly exact: boolean },
  ) {
    this.exact = options.exact
    this.ghostsMax = options.ghostsMax
    this.unknown = operations
      .filter(({ outcome, kind }) => outcome === "info" && kind !== "get")
      .sort((left, right) => left.callTime - right.callTime)
    for (const operation of operations) {
      if (operation.outcome !== "info") this.answered.push(operation)
    }
    const count = this.answered.length
    const events: Array<{ time: number; isReturn: boolean; operation: number }> = []
    this.answered.forEach(({ callTime, returnTime }, operation) => {
      events.push({ time: callTime, isReturn: false, operation })
      events.push({ time: returnTime, isReturn: true, operation })
    })
    // Closed intervals: at the same instant a call comes before a return.
    events.sort(
      (left, right) => left.time - right.time || Number(left.isReturn) - Number(right.isReturn),
    )
    const positions = 2 * count + 1
    this.next = new Int32Array(positions)
    this.previous = new Int32Array(positions)
    this.operationAt = new Int32Array(positions)
    this.returnOf = new Int32Array(positions)
    const callPosition = new Int32Array(count)
    events.forEach(({ isReturn, operation }, i) => {
      const position = i + 1
      this.operationAt[position] = operation
      this.previous[position] = i
      this.next[i] = position
      if (isReturn) this.returnOf[callPosition[operation] as number] = position
      else callPosition[operation] = position
    })
    this.unknownPlaced = new Uint8Array(this.unknown.length)
    const twins = new Map<string, number>()
    this.twinBefore = Int32Array.from(this.unknown, ({ kind, expected, value }, i) => {
      const name = `${kind} ${kind === "compareAndSet" ? expected : ""} ${value}`
      const twin = twins.get(name) ?? -1
      twins.set(name, i)
      return twin
    })
    const total = count + this.unknown.length
    this.placedBits = new Uint8Array(Math.ceil(total / 8))
    this.hashes = new Uint32Array(total * 2)
    let state = 0x9e3779b9
    for (let i = 0; i < this.hashes.length; i++) {
      state = Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x3c6ef372
      state ^= state >>> 12
      this.hashes[i] = Math.imul(state, 0x297a2d39) >>> 0
    }
  }

  private flip(operation: number): void {
    this.hashLow ^= this.hashes[2 * operation] as number
    this.hashHigh ^= this.hashes[2 * operation + 1] as number
    this.placedBits[operation >> 3] =
      (this.placedBits[operation >> 3] as number) ^ (1 << (operation & 7))
  }

  /** Places the operation unless that leads to a set and state seen before. */
  private enter(operation: number, state: RegisterValue): boolean {
    this.flip(operation)
    const low = (this.hashLow ^ Math.imul(state, 0x9e3779b1)) >>> 0
    const high = (this.hashHigh ^ Math.imul(state, 0x85ebca77)) >>> 0
    const key = this.exact
      ? `${state};${String.fromCharCode(...this.placedBits)}`
      : low * 2 ** 21 + (high >>> 11)
    if (this.seen.has(key)) {
      this.flip(operation)
      return false
    }
    this.seen.add(key)
    return true
  }

  private unlink(position: number): void {
    const next = this.next[position] as number
    const previous = this.previous[position] as number
    this.next[previous] = next
    if (next !== 0) this.previous[next] = previous
  }

  private relink(position: number): void {
    const next = this.next[position] as number
    this.next[this.previous[position] as number] = position
    if (next !== 0) this.previous[next] = position
  }

  run(budget: number): Verdict {
    const { next, answered, unknown } = this
    /** Call positions placed, or -1 - i for the unknown operation i. */
    const order: Array<number> = []
    const statesBefore: Array<RegisterValue> = []
    let state: RegisterValue = 0
    let remaining = answered.length
    let fewestRemaining = remaining + 1
    let stuckAt = 0
    /** Where to look for the next operation to place: a position, or `unknownFrom` once a return was met. */
    let position = next[0] as number
    let unknownFrom = 0
    for (let steps = 0; steps < budget; steps++) {
      if (remaining === 0) return { _tag: "Linearizable" }
      if ((this.returnOf[position] as number) !== 0) {
        const operation = this.operationAt[position] as number
        const after = stepRegister(answered[operation] as RegisterOperation, state)
        if (after < 0 || !this.enter(operation, after)) {
          position = next[position] as number
          continue
        }
        order.push(position)
        statesBefore.push(state)
        state = after
        this.unlink(position)
        this.unlink(this.returnOf[position] as number)
        remaining--
        position = next[0] as number
        unknownFrom = 0
        continue
      }
      // A return that nothing placed precedes: only operations of unknown outcome can still help.
      const first = answered[this.operationAt[position] as number] as RegisterOperation
      if (remaining < fewestRemaining) {
        fewestRemaining = remaining
        stuckAt = position
      }
      const placed = this.placeUnknown(unknownFrom, first.returnTime, state)
      if (placed >= 0) {
        order.push(-1 - placed)
        statesBefore.push(state)
        state = stepRegister(unknown[placed] as RegisterOperation, state)
        position = next[0] as number
        unknownFrom = 0
        continue
      }
      const last = order.pop()
      if (last === undefined) {
        return {
          _tag: "Violation",
          stuckAt: answered[this.operationAt[stuckAt] as number] as RegisterOperation,
        }
      }
      state = statesBefore.pop() as RegisterValue
      if (last < 0) {
        const i = -1 - last
        this.unknownPlaced[i] = 0
        this.ghostsPlaced--
        this.flip(answered.length + i)
        position = this.firstReturn()
        unknownFrom = i + 1
      } else {
        this.flip(this.operationAt[last] as number)
        this.relink(this.returnOf[last] as number)
        this.relink(last)
        remaining++
        position = next[last] as number
        unknownFrom = 0
      }
    }
    return { _tag: "Undecided" }
  }

  private firstReturn(): number {
    let position = this.next[0] as number
    while ((this.returnOf[position] as number) !== 0) position = this.next[position] as number
    return position
  }

  /** Places the next unknown operation called by `time` that changes `state`, and returns its number, or -1. */
  private placeUnknown(from: number, time: number, state: RegisterValue): number {
    const { unknown, twinBefore } = this
    if (this.ghostsPlaced >= this.ghostsMax) return -1
    for (let i = from; i < unknown.length; i++) {
      const operation = unknown[i] as RegisterOperation
      if (operation.callTime > time) return -1
      if (this.unknownPlaced[i] === 1) continue
      // Of operations that do the same, the one called first goes first.
      const twin = twinBefore[i] as number
      if (twin >= 0 && this.unknownPlaced[twin] === 0) continue
      const after = stepRegister(operation, state)
      if (after < 0 || after === state) continue
      if (!this.enter(this.answered.length + i, after)) continue
      this.unknownPlaced[i] = 1
      this.ghostsPlaced++
      return i
    }
    return -1
  }
}
