import { dlopen, FFIType, read } from "bun:ffi"
import { closeSync, existsSync, ftruncateSync, openSync, readFileSync, writeSync } from "node:fs"
import { join } from "node:path"

/**
 * At most one process per data directory, by `flock` on a file in it. The kernel drops the lock with the process, however it
 * ends, so `kill -9` never leaves a directory locked, and there is no stale pid to guess about. The pid written into the file
 * is for the message only.
 *
 * The runtime has no call for it, so it is called in the C library.
 */
export class DirectoryLock {
  private descriptor: number

  private constructor(descriptor: number) {
    this.descriptor = descriptor
  }

  /**
   * Locks an existing directory for this process. Throws `DirectoryInUse` when another process (or this one) holds it, and
   * `LockUnavailable` when this system cannot lock.
   */
  static acquire(directory: string): DirectoryLock {
    const descriptor = openSync(join(directory, lockFileName), "a+", 0o600)
    const lock = DirectoryLock.lock(directory, descriptor)
    ftruncateSync(descriptor, 0)
    writeSync(descriptor, `${process.pid}\n`)
    return lock
  }

  /**
   * As `acquire`, but changes nothing in the directory: `undefined` when it has no lock file, so that no process has ever
   * had it.
   */
  static acquireExisting(directory: string): DirectoryLock | undefined {
    const path = join(directory, lockFileName)
    if (!existsSync(path)) return undefined
    return DirectoryLock.lock(directory, openSync(path, "r"))
  }

  /** Takes the descriptor, and closes it when it cannot be locked. */
  private static lock(directory: string, descriptor: number): DirectoryLock {
    const path = join(directory, lockFileName)
    let code = interrupted
    try {
      const { flock, errno } = library()
      while (code === interrupted) {
        code = flock(descriptor, lockExclusive | lockNonBlocking) === 0 ? 0 : errno()
      }
    } finally {
      if (code !== 0) closeSync(descriptor)
    }
    if (code === 0) return new DirectoryLock(descriptor)
    if (code === wouldBlock) throw new DirectoryInUse({ directory, pid: holder(path) })
    throw new LockUnavailable({ reason: `flock of ${path} failed with errno ${code}` })
  }

  release(): void {
    if (this.descriptor < 0) return
    closeSync(this.descriptor)
    this.descriptor = -1
  }
}

export const lockFileName = "LOCK"

/** Another process has the data directory. */
export class DirectoryInUse extends Error {
  override readonly name = "DirectoryInUse"
  readonly directory: string
  /** Its process id, when it can be told. */
  readonly pid: number | undefined
  constructor(options: { directory: string; pid: number | undefined }) {
    const by = options.pid === undefined ? "another process" : `process ${options.pid}`
    super(`${options.directory} is in use by ${by}`)
    this.directory = options.directory
    this.pid = options.pid
  }
}

/** This system offers no `flock` that can be called. */
export class LockUnavailable extends Error {
  override readonly name = "LockUnavailable"
  constructor(options: { reason: string; cause?: unknown }) {
    super(`cannot lock a directory here: ${options.reason}`, { cause: options.cause })
  }
}

const lockExclusive = 2
const lockNonBlocking = 4
const interrupted = 4
const wouldBlock = process.platform === "darwin" ? 35 : 11

interface Library {
  readonly flock: (descriptor: number, operation: number) => number
  readonly errno: () => number
}

/** glibc, then musl by both of its names; macOS. */
function libraryNames(): ReadonlyArray<string> {
  if (process.platform === "darwin") return ["libSystem.B.dylib"]
  const machine = process.arch === "arm64" ? "aarch64" : "x86_64"
  return ["libc.so.6", `libc.musl-${machine}.so.1`, `/lib/ld-musl-${machine}.so.1`]
}

let loaded: Library | undefined

function library(): Library {
  if (loaded !== undefined) return loaded
  const names = libraryNames()
  const errnoName = process.platform === "darwin" ? "__error" : "__errno_location"
  let cause: unknown
  for (const name of names) {
    try {
      const { symbols } = dlopen(name, {
        flock: { args: [FFIType.i32, FFIType.i32], returns: FFIType.i32 },
        [errnoName]: { args: [], returns: FFIType.ptr },
      })
      const location = symbols[errnoName] as unknown as () => Parameters<typeof read.i32>[0]
      loaded = {
        flock: symbols.flock as unknown as Library["flock"],
        errno: () => read.i32(location(), 0),
      }
      return loaded
    } catch (error) {
      cause = error
    }
  }
  throw new LockUnavailable({ reason: `no C library among ${names.join(", ")}`, cause })
}

function holder(path: string): number | undefined {
  const pid = Number.parseInt(readFileSync(path, "utf8"), 10)
  return Number.isSafeInteger(pid) && pid > 0 ? pid : undefined
}
