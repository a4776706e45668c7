import type * as NodeFs from "node:fs"

type Fs = typeof NodeFs

/** What names the sync that fails, once. Plain data, for threads. */
export interface SyncFault {
  /** Part of the file's or folder's path. */
  readonly path: string
  /** So many syncs of it succeed first. */
  readonly skip: number
}

/**
 * The file calls of the runtime with one sync that fails, once, as Linux fails it: every descriptor that is open is told so by its next sync, and the one after
 * that succeeds, though what was not written back is forgotten. Whoever tries again is told that all is well.
 */
export class SyncFaults {
  fault: SyncFault | undefined
  failedPath: string | undefined
  /** Writes take a part of what they are given, as a kernel may. */
  shortWrites = false
  private writes = 0
  /** Syncs since the failure. */
  onLaterSync: (path: string) => void = () => {}
  private readonly paths = new Map<number, string>()
  /** Open descriptors that the kernel has still to tell of the failure: each is told once. */
  private readonly untold = new Set<number>()
  private seen = 0

  arm(fault: SyncFault): void {
    this.fault = fault
    this.failedPath = undefined
    this.seen = 0
  }

  private errorOf(descriptor: number, call: string): Error | undefined {
    const path = this.paths.get(descriptor) ?? ""
    const error = () => Object.assign(new Error(`EIO: i/o error, ${call}`), { code: "EIO" })
    if (this.failedPath !== undefined) this.onLaterSync(path)
    if (this.untold.delete(descriptor)) return error()
    const { fault } = this
    if (fault === undefined || !path.includes(fault.path)) return undefined
    if (this.seen++ < fault.skip) return undefined
    this.fault = undefined
    this.failedPath = path
    for (const [other, its] of this.paths) {
      if (its === path && other !== descriptor) this.untold.add(other)
    }
    return error()
  }

  /** `real` with the faults in it. */
  calls(real: Fs) {
    const sync = (call: "fdatasyncSync" | "fsyncSync") => {
      const plain = real[call]
      return (descriptor: number) => {
        const error = this.errorOf(descriptor, call)
        if (error !== undefined) throw error
        plain(descriptor)
      }
    }
    const { openSync, fdatasync, writeSync } = real
    return {
      writeSync: (
        descriptor: number,
        bytes: Uint8Array,
        offset: number,
        length: number,
        position: number,
      ) => {
        const isShort = this.shortWrites && length > 1
        const part = isShort ? 1 + ((this.writes++ * 7919) % (length - 1)) : length
        return writeSync(descriptor, bytes, offset, part, position)
      },
      openSync: (...words: Parameters<Fs["openSync"]>) => {
        const descriptor = openSync(...words)
        this.paths.set(descriptor, String(words[0]))
        this.untold.delete(descriptor)
        return descriptor
      },
      fdatasync: (descriptor: number, done: NodeFs.NoParamCallback) => {
        const error = this.errorOf(descriptor, "fdatasync")
        if (error === undefined) fdatasync(descriptor, done)
        else setTimeout(() => done(error), 2)
      },
      fdatasyncSync: sync("fdatasyncSync"),
      fsyncSync: sync("fsyncSync"),
    }
  }
}
