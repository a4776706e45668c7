import {
  closeSync,
  existsSync,
  fstatSync,
  openSync,
  readdirSync,
  readSync,
  statfsSync,
} from "node:fs"
import { join } from "node:path"
import { type Disk, DiskError, type DiskFile } from "../disk/disk.ts"

/**
 * The real disk for those who only look: files are opened for reading alone, so that a copy without write permission or on a read-only
 * file system can be examined, and every call that would change something throws.
 */
export class ReadOnlyDisk implements Disk {
  private readonly root: string

  constructor(root: string) {
    this.root = root
  }

  open(path: string): DiskFile {
    const descriptor = attempt(path, () => openSync(join(this.root, path), "r"))
    return new ReadOnlyFile(path, descriptor)
  }

  exists(path: string): boolean {
    return existsSync(join(this.root, path))
  }

  list(directory: string): ReadonlyArray<string> {
    const path = join(this.root, directory)
    return existsSync(path) ? attempt(directory, () => readdirSync(path).sort()) : []
  }

  freeBytes(): number | undefined {
    const { bavail, bsize } = statfsSync(this.root)
    return bavail * bsize
  }

  create(path: string): never {
    return refuse(path)
  }
  makeDirectory(path: string): never {
    return refuse(path)
  }
  rename(source: string): never {
    return refuse(source)
  }
  link(source: string): never {
    return refuse(source)
  }
  remove(path: string): never {
    return refuse(path)
  }
  syncDirectory(path: string): never {
    return refuse(path)
  }
}

class ReadOnlyFile implements DiskFile {
  readonly path: string
  private descriptor: number

  constructor(path: string, descriptor: number) {
    this.path = path
    this.descriptor = descriptor
  }

  get sizeBytes(): number {
    return attempt(this.path, () => fstatSync(this.descriptor).size)
  }

  read(target: Uint8Array, offset: number): number {
    return attempt(this.path, () => {
      let done = 0
      while (done < target.length) {
        const left = target.length - done
        const count = readSync(this.descriptor, target, done, left, offset + done)
        if (count === 0) break
        done += count
      }
      return done
    })
  }

  write(): never {
    return refuse(this.path)
  }

  sync(): never {
    return refuse(this.path)
  }

  close(): void {
    if (this.descriptor >= 0) closeSync(this.descriptor)
    this.descriptor = -1
  }
}

function refuse(path: string): never {
  throw new DiskError({ reason: "io", path, cause: "opened for reading only" })
}

function attempt<A>(path: string, call: () => A): A {
  try {
    return call()
  } catch (cause) {
    const reason = (cause as { code?: string }).code === "ENOENT" ? "not-found" : "io"
    throw new DiskError({ reason, path, cause })
  }
}
