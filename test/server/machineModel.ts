import type { Version } from "../../src/types.ts"

/** What a range must do, as plainly as it can be said: objects and maps, keys and values as text. */

export interface ModelOperation {
  readonly operation: "put" | "delete" | "add"
  readonly condition: "none" | "versionEquals" | "absent" | "valueEquals"
  readonly key: string
  /** Of a put. */
  readonly value: string
  /** Of an add. */
  readonly delta: bigint
  readonly expectedValue: string
  readonly expectedVersion: Version
  readonly ttl: number
}

export interface ModelCommand {
  readonly clientId: number
  readonly sequence: number
  readonly ackedBelow: number
  readonly expiresAt: Version
  readonly boundsVersion: number
  readonly isBatch: boolean
  readonly operations: ReadonlyArray<ModelOperation>
}

export interface ModelResult {
  readonly status:
    | "done"
    | "conditionFalse"
    | "absent"
    | "rangeMoved"
    | "expired"
    | "overloaded"
    | "notNumber"
  readonly version: Version
  /** The sum of an add, or the place of the operation that failed a batch. */
  readonly value?: bigint
}

interface Stored {
  readonly value: string
  readonly version: Version
  readonly expiry: Version | undefined
}

interface ModelSession {
  ackedBelow: number
  largestExpiry: Version
  readonly results: Map<number, ModelResult>
}

type Judged =
  | { readonly failed: ModelResult["status"] }
  | { readonly next: Stored | "gone" | "same" }

export class MachineModel {
  data = new Map<string, Stored>()
  sessions = new Map<number, ModelSession>()
  now: Version = 0
  boundsVersion: number
  readonly from: string
  /** Exclusive; `undefined` = no end. */
  to: string | undefined

  constructor(from: string, to: string | undefined, boundsVersion: number) {
    this.from = from
    this.to = to
    this.boundsVersion = boundsVersion
  }

  private isInside(key: string): boolean {
    return key >= this.from && (this.to === undefined || key < this.to)
  }

  /** What a reader sees at the range's time. */
  visible(): ReadonlyArray<readonly [string, string, Version]> {
    return [...this.data]
      .filter(([, { expiry }]) => expiry === undefined || expiry > this.now)
      .map(([key, { value, version }]) => [key, value, version] as const)
      .sort(([left], [right]) => (left < right ? -1 : 1))
  }

  entry(base: Version, commands: ReadonlyArray<ModelCommand>): ReadonlyArray<ModelResult> {
    const results = commands.map((command, j) => this.command(base + j, command))
    this.passTo(base + commands.length - 1)
    return results
  }

  tick(base: Version): void {
    this.passTo(base)
  }

  clear(base: Version): void {
    this.passTo(base)
    this.data.clear()
  }

  split(base: Version, at: string): MachineModel {
    this.passTo(base)
    const right = new MachineModel(at, this.to, this.boundsVersion + 1)
    this.to = at
    this.boundsVersion++
    right.now = this.now
    for (const [key, stored] of this.data) {
      if (key < at) continue
      right.data.set(key, stored)
      this.data.delete(key)
    }
    for (const [client, session] of this.sessions) {
      right.sessions.set(client, { ...session, results: new Map(session.results) })
    }
    return right
  }

  private passTo(version: Version): void {
    const window = (time: Version) => Math.floor(time / 30_000_000)
    if (window(this.now) !== window(version)) {
      for (const [client, session] of this.sessions) {
        if (session.largestExpiry <= version) this.sessions.delete(client)
      }
    }
    this.now = version
  }

  private command(version: Version, command: ModelCommand): ModelResult {
    const { clientId, sequence, expiresAt, operations } = command
    let session = this.sessions.get(clientId)
    const earlier = session?.results.get(sequence)
    if (earlier !== undefined) return earlier
    const tooLong = expiresAt > version + 180_000_000
    if (expiresAt <= version || tooLong || sequence < (session?.ackedBelow ?? 0)) {
      return { status: "expired", version: 0 }
    }
    const isInside = operations.every(({ key }) => this.isInside(key))
    if (command.boundsVersion !== this.boundsVersion || !isInside) {
      return { status: "rangeMoved", version: 0 }
    }
    const result = this.carryOut(version, command)
    session ??= { ackedBelow: 0, largestExpiry: 0, results: new Map() }
    this.sessions.set(clientId, session)
    session.largestExpiry = Math.max(session.largestExpiry, expiresAt)
    session.ackedBelow = Math.max(session.ackedBelow, Math.min(command.ackedBelow, sequence))
    for (const old of [...session.results.keys()]) {
      if (old < session.ackedBelow) session.results.delete(old)
    }
    session.results.set(sequence, result)
    return result
  }

  private carryOut(version: Version, { isBatch, operations }: ModelCommand): ModelResult {
    const before = new Map(this.data)
    const judged = operations.map((operation) => judge(before, operation, version))
    for (const [place, each] of judged.entries()) {
      if (!("failed" in each)) continue
      const present = presentOf(before, (operations[place] as ModelOperation).key, version)
      const result = { status: each.failed, version: present?.version ?? 0 }
      return isBatch ? { ...result, value: BigInt(place) } : result
    }
    for (const [place, each] of judged.entries()) {
      if ("failed" in each || each.next === "same") continue
      const { key } = operations[place] as ModelOperation
      if (each.next === "gone") this.data.delete(key)
      else this.data.set(key, each.next)
    }
    if (isBatch) return { status: "done", version }
    const [only] = judged as [Judged]
    if ("next" in only && only.next === "same") return { status: "absent", version: 0 }
    const [{ operation, key }] = operations as [ModelOperation]
    const done = { status: "done", version } as const
    return operation === "add"
      ? { ...done, value: BigInt((this.data.get(key) as Stored).value) }
      : done
  }
}

function presentOf(
  data: ReadonlyMap<string, Stored>,
  key: string,
  version: Version,
): Stored | undefined {
  const stored = data.get(key)
  const isGone = stored?.expiry !== undefined && stored.expiry <= version
  return isGone ? undefined : stored
}

function judge(
  data: ReadonlyMap<string, Stored>,
  operation: ModelOperation,
  version: Version,
): Judged {
  const present = presentOf(data, operation.key, version)
  const holds = {
    none: true,
    versionEquals: (present?.version ?? 0) === operation.expectedVersion,
    absent: present === undefined,
    valueEquals: present !== undefined && present.value === operation.expectedValue,
  }[operation.condition]
  if (!holds) return { failed: "conditionFalse" }
  const ownExpiry = operation.ttl === 0 ? undefined : version + operation.ttl
  switch (operation.operation) {
    case "put":
      return { next: { value: operation.value, version, expiry: ownExpiry } }
    case "delete":
      return { next: present === undefined ? "same" : "gone" }
    default: {
      const text = present?.value ?? "0"
      if (!/^(0|-?[1-9][0-9]*)$/.test(text)) return { failed: "notNumber" }
      const number = BigInt(text)
      const sum = number + operation.delta
      if (BigInt.asIntN(64, number) !== number || BigInt.asIntN(64, sum) !== sum) {
        return { failed: "notNumber" }
      }
      return { next: { value: sum.toString(), version, expiry: ownExpiry ?? present?.expiry } }
    }
  }
}
