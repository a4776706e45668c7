import {
  closeSync,
  existsSync,
  fdatasyncSync,
  fstatSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  statSync,
  unlinkSync,
  writeSync,
} from "node:fs"
import { join } from "node:path"
import { assert } from "../lib/assert.ts"
import type { Disk, DiskErrorReason, DiskFile } from "./disk.ts"
import { DiskError } from "./disk.ts"

/**
 * The real disk: files under one root folder, which must exist, through the runtime's synchronous calls. Each open `DiskFile`
 * holds one descriptor. Nothing is cached here; reads come from the page cache.
 *
 * `sync` is fdatasync: on Linux it makes the bytes and the file's length durable. On macOS it is as strong as the runtime's
 * fdatasync is.
 */
export class FileDisk implements Disk {
  readonly root: string

  constructor(root: string) {
    this.root = root
  }

  /** Where a path of this disk lies, for callers that need the operating system's own name of it. */
  absolutePath(path: string): string {
    return join(this.root, path)
  }

  open(path: string): DiskFile {
    return new OpenFile(
      path,
      attempt(path, () => openSync(this.absolutePath(path), "r+")),
    )
  }

  create(path: string): DiskFile {
    return new OpenFile(
      path,
      attempt(path, () => openSync(this.absolutePath(path), "wx+", 0o600)),
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

  remove(path: string): void {
    attempt(path, () => unlinkSync(this.absolutePath(path)))
  }

  syncDirectory(path: string): void {
    attempt(path, () => {
      const descriptor = openSync(this.absolutePath(path), "r")
      try {
        fsyncSync(descriptor)
      } finally {
        closeSync(descriptor)
      }
    })
  }
}

class OpenFile implements DiskFile {
  readonly path: string
  private descriptor: number

  constructor(path: string, descriptor: number) {
    this.path = path
    this.descriptor = descriptor
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
    return attempt(this.path, () => {
      let done = 0
      while (done < target.length) {
        const count = readSync(descriptor, target, done, target.length - done, offset + done)
        if (count === 0) break
        done += count
      }
      return done
    })
  }

  write(bytes: Uint8Array, offset: number): void {
    const descriptor = this.open
    attempt(this.path, () => {
      let done = 0
      while (done < bytes.length) {
        done += writeSync(descriptor, bytes, done, bytes.length - done, offset + done)
      }
    })
  }

  sync(): void {
    const descriptor = this.open
    attempt(this.path, () => fdatasyncSync(descriptor))
  }

  close(): void {
    if (this.descriptor < 0) return
    const descriptor = this.descriptor
    this.descriptor = -1
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
    const code = errorCode(cause)
    if (code === undefined) throw cause
    throw new DiskError({ reason: reasons[code] ?? "io", path, cause })
  }
}
