/**
 * Arenas of one size, kept for the next memtable: a new one of 24 MiB costs milliseconds, because
 * it comes zeroed.
 */
export class ArenaPool {
  private readonly arenaBytes: number
  private readonly kept: Array<SharedArrayBuffer> = []
  private readonly keepCount: number

  constructor(options: { arenaBytes: number; keepCount: number; readyCount: number }) {
    this.arenaBytes = options.arenaBytes
    this.keepCount = options.keepCount
    for (let i = 0; i < options.readyCount; i++) {
      this.kept.push(new SharedArrayBuffer(options.arenaBytes))
    }
  }

  take(): SharedArrayBuffer {
    return this.kept.pop() ?? new SharedArrayBuffer(this.arenaBytes)
  }

  /** An arena that had to grow is not kept: the next one starts small again. */
  give(arena: SharedArrayBuffer): void {
    if (arena.byteLength === this.arenaBytes && this.kept.length < this.keepCount)
      this.kept.push(arena)
  }
}
