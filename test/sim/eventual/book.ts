import { Violation } from "../violation.ts"

export type Outcome = "pending" | "acknowledged" | "refused" | "unknown"

/** One write of a client, as the client knows it. */
export interface Write {
  readonly id: number
  readonly kind: "put" | "delete" | "add" | "remove" | "clear" | "increment"
  /** What is put, added or removed; each put has one of its own. */
  readonly value: string
  readonly delta: number
  readonly startedMs: number
  /** Writes that it has replaced for certain, wherever it is; and those that it may have. */
  readonly covers: ReadonlySet<Write>
  readonly mayCover: ReadonlySet<Write>
  /** From when on it may be gone, and from when on it is gone; `undefined`: it never expires. */
  readonly expiry: { readonly mayMs: number; readonly mustMs: number } | undefined
  endedMs: number
  outcome: Outcome
  /** Owners that are known to hold it, and since when: by its acknowledgement (0 = by stand-ins, at least in part), or because a read has shown it. */
  ownersHolding: number
  heldSinceMs: number
  /** A zone of which more than half of the owners hold it. */
  held?: { readonly zone: string; readonly sinceMs: number } | undefined
}

/** What a client has read of a key last: what its next write builds on. */
export interface Sight {
  readonly context: Uint8Array | undefined
  readonly covers: ReadonlySet<Write>
  readonly mayCover: ReadonlySet<Write>
}

export const unseen: Sight = { context: undefined, covers: new Set(), mayCover: new Set() }

export function violated(
  invariant: "lostWrite" | "resurrection" | "falseSibling" | "value" | "counter" | "session",
  message: string,
): never {
  throw new Violation(invariant, message)
}

/** A write of which nobody can say that it did not happen. */
export function mayHaveHappened({ outcome }: Write): boolean {
  return outcome !== "refused"
}

export function isGone({ expiry }: Write, nowMs: number): boolean {
  return expiry !== undefined && nowMs > expiry.mustMs
}

export function mayBeGone({ expiry }: Write, nowMs: number): boolean {
  return expiry !== undefined && nowMs >= expiry.mayMs
}

/** What is in the answer to a read. */
export interface Answer {
  readonly values: ReadonlyArray<string>
  /** Of a counter. */
  readonly total: bigint | undefined
  readonly startedMs: number
  readonly endedMs: number
  /** Owners that make up its level: what they show, all of them hold. 0 = nobody can say how many. */
  readonly owners: number
  /** It meets every write that so many owners hold; infinite: it may miss any. */
  readonly meetsOwners: number
  /** More than half of the owners of this zone have answered. */
  readonly zone?: string | undefined
}

/** So many owners hold a write at a time, for certain and for good. */
export function hold(write: Write, owners: number, ms: number): void {
  if (owners <= write.ownersHolding) return
  write.ownersHolding = owners
  write.heldSinceMs = ms
}

/** All writes of one key, and what answers may show of them. */
export abstract class KeyBook {
  readonly writes: Array<Write> = []
  readonly name: string

  constructor(name: string) {
    this.name = name
  }

  /** Checks an answer, and returns what its reader has seen. */
  abstract read(answer: Answer): Omit<Sight, "context">

  /** A node is gone for good: nobody can say any more that what one node held is there. */
  weaken(): void {
    for (const write of this.writes) {
      if (write.outcome !== "acknowledged" || write.ownersHolding > 1) continue
      write.outcome = "unknown"
      write.ownersHolding = 0
    }
  }

  /** Checks what all owners hold in the end. */
  abstract final(answer: Answer): void

  /** Writes that a read must not miss: acknowledged or shown before it began, and held by so many owners that one of them was asked. */
  protected met({ startedMs, meetsOwners, zone }: Answer): ReadonlyArray<Write> {
    return this.writes.filter(({ heldSinceMs, ownersHolding, held }) => {
      if (heldSinceMs < startedMs && ownersHolding >= meetsOwners) return true
      return held !== undefined && held.zone === zone && held.sinceMs < startedMs
    })
  }

  protected before(ms: number): Array<Write> {
    return this.writes.filter((write) => write.startedMs <= ms && mayHaveHappened(write))
  }
}
