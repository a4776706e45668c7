import { concatBytes, equalBytes, text, utf8 } from "../../src/lib/bytes.ts"
import { int64Of } from "../../src/lib/int64.ts"
import { hashPosition } from "../../src/lib/position.ts"
import type { Prng } from "../../src/lib/prng.ts"
import { defaultNamespace } from "../../src/server/bootstrap.ts"
import { contains } from "../../src/server/descriptors.ts"
import type { DataRequest, Reply } from "../../src/server/requests.ts"
import type { Position, RangeDescriptor, Version } from "../../src/types.ts"
import { type BatchOperation, encodeBatch } from "../../src/wire/batch.ts"
import { commandStatuses, conditions, operations } from "../../src/wire/command.ts"
import { type Answer, Call, type Caller, type CallerWorld, type Verdict } from "./caller.ts"
import { MutationCall, type ReadStyle } from "./keyCall.ts"
import type { Identity, Mutation } from "./mutation.ts"
import { Violation } from "./violation.ts"

/** What a key is after a write, until the next: it lives from the write's version up to its expiry. */
interface Content {
  readonly value: bigint
  readonly version: Version
  readonly expiry: Version
}

/** One batch on a pair of keys: what it does to each, and what that leaves. */
interface Step {
  readonly version: Version
  /** By place in the pair; `undefined` = absent. */
  readonly contents: ReadonlyArray<Content | undefined>
}

/** What a node has found of a range at its start. */
export interface RecoveredReplica {
  readonly descriptor: RangeDescriptor
  readonly rangeTime: Version
  /** 0 = nothing is stored there. */
  readonly versionOf: (position: Position) => Version
}

type Change = {
  readonly kind: "put" | "delete" | "add"
  readonly number: bigint
  readonly ttl: number
}

const never = Number.POSITIVE_INFINITY
const changesMax = 6
const noBytes = new Uint8Array(0)

/** The key, whose slot is that of its tag, and the one after it: in the same range unless a split falls between the two. */
function pairAt(position: Position): ReadonlyArray<Position> {
  return [position, concatBytes(position, Uint8Array.of(0))]
}

function contentAfter(
  before: Content | undefined,
  change: Change,
  version: Version,
): Content | undefined {
  if (change.kind === "delete") return undefined
  const present = before !== undefined && before.expiry > version ? before : undefined
  const expiry = change.ttl === 0 ? never : version + change.ttl
  if (change.kind === "put") return { value: change.number, version, expiry }
  const kept = change.ttl === 0 && present !== undefined ? present.expiry : expiry
  return { value: (present?.value ?? 0n) + change.number, version, expiry: kept }
}

/**
 * Keys that expire. A process has two keys to itself and changes both by one atomic batch at a time, so it knows what they are at every time of their range; a
 * read must show exactly that, at the time of the very state that it was served from: no sooner and no later gone, and never one key of a batch without the
 * other. A pair with a batch of unknown outcome is left for a fresh one.
 */
export class PassingKeys {
  private readonly world: CallerWorld
  private readonly caller: Caller
  private readonly prng: Prng
  private readonly identity: Identity
  private pair: ReadonlyArray<Position> = []
  private steps: Array<Step> = []
  private nextName = 0
  private isWriting = false
  private stopped = false
  /** Reads that were checked, and keys that were seen to be gone by their expiry. */
  checked = 0
  expired = 0

  constructor(options: { world: CallerWorld; caller: Caller; prng: Prng }) {
    this.world = options.world
    this.caller = options.caller
    this.prng = options.prng
    this.identity = { id: 2 ** 43 + this.prng.int(1, 1023), nextSequence: 1, unanswered: new Set() }
    this.begin()
  }

  private begin(): void {
    this.pair = pairAt(hashPosition(defaultNamespace, utf8(`{e${this.nextName++}}`)))
    this.steps = []
  }

  start(): void {
    this.think(() => this.write())
  }

  stop(): void {
    this.stopped = true
  }

  private think(next: () => void): void {
    const pause = Math.round(this.prng.logUniform(5_000, 400_000))
    this.world.schedule(this.world.now + pause, () => {
      if (!this.stopped) next()
    })
  }

  /**
   * A node has started: what had not expired by the state that it goes on from must be there, for the entries that it applies once more judge by times after
   * that, however far it had come before.
   */
  checkRecovered(replicas: Iterable<RecoveredReplica>): void {
    if (this.isWriting) return
    for (const { descriptor, rangeTime, versionOf } of replicas) {
      const step = this.steps.findLast(({ version }) => version <= rangeTime)
      for (const [place, position] of this.pair.entries()) {
        const content = step?.contents[place]
        const isThere = content !== undefined && content.expiry > rangeTime
        if (!isThere || !contains(descriptor, position)) continue
        const version = versionOf(position)
        if (version === content.version) continue
        throw new Violation(
          "expiry",
          `a node starts at ${rangeTime} of r${descriptor.id} with version ${version} of a key that is of ${content.version} until ${content.expiry}`,
        )
      }
    }
  }

  private write(): void {
    const { prng, identity, world } = this
    this.isWriting = true
    const changes = this.pair.map((): Change => {
      const kind = prng.pick(["put", "put", "add", "delete"] as const)
      const ttl =
        kind === "delete" || prng.chance(0.3) ? 0 : Math.round(prng.logUniform(1_000, 3_000_000))
      return { kind, ttl, number: BigInt(prng.int(1, 1000)) }
    })
    const deadline = Math.round(world.now + 2_000_000)
    const holds = prng.chance(0.8)
    const [position] = this.pair as [Position]
    const mutation: Mutation = {
      clientId: identity.id,
      sequence: identity.nextSequence++,
      ackedBelow: Math.min(identity.nextSequence - 1, ...identity.unanswered),
      expiresAt: this.caller.timeAt(position) + 12_000_000,
      operation: operations.batch,
      condition: conditions.none,
      expectedVersion: 0,
      ttl: 0,
      position,
      value: encodeBatch(this.operations(changes, holds)),
      expectedValue: noBytes,
    }
    const finish = (outcome: Version | "refused" | undefined) => {
      this.isWriting = false
      if (outcome === undefined) {
        this.begin()
        this.think(() => this.write())
        return
      }
      if ((outcome === "refused") === holds) {
        throw new Violation(
          "expiry",
          `a batch whose condition ${holds ? "held" : "was false"} ended with ${outcome}`,
        )
      }
      if (outcome !== "refused") this.note(outcome, changes)
      this.readSome(prng.int(1, 4))
    }
    const key = { number: -1, position, home: world.descriptors[0] as RangeDescriptor }
    this.caller.begin(new BatchCall({ key, identity, mutation, deadline, finish }))
  }

  /** The second one has a condition: on the version that it must have, or on one that no key has. */
  private operations(
    changes: ReadonlyArray<Change>,
    holds: boolean,
  ): ReadonlyArray<BatchOperation> {
    const [first, second] = this.pair.map((at, place) => operationOf(at, changes[place] as Change))
    if (holds) return [first, second] as ReadonlyArray<BatchOperation>
    const condition = { condition: conditions.versionEquals, expectedVersion: 1 }
    return [first, { ...second, ...condition }] as ReadonlyArray<BatchOperation>
  }

  private note(version: Version, changes: ReadonlyArray<Change>): void {
    const last = this.steps[this.steps.length - 1]
    const contents = changes.map((change, place) =>
      contentAfter(last?.contents[place], change, version),
    )
    this.steps.push({ version, contents })
  }

  private readSome(left: number): void {
    if (left === 0) {
      if (this.steps.length >= changesMax) this.begin()
      this.think(() => this.write())
      return
    }
    const { prng, world } = this
    const level = prng.pick(["linearizable", "linearizable", "bounded", "local"] as const)
    const maxStalenessMs = level === "bounded" ? Math.round(prng.logUniform(20, 1_000)) : 0
    const anyReplica = level === "linearizable" && prng.chance(0.4)
    const style: ReadStyle = { level, maxStalenessMs, anyReplica, atLeast: 0, scans: true }
    const deadline = Math.round(world.now + 1_000_000)
    const done = () => this.think(() => this.readSome(left - 1))
    const check = (reply: Answer, upper: Position) => this.check(reply, upper, style)
    this.caller.begin(new PairCall({ pair: this.pair, style, deadline, check, done }))
  }

  /** The writes are known, for none is under way: the state at its time must be theirs. */
  private check(reply: Answer, upper: Position, { level }: ReadStyle): void {
    if (reply._tag !== "Page") return
    const { stateTime } = reply.receipt
    const end = reply.next ?? upper
    const step = this.steps.findLast(({ version }) => version <= stateTime)
    const last = this.steps[this.steps.length - 1]
    if (level === "linearizable" && step !== last) {
      throw new Violation(
        "expiry",
        `a linearizable read of range time ${stateTime} is before the last write`,
      )
    }
    this.checked++
    for (const [place, position] of this.pair.entries()) {
      // A split may have put the second key elsewhere, and a page may end between the two.
      if (Buffer.compare(position, end) >= 0) continue
      const found = reply.entries.find((entry) => equalBytes(entry.position, position))
      const content = step?.contents[place]
      const isThere = content !== undefined && content.expiry > stateTime
      if (content !== undefined && !isThere) this.expired++
      // A local read hides by its node's clock too, which nobody knows here.
      const mayHide = level === "local" && content !== undefined && content.expiry !== never
      if (found === undefined && isThere && !mayHide) {
        throw new Violation(
          "expiry",
          `a key is gone at ${stateTime}, ${content.expiry - stateTime} us too early`,
        )
      }
      if (found === undefined) continue
      if (!isThere) {
        throw new Violation(
          "expiry",
          `a key is there at ${stateTime} that ${content === undefined ? "was deleted" : `expired at ${content.expiry}`}`,
        )
      }
      if (found.version !== content.version || text(found.value) !== content.value.toString()) {
        throw new Violation(
          "expiry",
          `a key is ${text(found.value)} of ${found.version}, not ${content.value} of ${content.version}`,
        )
      }
    }
  }
}

function operationOf(position: Position, { kind, number, ttl }: Change): BatchOperation {
  const value =
    kind === "add" ? int64Of(number) : kind === "put" ? utf8(number.toString()) : noBytes
  return {
    operation: operations[kind],
    condition: conditions.none,
    expectedVersion: 0,
    ttl,
    position,
    value,
    expectedValue: noBytes,
  }
}

/** Ends with the batch's version, with "refused" when its condition was false, or with `undefined` when it may have happened or may yet. */
class BatchCall extends MutationCall<Version | "refused" | undefined> {
  override readonly mayBeCut = true

  protected override resultOf(
    reply: Extract<Reply, { _tag: "Mutated" }>,
  ): Version | "refused" | undefined {
    if (reply.status === commandStatuses.conditionFalse) return "refused"
    return reply.status === commandStatuses.done ? reply.version : undefined
  }

  override gaveUp(): void {
    this.end(undefined)
  }
}

/** A read of both keys on one page. */
class PairCall extends Call {
  private readonly pair: ReadonlyArray<Position>
  private readonly style: ReadStyle
  private readonly check: (reply: Answer, upper: Position) => void
  /** Where the page ends that a request asked for, by its token. */
  private readonly uppers = new Map<number, Position>()
  private readonly done: () => void

  constructor(options: {
    pair: ReadonlyArray<Position>
    style: ReadStyle
    deadline: number
    check: (reply: Answer, upper: Position) => void
    done: () => void
  }) {
    const { pair, style, deadline } = options
    const anyReplica = style.level !== "linearizable" || style.anyReplica
    super({ position: pair[0] as Position, deadline, anyReplica })
    this.pair = pair
    this.style = style
    this.check = options.check
    this.done = options.done
  }

  override request(
    { id, boundsVersion, end }: RangeDescriptor,
    base: { readonly token: number; readonly deadlineMs: number },
  ): DataRequest {
    const { scans: _, ...style } = this.style
    const after = concatBytes(this.pair[1] as Position, Uint8Array.of(0))
    const upper = end.length > 0 && Buffer.compare(end, after) < 0 ? end : after
    this.uppers.set(base.token, upper)
    return {
      _tag: "Scan",
      ...base,
      ...style,
      range: id,
      boundsVersion,
      lower: this.position,
      upper,
      limit: 3,
    }
  }

  override answered(reply: Answer): Verdict {
    this.check(reply, this.uppers.get(reply.token) as Position)
    this.done()
    return "finished"
  }

  override gaveUp(): void {
    this.done()
  }
}
