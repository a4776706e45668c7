import { closeSync, existsSync, fdatasync, mkdirSync, openSync, writeSync } from "node:fs"
import { Context } from "effect"
import { DirectoryLock } from "./DirectoryLock.ts"
import type { Disk } from "./disk.ts"
import { FileDisk } from "./FileDisk.ts"

/** The journal's file, open for writes that a thread of the runtime makes durable. */
export interface OpenJournal {
  /** Writes `count` bytes of `bytes` from `from` on at `offset` of the file; returns how many, maybe fewer. */
  write(bytes: Uint8Array, from: number, count: number, offset: number): number
  /** fdatasync, elsewhere; `done` is called once, later, also when the file was closed meanwhile. */
  sync(done: (error: Error | null) => void): void
  /** Not while a sync is under way. */
  close(): void
}

/** A data directory in the hands of this process alone. */
export interface DataDirectory {
  readonly disk: Disk
  openJournal(path: string): OpenJournal
  release(): void
}

/**
 * Where nodes get their data directories: from the operating system, unless a simulator gives other ones. `make` makes a directory that is not there; `acquire`
 * throws `DirectoryInUse` and `LockUnavailable`, and both throw errors of the operating system.
 */
export class DataDirectories extends Context.Reference<{
  readonly make: (path: string) => void
  readonly acquire: (path: string) => DataDirectory
}>("kvorum/disk/DataDirectories", {
  defaultValue: () => ({
    make: (path) => {
      if (!existsSync(path)) mkdirSync(path, { recursive: true, mode: 0o700 })
    },
    acquire: (path) => new RealDirectory(path),
  }),
}) {}

class RealDirectory implements DataDirectory {
  readonly disk: FileDisk
  private readonly lock: DirectoryLock

  constructor(path: string) {
    this.lock = DirectoryLock.acquire(path)
    this.disk = new FileDisk(path)
  }

  openJournal(path: string): OpenJournal {
    return openJournalFile(this.disk.absolutePath(path))
  }

  release(): void {
    this.lock.release()
  }
}

/** `path` is the operating system's name of the file, which must exist. */
export function openJournalFile(path: string): OpenJournal {
  const descriptor = openSync(path, "r+")
  return {
    write: (bytes, from, count, offset) => writeSync(descriptor, bytes, from, count, offset),
    sync: (done) => fdatasync(descriptor, done),
    close: () => closeSync(descriptor),
  }
}
