import {
  closeSync,
  existsSync,
  fdatasyncSync,
  fstatSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  statfsSync,
  statSync,
  unlinkSync,
  writeSync,
} from "node:fs"
import { join } from "node:path"
import { assert } from "../lib/assert.ts"
import type { Disk, DiskErrorReason, DiskFile } from "./disk.ts"
import { DiskError, StorageCorruption } from "./disk.ts"

/**
 * The real disk: files under one root folder, which must exist, through the runtime's synchronous calls. Each open `DiskFile`
 * holds one descriptor. Nothing is cached here; reads come from the page cache.
 *
 * `sync` is fdatasync: on Linux it makes the bytes and the file's length durable. On macOS it is as strong as the runtime's
 * fdatasync is.
 */
export class FileDisk implements Disk {
  readonly root: string
  private readonly held: HeldDescriptors | undefined

  /** `held` is told of every descriptor, for a thread whose end another one survives. */
  constructor(root: string, held?: HeldDescriptors) {
    this.root = root
    this.held = held
  }

  /** Where a path of this disk lies, for callers that need the operating system's own name of it. */
  absolutePath(path: string): string {
    return join(this.root, path)
  }

  open(path: string): DiskFile {
    return new OpenFile(
      path,
      attempt(path, () => openSync(this.absolutePath(path), "r+")),
      this.held,
    )
  }

  create(path: string): DiskFile {
    return new OpenFile(
      path,
      attempt(path, () => openSync(this.absolutePath(path), "wx+", 0o600)),
      this.held,
    )
  }

  exists(path: string): boolean {
    return existsSync(this.absolutePath(path))
  }

  list(directory: string): ReadonlyArray<string> {
    return attempt(directory, () => {
      try {
        return readdirSync(this.absolutePath(directory)).sort()
      } catch (error) {
        if (errorCode(error) === "ENOENT") return []
        throw error
      }
    })
  }

  makeDirectory(path: string): void {
    attempt(path, () => {
      try {
        mkdirSync(this.absolutePath(path), { mode: 0o700 })
      } catch (error) {
        const made =
          errorCode(error) === "EEXIST" && statSync(this.absolutePath(path)).isDirectory()
        if (!made) throw error
      }
    })
  }

  rename(source: string, target: string): void {
    attempt(source, () => renameSync(this.absolutePath(source), this.absolutePath(target)))
  }

  link(source: string, target: string): void {
    attempt(source, () => linkSync(this.absolutePath(source), this.absolutePath(target)))
  }

  remove(path: string): void {
    attempt(path, () => unlinkSync(this.absolutePath(path)))
  }

  syncDirectory(path: string): void {
    const descriptor = attempt(path, () => openSync(this.absolutePath(path), "r"))
    this.held?.add(descriptor)
    try {
      attemptSync(path, () => fsyncSync(descriptor))
    } finally {
      this.held?.remove(descriptor)
      closeSync(descriptor)
    }
  }

  freeBytes(): number | undefined {
    const { bavail, bsize } = attempt("", () => statfsSync(this.root))
    return bavail * bsize
  }
}

/**
 * The descriptors that one thread has open, in memory that another shares: a thread that is ended leaves them open, and the process would run out of them. A
 * thread that ends between opening and noting still leaves that one.
 */
export class HeldDescriptors {
  /** Beyond so many at once they are not noted. */
  static readonly max = 512
  readonly memory: SharedArrayBuffer
  /** A descriptor and one more; 0 = free. */
  private readonly slots: Int32Array

  constructor(memory = new SharedArrayBuffer(HeldDescriptors.max * 4)) {
    this.memory = memory
    this.slots = new Int32Array(memory)
  }

  add(descriptor: number): void {
    const free = this.slots.indexOf(0)
    if (free >= 0) Atomics.store(this.slots, free, descriptor + 1)
  }

  /** To be called before it is closed: its number may be another's right after. */
  remove(descriptor: number): void {
    const held = this.slots.indexOf(descriptor + 1)
    if (held >= 0) Atomics.store(this.slots, held, 0)
  }

  /** Closes what is left. The thread must have ended. */
  closeAll(): void {
    for (let i = 0; i < this.slots.length; i++) {
      const held = Atomics.exchange(this.slots, i, 0)
      if (held > 0) closeSync(held - 1)
    }
  }
}

class OpenFile implements DiskFile {
  readonly path: string
  private descriptor: number
  private readonly held: HeldDescriptors | undefined

  constructor(path: string, descriptor: number, held: HeldDescriptors | undefined) {
    this.path = path
    this.descriptor = descriptor
    this.held = held
    held?.add(descriptor)
  }

  private get open(): number {
    assert(this.descriptor >= 0, `${this.path} is open`)
    return this.descriptor
  }

  get sizeBytes(): number {
    const descriptor = this.open
    return attempt(this.path, () => fstatSync(descriptor).size)
  }

  read(target: Uint8Array, offset: number): number {
    const descriptor = this.open
    let done = 0
    // No closure: a read of a block from the page cache takes a microsecond.
    try {
      while (done < target.length) {
        const count = readSync(descriptor, target, done, target.length - done, offset + done)
        if (count === 0) break
        done += count
      }
    } catch (cause) {
      // The disk has lost these bytes, which is no other than having damaged them.
      if (errorCode(cause) === "EIO") {
        const expected = `${target.length} bytes`
        throw new StorageCorruption({ path: this.path, offset, expected, actual: "unreadable" })
      }
      throw diskErrorOf(this.path, cause)
    }
    return done
  }

  write(bytes: Uint8Array, offset: number): void {
    const descriptor = this.open
    attempt(this.path, () => {
      let done = 0
      while (done < bytes.length) {
        const count = writeSync(descriptor, bytes, done, bytes.length - done, offset + done)
        if (count === 0) throw new DiskError({ reason: "no-space", path: this.path })
        done += count
      }
    })
  }

  sync(): void {
    const descriptor = this.open
    attemptSync(this.path, () => fdatasyncSync(descriptor))
  }

  close(): void {
    if (this.descriptor < 0) return
    const descriptor = this.descriptor
    this.descriptor = -1
    this.held?.remove(descriptor)
    attempt(this.path, () => closeSync(descriptor))
  }
}

function errorCode(error: unknown): string | undefined {
  return (error as { code?: string } | undefined)?.code
}

const reasons: Readonly<Record<string, DiskErrorReason>> = {
  ENOENT: "not-found",
  ENOTDIR: "not-found",
  EEXIST: "exists",
  ENOSPC: "no-space",
  EDQUOT: "no-space",
}

function attempt<A>(path: string, call: () => A): A {
  try {
    return call()
  } catch (cause) {
    throw diskErrorOf(path, cause)
  }
}

/** What is no error of the operating system comes back as it is. */
function diskErrorOf(path: string, cause: unknown): unknown {
  const code = errorCode(cause)
  if (code === undefined) return cause
  return new DiskError({ reason: reasons[code] ?? "io", path, cause })
}

/** A failed sync is "io" whatever the system calls it, "no space left" included: what it left on the disk is unknown, so it must never be tried again. */
function attemptSync(path: string, call: () => void): void {
  try {
    call()
  } catch (cause) {
    throw new DiskError({ reason: "io", path, cause })
  }
}
