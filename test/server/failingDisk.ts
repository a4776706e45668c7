import { DiskError } from "../../src/disk/disk.ts"
import type { Inode } from "../sim/inode.ts"
import { SimulatedDisk } from "../sim/simulatedDisk.ts"

/**
 * A simulated disk one of whose syncs fails, once, as kernels do it (Rebello et al., ATC 2020): the pages that were to be written are marked clean all the
 * same, so that a later sync of them succeeds and makes nothing durable.
 */
export class FailingDisk extends SimulatedDisk {
  /** Path of every file or folder that was to be synced, in order; folders with a `/` at the end. */
  readonly synced: Array<string> = []
  /** Which of them fails. */
  failAt = Number.POSITIVE_INFINITY
  private readonly paths = new WeakMap<Inode, string>()
  private readonly lostFiles = new WeakSet<Inode>()
  private readonly lostFolders = new Set<string>()

  override writeInode(inode: Inode, path: string, bytes: Uint8Array, offset: number): void {
    this.paths.set(inode, path)
    super.writeInode(inode, path, bytes, offset)
  }

  override syncInode(inode: Inode): void {
    const path = this.paths.get(inode) ?? "?"
    if (this.fails(path)) {
      this.lostFiles.add(inode)
      throw new DiskError({ reason: "io", path })
    }
    if (!this.lostFiles.has(inode)) super.syncInode(inode)
  }

  override syncDirectory(path: string): void {
    if (this.fails(`${path}/`)) {
      this.lostFolders.add(path)
      throw new DiskError({ reason: "io", path })
    }
    if (!this.lostFolders.has(path)) super.syncDirectory(path)
  }

  private fails(path: string): boolean {
    this.synced.push(path)
    return this.synced.length - 1 === this.failAt
  }
}

/** What kind of sync it is that a path stands for. */
export function kindOf(path: string): string {
  if (path.endsWith("/")) return "folder"
  if (path.endsWith(".log.new")) return "segment"
  if (path.endsWith(".log")) return "journal"
  if (path.endsWith(".table")) return "table"
  if (path.endsWith(".manifest")) return "manifest"
  return path.includes("CURRENT") ? "current" : path
}
