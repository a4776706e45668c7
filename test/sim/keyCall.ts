import { equalBytes } from "../../src/lib/bytes.ts"
import { type DataRequest, plainRead, type Reply } from "../../src/server/requests.ts"
import type {
  Consistency,
  LogIndex,
  NodeId,
  Position,
  RangeDescriptor,
  RangeId,
  Version,
} from "../../src/types.ts"
import { commandStatuses } from "../../src/wire/command.ts"
import { type Answer, Call, type Verdict } from "./caller.ts"
import type { Add } from "./counters.ts"
import type { RecordedOperation } from "./history.ts"
import type { KeyPlace } from "./keys.ts"
import type { RegisterValue } from "./linearizability.ts"
import { encodeMutation, type Identity, type Mutation, sumOf } from "./mutation.ts"
import type { ServedRead } from "./servedReads.ts"
import type { Values } from "./values.ts"

export type Result = Pick<RecordedOperation, "outcome" | "found"> & { value?: RegisterValue }

/** How a read asks. */
export interface ReadStyle {
  readonly level: Consistency
  readonly maxStalenessMs: number
  readonly atLeast: Version
  readonly anyReplica: boolean
  /** By a scan in place of a get. */
  readonly scans: boolean
}

export const plainStyle: ReadStyle = { ...plainRead, level: "linearizable", scans: false }

interface Ends<A> {
  readonly key: KeyPlace
  readonly deadline: number
  readonly finish: (result: A) => void
}

interface ReadOptions extends Ends<Result> {
  readonly style: ReadStyle
  /** What the bytes of a value stand for. */
  readonly valueOf: (bytes: Uint8Array) => RegisterValue
  readonly noteServed: (read: Omit<ServedRead, "life">) => void
  /** It promises to be current, or as old as its bound at most. */
  readonly readServed: (read: {
    readonly node: NodeId
    readonly range: RangeId
    readonly index: LogIndex
    readonly position: Position
    readonly sentAt: number
  }) => void
  readonly learn: (value: RegisterValue, version: Version) => void
}

/** A read of one key. */
export class ReadCall extends Call {
  private readonly options: ReadOptions
  private readonly scans: boolean
  /** What each attempt asks for in the same words. */
  private readonly asked: Omit<ReadStyle, "scans">

  constructor(options: ReadOptions) {
    const { key, deadline, style } = options
    const anyReplica = style.level !== "linearizable" || style.anyReplica
    super({ position: key.position, deadline, anyReplica })
    this.options = options
    const { scans, ...asked } = style
    this.scans = scans
    this.asked = asked
  }

  override request(
    { id: range, boundsVersion, end }: RangeDescriptor,
    base: { readonly token: number; readonly deadlineMs: number },
  ): DataRequest {
    const { position } = this
    const read = { ...base, ...this.asked, range, boundsVersion }
    if (!this.scans) return { _tag: "Get", ...read, position }
    // From the key on; the page's first entry tells whether the key is there.
    return { _tag: "Scan", ...read, lower: position, upper: end, limit: 3 }
  }

  /** What the answer says of the key. */
  private content(reply: Answer): { readonly value: RegisterValue; readonly version: Version } {
    const [entry] = reply._tag === "Page" ? reply.entries : []
    const isThere = entry !== undefined && equalBytes(entry.position, this.position)
    const found =
      reply._tag === "Value" ? reply : isThere ? entry : { value: undefined, version: 0 }
    const { value, version } = found
    return { value: value === undefined ? 0 : this.options.valueOf(value), version }
  }

  override served(node: NodeId, reply: Answer, sentAt: number): void {
    const { replica, range, index } = reply.receipt
    const { rangeTime } = reply
    const place = { node, replica, range, index, rangeTime }
    const { key, style, noteServed } = this.options
    noteServed({ ...place, key: key.number, atLeast: style.atLeast, ...this.content(reply) })
    if (style.level === "local") return
    this.options.readServed({ node, range, index, position: this.position, sentAt })
  }

  override answered(reply: Answer): Verdict {
    const { value, version } = this.content(reply)
    this.options.learn(value, version)
    this.options.finish({ outcome: "ok", found: undefined, value })
    return "finished"
  }

  override gaveUp(): void {
    this.options.finish({ outcome: "fail", found: undefined })
  }
}

/** A mutation keeps its identity over all of its attempts. */
export abstract class MutationCall<A> extends Call {
  protected readonly key: KeyPlace
  private readonly identity: Identity
  private readonly mutation: Mutation
  private readonly finish: (result: A) => void

  constructor(options: Ends<A> & { readonly identity: Identity; readonly mutation: Mutation }) {
    const { key, deadline, mutation, identity } = options
    super({ position: key.position, deadline, anyReplica: false })
    this.key = key
    this.identity = identity
    this.mutation = mutation
    this.finish = options.finish
    identity.unanswered.add(mutation.sequence)
  }

  override request(
    { id, boundsVersion }: RangeDescriptor,
    base: { readonly token: number; readonly deadlineMs: number },
  ): DataRequest {
    const command = encodeMutation(this.mutation, boundsVersion)
    return { _tag: "Mutate", ...base, range: id, command }
  }

  override answered(reply: Answer): Verdict {
    if (reply._tag !== "Mutated") throw new Error(`a mutation is answered by ${reply._tag}`)
    if (reply.status === commandStatuses.rangeMoved) return "retry"
    const result = this.resultOf(reply)
    // Refused at apply, without a trace; it would be again.
    if (result === undefined) return "refusedForEver"
    this.end(result)
    return "finished"
  }

  protected end(result: A): void {
    // The caller was told, so that no retry follows: a sequence may be acknowledged whatever became of it.
    this.identity.unanswered.delete(this.mutation.sequence)
    this.finish(result)
  }

  protected abstract resultOf(reply: Extract<Reply, { _tag: "Mutated" }>): A | undefined
}

/** A put, delete or compare-and-set of one key. */
export class WriteCall extends MutationCall<Result> {
  private readonly record: RecordedOperation
  private readonly values: Values

  constructor(
    options: Ends<Result> & {
      readonly identity: Identity
      readonly mutation: Mutation
      readonly record: RecordedOperation
      readonly values: Values
    },
  ) {
    super(options)
    this.record = options.record
    this.values = options.values
  }

  protected override resultOf(reply: Extract<Reply, { _tag: "Mutated" }>): Result | undefined {
    const { key, record, values } = this
    switch (reply.status) {
      case commandStatuses.done: {
        const value = record.kind === "delete" ? 0 : record.value
        values.learn(key, value, reply.version)
        return { outcome: "ok", found: undefined }
      }
      case commandStatuses.conditionFalse:
        return { outcome: "no", found: values.valueAt(key, reply.version) }
      case commandStatuses.absent:
        values.learn(key, 0, 0)
        return { outcome: "no", found: undefined }
      default:
        return undefined
    }
  }

  override gaveUp(): void {
    this.end({ outcome: this.uncertain === 0 ? "fail" : "info", found: undefined })
  }
}

/** An add to a counter. */
export class AddCall extends MutationCall<Pick<Add, "outcome" | "sum">> {
  protected override resultOf(
    reply: Extract<Reply, { _tag: "Mutated" }>,
  ): Pick<Add, "outcome" | "sum"> | undefined {
    if (reply.status !== commandStatuses.done || reply.value === undefined) return undefined
    return { outcome: "ok", sum: sumOf(reply.value) }
  }

  override gaveUp(): void {
    this.end({ outcome: this.uncertain === 0 ? "fail" : "info", sum: undefined })
  }
}
