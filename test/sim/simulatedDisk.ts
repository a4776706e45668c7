import type { Disk, DiskFile } from "../../src/disk/disk.ts"
import { DiskError } from "../../src/disk/disk.ts"
import { assert } from "../../src/lib/assert.ts"
import type { Prng } from "../../src/lib/prng.ts"
import { Inode, keptIndexes } from "./inode.ts"

/**
 * A disk in memory that forgets what a real one may forget.
 *
 * - *Bytes.* A file keeps the list of writes since its last `sync`. A power loss keeps any subset of them: none, all, a prefix,
 *   or an arbitrary choice; the last one kept may be torn at any byte, or keep only some of its 512-byte sectors.
 * - *Names.* A folder keeps the list of creations, links, renames and removals since its last `syncDirectory`, and a power loss
 *   keeps any subset of that list, in order: none, all, a prefix, or an arbitrary choice. (Journalled file systems keep a prefix;
 *   POSIX does not promise it, and who relies on it forgets a sync.) A folder's own name is an entry of its parent (the root is
 *   ""), so what lies in a folder whose name was never synced is lost with it. Syncing a file does not make its name durable.
 * - A *kill* (`kill`) ends the process only: nothing is lost, but nothing became durable either.
 *
 * After any of these every open handle is dead and the disk is ready for a new process.
 *
 * Unsynced writes are kept as what they overwrote. Undone from the last to the first, each shows its own bytes just before it is
 * taken back, so that no write is stored twice.
 */
export class SimulatedDisk implements Disk {
  /** Mutating operations so far: create, write, sync, rename, link, remove, syncDirectory, makeDirectory. */
  operations = 0
  /** Bytes of all files that have a name. */
  usedBytes = 0
  /** A write that would pass it writes what fits and throws "no-space". May be changed: others fill and free a disk too. */
  capacityBytes: number
  private root = new Folder()
  private readonly folders = new Map<string, Folder>()
  /** By path: what looking it up has shown. */
  private readonly places = new Map<string, Place>()
  /** Files with writes not yet synced. */
  private readonly dirty = new Set<Inode>()
  private crashAt = Number.POSITIVE_INFINITY
  private dead = false
  /** Handles of an earlier process carry an older number. */
  private process = 0

  constructor(options: { capacityBytes?: number } = {}) {
    this.capacityBytes = options.capacityBytes ?? Number.POSITIVE_INFINITY
  }

  /**
   * The mutating operation with this number (`operations` right after it) throws `SimulatedCrash`, and so does every call after
   * it until `crash`, `kill`, `loseAllUnsynced` or `keepAll`. It has taken effect as far as an unsynced operation does; a `sync`
   * that is hit has synced nothing.
   */
  crashAfter(operations: number | undefined): void {
    this.crashAt = operations ?? Number.POSITIVE_INFINITY
    assert(this.crashAt > this.operations, `operation ${operations} lies ahead`)
  }

  /** Power loss. `tear` false keeps or drops writes whole. */
  crash(prng: Prng, options: { tear?: boolean } = {}): void {
    for (const inode of this.dirty) inode.forgetSome(prng, options.tear ?? true)
    this.endProcess((changes) => keptIndexes(prng, changes.length).map((i) => changes[i]))
  }

  /** The power loss in which nothing survives that was not synced. */
  loseAllUnsynced(): void {
    for (const inode of this.dirty) inode.undoAll()
    this.endProcess(() => [])
  }

  /** The power loss that happens to lose nothing. All is durable afterwards. */
  keepAll(): void {
    for (const inode of this.dirty) inode.unsynced.length = 0
    this.endProcess((changes) => changes)
  }

  /** The process dies, the machine does not: all is still readable, nothing more is durable than was. */
  kill(): void {
    this.process++
    this.dead = false
    this.crashAt = Number.POSITIVE_INFINITY
  }

  private endProcess(keep: KeepChanges): void {
    this.kill()
    this.dirty.clear()
    this.folders.clear()
    this.places.clear()
    this.usedBytes = 0
    this.settle(this.root, keep, new Set())
  }

  private settle(folder: Folder, keep: KeepChanges, seen: Set<Inode>): void {
    for (const change of keep(folder.pending)) applyChange(folder.durable, change)
    folder.names = new Map(folder.durable)
    folder.pending.length = 0
    for (const node of folder.names.values()) {
      if (node instanceof Folder) this.settle(node, keep, seen)
      else if (seen.has(node)) node.names++
      else {
        seen.add(node)
        node.names = 1
        this.usedBytes += node.size
      }
    }
  }

  /** An independent disk in the same state, unsynced writes included, without open handles. */
  clone(): SimulatedDisk {
    const copy = new SimulatedDisk({ capacityBytes: this.capacityBytes })
    const inodes = new Map<Inode, Inode>()
    const copyNode = (node: Node): Node => {
      if (node instanceof Folder) return copyFolder(node)
      let inode = inodes.get(node)
      if (inode === undefined) {
        inode = node.clone()
        inodes.set(node, inode)
        if (this.dirty.has(node)) copy.dirty.add(inode)
      }
      return inode
    }
    const copied = new Map<Folder, Folder>()
    const copyFolder = (folder: Folder): Folder => {
      const known = copied.get(folder)
      if (known !== undefined) return known
      const result = new Folder()
      copied.set(folder, result)
      for (const [name, node] of folder.names) result.names.set(name, copyNode(node))
      for (const [name, node] of folder.durable) result.durable.set(name, copyNode(node))
      for (const change of folder.pending) {
        result.pending.push({ ...change, node: change.node && copyNode(change.node) })
      }
      return result
    }
    copy.root = copyFolder(this.root)
    copy.operations = this.operations
    copy.usedBytes = this.usedBytes
    return copy
  }

  /** Flips bits of one stored byte, as a failing medium does: reads and restarts see it. */
  corrupt(path: string, offset: number, xor: number): void {
    const inode = this.inode(path)
    assert(offset >= 0 && offset < inode.size, `offset ${offset} lies inside ${path}`)
    inode.buffer[offset] = (inode.buffer[offset] as number) ^ xor
  }

  /** Paths of all files, for whoever damages them. */
  files(directory = ""): ReadonlyArray<string> {
    const folder = this.folder(directory)
    return [...(folder?.names ?? [])].flatMap(([name, node]) => {
      const path = directory === "" ? name : `${directory}/${name}`
      return node instanceof Folder ? this.files(path) : [path]
    })
  }

  sizeOf(path: string): number {
    return this.inode(path).size
  }

  /** Whether every byte written to the file, and its name, would survive a power loss now. */
  isDurable(path: string): boolean {
    const { folder, name } = this.locate(path)
    const node = folder.names.get(name)
    return node instanceof Inode && node.unsynced.length === 0 && folder.durable.get(name) === node
  }

  open(path: string): DiskFile {
    this.alive()
    return new SimulatedFile(this, path, this.inode(path), this.process)
  }

  create(path: string): DiskFile {
    this.alive()
    const { folder, name } = this.locate(path)
    if (folder.names.has(name)) throw new DiskError({ reason: "exists", path })
    const inode = new Inode()
    inode.names = 1
    this.change(folder, { name, node: inode, from: undefined })
    return new SimulatedFile(this, path, inode, this.process)
  }

  exists(path: string): boolean {
    this.alive()
    const normal = normalPath(path)
    if (normal === "") return true
    const { folder, name } = this.locate(normal, true) ?? {}
    return folder !== undefined && name !== undefined && folder.names.has(name)
  }

  list(directory: string): ReadonlyArray<string> {
    this.alive()
    const folder = this.folder(normalPath(directory))
    return folder === undefined ? [] : [...folder.names.keys()].sort()
  }

  makeDirectory(path: string): void {
    this.alive()
    const { folder, name } = this.locate(path)
    if (folder.names.get(name) instanceof Folder) return
    if (folder.names.has(name)) throw new DiskError({ reason: "exists", path })
    this.change(folder, { name, node: new Folder(), from: undefined })
  }

  rename(source: string, target: string): void {
    this.alive()
    const from = this.locate(source)
    const to = this.locate(target)
    assert(from.folder === to.folder, `a rename stays in its folder: ${source} to ${target}`)
    const node = from.folder.names.get(from.name)
    if (!(node instanceof Inode)) throw new DiskError({ reason: "not-found", path: source })
    const replaced = to.folder.names.get(to.name)
    // As POSIX has it: a rename over another name of the same file does nothing.
    if (replaced === node) return
    if (replaced instanceof Inode) this.usedBytes -= replaced.unlink()
    this.change(to.folder, { name: to.name, node, from: from.name })
  }

  link(source: string, target: string): void {
    this.alive()
    const inode = this.inode(source)
    const { folder, name } = this.locate(target)
    if (folder.names.has(name)) throw new DiskError({ reason: "exists", path: target })
    inode.names++
    this.change(folder, { name, node: inode, from: undefined })
  }

  freeBytes(): number | undefined {
    this.alive()
    if (this.capacityBytes === Number.POSITIVE_INFINITY) return undefined
    return Math.max(0, this.capacityBytes - this.usedBytes)
  }

  remove(path: string): void {
    this.alive()
    const { folder, name } = this.locate(path)
    const node = folder.names.get(name)
    if (!(node instanceof Inode)) throw new DiskError({ reason: "not-found", path })
    this.usedBytes -= node.unlink()
    this.change(folder, { name, node: undefined, from: undefined })
  }

  syncDirectory(path: string): void {
    this.alive()
    const folder = this.folder(normalPath(path))
    if (folder === undefined) throw new DiskError({ reason: "not-found", path })
    this.count()
    for (const change of folder.pending) applyChange(folder.durable, change)
    folder.pending.length = 0
  }

  private change(folder: Folder, change: NameChange): void {
    applyChange(folder.names, change)
    folder.pending.push(change)
    this.count()
  }

  /** Counts a mutating operation, which is where a crash asked for by number strikes. */
  private count(): void {
    this.operations++
    if (this.operations < this.crashAt) return
    this.dead = true
    throw new SimulatedCrash()
  }

  private alive(): void {
    if (this.dead) throw new SimulatedCrash()
  }

  private folder(path: string): Folder | undefined {
    if (path === "") return this.root
    const known = this.folders.get(path)
    if (known !== undefined) return known
    let folder: Folder = this.root
    for (const part of path.split("/")) {
      const next = folder.names.get(part)
      if (!(next instanceof Folder)) return undefined
      folder = next
    }
    this.folders.set(path, folder)
    return folder
  }

  private locate(path: string): Place
  private locate(path: string, optional: true): Place | undefined
  private locate(path: string, optional?: true): Place | undefined {
    const known = this.places.get(path)
    if (known !== undefined) return known
    const normal = normalPath(path)
    const slash = normal.lastIndexOf("/")
    const folder = this.folder(slash < 0 ? "" : normal.slice(0, slash))
    if (folder !== undefined) {
      const place = { folder, name: normal.slice(slash + 1) }
      this.places.set(path, place)
      return place
    }
    if (optional) return undefined
    throw new DiskError({ reason: "not-found", path })
  }

  private inode(path: string): Inode {
    const { folder, name } = this.locate(path)
    const node = folder.names.get(name)
    if (!(node instanceof Inode)) throw new DiskError({ reason: "not-found", path })
    return node
  }

  /** For `SimulatedFile` only. */
  checkHandle(process: number, path: string): void {
    this.alive()
    assert(process === this.process, `handle of a dead process: ${path}`)
  }

  /** For `SimulatedFile` only. */
  writeInode(inode: Inode, path: string, bytes: Uint8Array, offset: number): void {
    const growth = inode.names > 0 ? Math.max(0, offset + bytes.length - inode.size) : 0
    const freeBytes = Math.max(0, this.capacityBytes - this.usedBytes)
    const fitting = growth > freeBytes ? bytes.length - (growth - freeBytes) : bytes.length
    if (fitting > 0 || bytes.length === 0) {
      this.usedBytes += Math.min(growth, freeBytes)
      inode.write(fitting < bytes.length ? bytes.subarray(0, fitting) : bytes, offset)
      this.dirty.add(inode)
      this.count()
    }
    if (fitting < bytes.length) throw new DiskError({ reason: "no-space", path })
  }

  /** For `SimulatedFile` only. */
  syncInode(inode: Inode): void {
    this.count()
    inode.unsynced.length = 0
    this.dirty.delete(inode)
  }
}

/** The process that used the disk is gone. Thrown by the operation that the crash struck, and by all after it. */
export class SimulatedCrash extends Error {
  override readonly name = "SimulatedCrash"
}

interface Place {
  readonly folder: Folder
  readonly name: string
}

type Node = Inode | Folder

/** `name` becomes `node`, or goes when that is undefined; in the same step the name `from` goes (a rename). */
interface NameChange {
  readonly name: string
  readonly node: Node | undefined
  readonly from: string | undefined
}

/** Which of a folder's unsynced changes a power loss keeps. */
type KeepChanges = (changes: ReadonlyArray<NameChange>) => ReadonlyArray<NameChange>

function applyChange(names: Map<string, Node>, change: NameChange): void {
  if (change.from !== undefined) names.delete(change.from)
  if (change.node === undefined) names.delete(change.name)
  else names.set(change.name, change.node)
}

function normalPath(path: string): string {
  return path === "." ? "" : path
}

class Folder {
  names = new Map<string, Node>()
  readonly durable = new Map<string, Node>()
  readonly pending: Array<NameChange> = []
}

class SimulatedFile implements DiskFile {
  readonly path: string
  private readonly disk: SimulatedDisk
  private readonly inode: Inode
  private readonly process: number
  private closed = false

  constructor(disk: SimulatedDisk, path: string, inode: Inode, process: number) {
    this.disk = disk
    this.path = path
    this.inode = inode
    this.process = process
  }

  private usable(): void {
    assert(!this.closed, `${this.path} is open`)
    this.disk.checkHandle(this.process, this.path)
  }

  get sizeBytes(): number {
    this.usable()
    return this.inode.size
  }

  read(target: Uint8Array, offset: number): number {
    this.usable()
    const count = Math.min(target.length, Math.max(0, this.inode.size - offset))
    const { buffer } = this.inode
    // Of most reads a loop over the bytes costs less than a view of them.
    if (count <= 64) for (let i = 0; i < count; i++) target[i] = buffer[offset + i] as number
    else
      target.set(
        offset === 0 && count === buffer.length ? buffer : buffer.subarray(offset, offset + count),
      )
    return count
  }

  write(bytes: Uint8Array, offset: number): void {
    this.usable()
    this.disk.writeInode(this.inode, this.path, bytes, offset)
  }

  sync(): void {
    this.usable()
    this.disk.syncInode(this.inode)
  }

  close(): void {
    this.closed = true
  }
}
