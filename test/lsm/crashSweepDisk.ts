import type { DiskFile } from "../../src/disk/disk.ts"
import type { Prng } from "../../src/lib/prng.ts"
import type { Inode } from "../sim/inode.ts"
import { SimulatedCrash, SimulatedDisk } from "../sim/simulatedDisk.ts"

/**
 * A disk that calls `atPoint` in front of every operation that changes it: where a crash may strike. One run of a workload so gives the state of
 * the disk at each prefix of its operations, to be cloned; a crash in the middle of an operation is the loss of some of what it left unsynced.
 */
export class RecordedDisk extends SimulatedDisk {
  atPoint: (() => void) | undefined
  private seen = -1

  /** Also to be called at the end, for the last operation. */
  point(): void {
    if (this.atPoint === undefined || this.operations === this.seen) return
    this.seen = this.operations
    this.atPoint()
  }

  override create(path: string): DiskFile {
    this.point()
    return super.create(path)
  }

  override makeDirectory(path: string): void {
    this.point()
    super.makeDirectory(path)
  }

  override rename(source: string, target: string): void {
    this.point()
    super.rename(source, target)
  }

  override link(source: string, target: string): void {
    this.point()
    super.link(source, target)
  }

  override remove(path: string): void {
    this.point()
    super.remove(path)
  }

  override syncDirectory(path: string): void {
    this.point()
    super.syncDirectory(path)
  }

  override writeInode(inode: Inode, path: string, bytes: Uint8Array, offset: number): void {
    this.point()
    super.writeInode(inode, path, bytes, offset)
  }

  override syncInode(inode: Inode): void {
    this.point()
    super.syncInode(inode)
  }
}

/** Ways in which a crash ends that are always tried; further ones are drawn. */
export const fixedLosses = 5

/** All unsynced is lost; all is kept; the process alone dies; writes are lost whole at random; the last one kept is torn. */
export function lose(disk: SimulatedDisk, prng: Prng, loss: number): void {
  if (loss === 0) disk.loseAllUnsynced()
  else if (loss === 1) disk.keepAll()
  else if (loss === 2) disk.kill()
  else if (loss === 3) disk.crash(prng, { tear: false })
  else disk.crash(prng, { tear: true })
}

/** Runs `body`; true when the simulated process died in it. */
export function dies(body: () => void): boolean {
  try {
    body()
    return false
  } catch (error) {
    if (error instanceof SimulatedCrash) return true
    throw error
  }
}
