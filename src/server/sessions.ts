import { assert } from "../lib/assert.ts"
import { ByteReader, MalformedBytes } from "../lib/byteReader.ts"
import { ByteWriter } from "../lib/byteWriter.ts"
import type { Version } from "../types.ts"
import { type CommandStatus, isResult } from "../wire/commandCodes.ts"

/** What a command left behind, so that a retry gets the same answer instead of a second effect. */
export interface StoredResult {
  readonly status: CommandStatus
  readonly version: Version
  /** What `add` left, or which operation of a batch failed: at most `resultValueBytesMax`. */
  readonly value: Uint8Array | undefined
}

const resultValueBytesMax = 8
/** What a result takes in a session's record at most. */
const resultBytesMax = 18 + resultValueBytesMax

interface Session {
  /** Every sequence below it was answered; its result is gone and it is never applied again. */
  ackedBelow: number
  /** The session itself goes only when range time has passed this. */
  largestExpiry: Version
  readonly results: Map<number, StoredResult>
}

export interface SessionLimits {
  readonly results: number
  readonly clients: number
}

/** Range time is cut in windows of 30 s; at the first entry of a new one, expired sessions go. */
const sweepWindow = 30_000_000

/**
 * Exactly-once results of one range (RIFL: Lee et al., SOSP 2015; DESIGN section 3). Part of the replicated state: every
 * change follows from the log alone, so all replicas hold the same table at the same index.
 *
 * Invariants:
 * - a result is kept until its client says that it has the answer, or until no retry can be accepted any more;
 * - a sequence below `ackedBelow` is refused, so forgetting a result never lets a command apply twice;
 * - at most `limits.results` results and `limits.clients` sessions: beyond, commands are refused as overloaded.
 */
export class SessionTable {
  protected readonly sessions = new Map<number, Session>()
  protected readonly limits: SessionLimits
  private resultCount = 0
  /** Clients whose session changed since the last `takeDirty`. */
  private dirty = new Set<number>()

  constructor(limits: SessionLimits) {
    this.limits = limits
  }

  get clients(): number {
    return this.sessions.size
  }

  get results(): number {
    return this.resultCount
  }

  /** An upper estimate of what `takeDirty` will write, in bytes. */
  get dirtyBytes(): number {
    return this.dirty.size * 64 + (this.dirty.size === 0 ? 0 : this.resultCount * resultBytesMax)
  }

  knows(clientId: number): boolean {
    return this.sessions.has(clientId)
  }

  find(clientId: number, sequence: number): StoredResult | undefined {
    return this.sessions.get(clientId)?.results.get(sequence)
  }

  /** True when the client has already acknowledged this sequence, so that it must not be applied. */
  isForgotten(clientId: number, sequence: number): boolean {
    const session = this.sessions.get(clientId)
    return session !== undefined && sequence < session.ackedBelow
  }

  /** True when there is no room for one more result of this client. */
  isFull(clientId: number): boolean {
    return (
      this.resultCount >= this.limits.results ||
      (!this.sessions.has(clientId) && this.sessions.size >= this.limits.clients)
    )
  }

  /** Takes note of what the client has answered; drops those results. */
  acknowledge(clientId: number, ackedBelow: number, expiresAt: Version): void {
    const session = this.sessions.get(clientId)
    if (session === undefined) return
    this.dirty.add(clientId)
    if (expiresAt > session.largestExpiry) session.largestExpiry = expiresAt
    if (ackedBelow <= session.ackedBelow) return
    session.ackedBelow = ackedBelow
    for (const sequence of session.results.keys()) {
      if (sequence >= ackedBelow) continue
      session.results.delete(sequence)
      this.resultCount--
    }
  }

  /** Remembers a result. Requires `!isFull(clientId)`, and that the sequence has none yet. */
  record(
    clientId: number,
    sequence: number,
    options: { ackedBelow: number; expiresAt: Version; result: StoredResult },
  ): void {
    let session = this.sessions.get(clientId)
    if (session === undefined) {
      session = { ackedBelow: 0, largestExpiry: 0, results: new Map() }
      this.sessions.set(clientId, session)
    }
    assert(!session.results.has(sequence), "a sequence has one result")
    const valueBytes = options.result.value?.length ?? 0
    assert(valueBytes <= resultValueBytesMax, () => `a result of ${valueBytes} bytes`)
    this.acknowledge(clientId, Math.min(options.ackedBelow, sequence), options.expiresAt)
    session.results.set(sequence, options.result)
    this.resultCount++
    this.dirty.add(clientId)
  }

  /** Drops sessions that no retry can reach, when range time moves from `before` to `now` over a window's edge. */
  sweep(before: Version, now: Version): void {
    if (Math.floor(before / sweepWindow) === Math.floor(now / sweepWindow)) return
    for (const [clientId, session] of this.sessions) {
      if (session.largestExpiry > now) continue
      this.sessions.delete(clientId)
      this.resultCount -= session.results.size
      this.dirty.add(clientId)
    }
  }

  /** Copies every session to the table of a range that begins, which has all of it to write. */
  copyTo(target: SessionTable): void {
    assert(target.sessions.size === 0, "a range begins without sessions")
    for (const [clientId, session] of this.sessions) {
      target.sessions.set(clientId, { ...session, results: new Map(session.results) })
      target.dirty.add(clientId)
    }
    target.resultCount = this.resultCount
  }

  /**
   * Takes in the sessions of a range that is merged with this one. A client acknowledges to all ranges alike, so the larger word of the two holds for both; no
   * sequence has a result in both, as a key's commands went to the one range that had it. Limits may be passed: then commands wait for results to go.
   */
  unite(source: SessionTable): void {
    for (const [clientId, session] of source.sessions) {
      const known = this.sessions.get(clientId)
      const results = new Map([...(known?.results ?? []), ...session.results])
      const ackedBelow = Math.max(known?.ackedBelow ?? 0, session.ackedBelow)
      for (const sequence of results.keys()) if (sequence < ackedBelow) results.delete(sequence)
      const largestExpiry = Math.max(known?.largestExpiry ?? 0, session.largestExpiry)
      this.sessions.set(clientId, { ackedBelow, largestExpiry, results })
      this.resultCount += results.size - (known?.results.size ?? 0)
      this.dirty.add(clientId)
    }
  }

  /**
   * Clients changed since the last call, in order of id, each with its record, or `undefined` for a session that is gone.
   */
  takeDirty(): ReadonlyArray<{ clientId: number; record: Uint8Array | undefined }> {
    const ids = [...this.dirty].sort((left, right) => left - right)
    this.dirty = new Set()
    return ids.map((clientId) => ({ clientId, record: this.encode(clientId) }))
  }

  /** Every session's record, in order of client id: for a snapshot. */
  all(): ReadonlyArray<{ clientId: number; record: Uint8Array }> {
    const ids = [...this.sessions.keys()].sort((left, right) => left - right)
    return ids.map((clientId) => ({ clientId, record: this.encode(clientId) as Uint8Array }))
  }

  /**
   * Stored: do not change.
   * `u64 ackedBelow ‖ u64 largestExpiry ‖ u32 count ‖ count * (u64 sequence ‖ u64 version ‖ u8 status ‖ u8 bytes of value ‖ value)`
   */
  private encode(clientId: number): Uint8Array | undefined {
    const session = this.sessions.get(clientId)
    if (session === undefined) return undefined
    const writer = new ByteWriter(20 + session.results.size * resultBytesMax)
    writer.u64(session.ackedBelow)
    writer.u64(session.largestExpiry)
    writer.u32(session.results.size)
    for (const [sequence, result] of session.results) {
      writer.u64(sequence)
      writer.u64(result.version)
      writer.u8(result.status)
      writer.u8(result.value?.length ?? 0)
      if (result.value !== undefined) writer.raw(result.value)
    }
    return writer.take()
  }

  /** Puts a stored session back. Throws `MalformedBytes`. */
  restore(clientId: number, record: Uint8Array): void {
    const reader = new ByteReader(record)
    const session: Session = {
      ackedBelow: reader.u64(),
      largestExpiry: reader.u64(),
      results: new Map(),
    }
    const count = reader.u32()
    for (let i = 0; i < count; i++) {
      const sequence = reader.u64()
      const version = reader.u64()
      const status = reader.u8()
      if (!isResult(status as CommandStatus))
        throw new MalformedBytes(`a result of status ${status}`)
      const valueBytes = reader.u8()
      if (valueBytes > resultValueBytesMax)
        throw new MalformedBytes(`a result of ${valueBytes} bytes`)
      const value = valueBytes === 0 ? undefined : reader.copy(valueBytes)
      session.results.set(sequence, { version, status: status as CommandStatus, value })
    }
    reader.end()
    this.sessions.set(clientId, session)
    this.resultCount += session.results.size
  }
}
