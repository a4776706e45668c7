import type { Disk, DiskFile } from "../disk/disk.ts"

/**
 * A disk on which nothing changes: reads go to the disk below, and everything that would change something does nothing and
 * says that it did. So the code that recovers can be run for its verdict alone. It must not read back what it has written.
 */
export class DryDisk implements Disk {
  private readonly disk: Disk

  constructor(disk: Disk) {
    this.disk = disk
  }

  open(path: string): DiskFile {
    const file = this.disk.open(path)
    return {
      path,
      get sizeBytes() {
        return file.sizeBytes
      },
      read: (target, offset) => file.read(target, offset),
      write: () => {},
      sync: () => {},
      close: () => file.close(),
    }
  }

  create(path: string): DiskFile {
    return { path, sizeBytes: 0, read: () => 0, write: () => {}, sync: () => {}, close: () => {} }
  }

  exists(path: string): boolean {
    return this.disk.exists(path)
  }

  list(directory: string): ReadonlyArray<string> {
    return this.disk.list(directory)
  }

  makeDirectory(): void {}
  rename(): void {}
  link(): void {}
  remove(): void {}
  syncDirectory(): void {}

  freeBytes(): number | undefined {
    return this.disk.freeBytes()
  }
}
