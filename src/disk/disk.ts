/**
 * The file port. Engine, journal and recovery see files only through it; `FileDisk.ts` is the real one, `test/sim` has one that
 * loses what was not synced.
 *
 * Paths are relative to the data directory, with `/` between parts ("journal/00000001.log"). What a name points to is durable
 * only after `syncDirectory` of its folder; what a file holds, only after `sync` of the file. A write can be torn at any byte
 * until then.
 *
 * All calls are synchronous: reads come from the page cache in about 1 us, and writes that must not hold the event loop are
 * made in a worker thread that has its own `Disk` over the same directory. The one asynchronous path, the journal's write and
 * fdatasync, belongs to the driver (`server/StoreDriver.ts`).
 */
export interface Disk {
  /** Opens an existing file for reading and writing, or throws `DiskError` "not-found". */
  open(path: string): DiskFile
  /** Creates a file, empty; throws `DiskError` "exists" if there is one. */
  create(path: string): DiskFile
  exists(path: string): boolean
  /** Names in a folder, sorted; empty when there is no such folder. */
  list(directory: string): ReadonlyArray<string>
  makeDirectory(path: string): void
  /** Atomic replacement of `target`; durable after `syncDirectory` of the folder. */
  rename(source: string, target: string): void
  /**
   * A second name of a file (a hard link); throws `DiskError` "exists" if `target` is a name already. Durable after `syncDirectory` of the
   * target's folder; the file goes with its last name.
   */
  link(source: string, target: string): void
  remove(path: string): void
  syncDirectory(path: string): void
  /** Bytes that may still be written, as far as the file system tells; `undefined` when it does not. */
  freeBytes(): number | undefined
}

export interface DiskFile {
  readonly path: string
  readonly sizeBytes: number
  /** Fills `target` from `offset`; returns the bytes read, fewer only at the end of the file. Throws `StorageCorruption` where the disk cannot read. */
  read(target: Uint8Array, offset: number): number
  /** Writes all of `bytes` at `offset`, extending the file as needed. When it throws, any first part of them may have been written. */
  write(bytes: Uint8Array, offset: number): void
  /** fdatasync: all bytes written before are durable when this returns. A failure is final: the node stops. */
  sync(): void
  close(): void
}

export type DiskErrorReason = "not-found" | "exists" | "no-space" | "io"

export class DiskError extends Error {
  override readonly name = "DiskError"
  readonly reason: DiskErrorReason
  readonly path: string
  constructor(options: { reason: DiskErrorReason; path: string; cause?: unknown }) {
    super(`${options.reason}: ${options.path}`, { cause: options.cause })
    this.reason = options.reason
    this.path = options.path
  }
}

/** Stored bytes that are not what was written. Never answered as "not found". */
export class StorageCorruption extends Error {
  override readonly name = "StorageCorruption"
  readonly path: string
  readonly offset: number
  readonly expected: string
  readonly actual: string
  constructor(options: { path: string; offset: number; expected: string; actual: string }) {
    super(
      `${options.path} at byte ${options.offset}: expected ${options.expected}, found ${options.actual}`,
    )
    this.path = options.path
    this.offset = options.offset
    this.expected = options.expected
    this.actual = options.actual
  }
}
