import { describe, expect, test } from "bun:test"
import { DiskScore, type DiskVerdict } from "../../src/server/diskScore.ts"

const limits = {
  stallMs: 1000,
  slowMs: 250,
  slowForMs: 2000,
  recoverMs: 10_000,
  recoverMsMax: 40_000,
}

/** A disk whose writes follow each other, looked at every 30 ms as ticks do. */
class Disk {
  readonly score = new DiskScore(limits)
  nowMs = 0
  /** Verdicts and when they began. */
  readonly verdicts: Array<readonly [DiskVerdict, number]> = []

  private look(): void {
    const verdict = this.score.verdict(this.nowMs)
    if (verdict !== this.verdicts.at(-1)?.[0]) this.verdicts.push([verdict, this.nowMs])
  }

  /** Writes that take so long each, for so long. */
  write(latencyMs: number, forMs: number): void {
    for (const end = this.nowMs + forMs; this.nowMs < end; ) {
      this.score.began(this.nowMs)
      const done = this.nowMs + latencyMs
      while (this.nowMs + 30 < done) {
        this.nowMs += 30
        this.look()
      }
      this.nowMs = done
      this.score.ended(this.nowMs)
      this.look()
    }
  }

  rest(forMs: number): void {
    for (const end = this.nowMs + forMs; this.nowMs < end; this.nowMs += 30) this.look()
  }

  get names(): ReadonlyArray<DiskVerdict> {
    return this.verdicts.map(([name]) => name)
  }
}

describe("the score of a disk", () => {
  test("usual writes, and now and then one that takes half a second, are good", () => {
    const disk = new Disk()
    for (let i = 0; i < 20; i++) {
      disk.write(5, 2000)
      disk.write(500, 500)
    }
    expect(disk.names).toEqual(["good"])
  })

  test("a disk that stands still hangs after the limit, while the write is still under way", () => {
    const disk = new Disk()
    disk.write(3, 1000)
    const beganMs = disk.nowMs
    disk.score.began(disk.nowMs)
    disk.rest(3000)
    expect(disk.names).toEqual(["good", "hangs"])
    const [, atMs] = disk.verdicts[1] as readonly [DiskVerdict, number]
    expect(atMs - beganMs).toBeGreaterThan(limits.stallMs)
    expect(atMs - beganMs).toBeLessThanOrEqual(limits.stallMs + 60)
  })

  test("pitfall 34: a slow disk is slow within five seconds, and comes back slowly", () => {
    const disk = new Disk()
    disk.write(3, 1000)
    const badSpells: Array<number> = []
    const waits: Array<number> = []
    for (let spell = 0; spell < 4; spell++) {
      const beganMs = disk.nowMs
      disk.write(400, 5000)
      expect(disk.names.at(-1)).toBe("slow")
      badSpells.push((disk.verdicts.at(-1)?.[1] as number) - beganMs)
      const betterMs = disk.nowMs
      disk.write(3, 60_000)
      expect(disk.names.at(-1)).toBe("good")
      waits.push((disk.verdicts.at(-1)?.[1] as number) - betterMs)
    }
    for (const spell of badSpells) expect(spell).toBeLessThan(5000)
    for (const wait of waits) expect(wait).toBeGreaterThan(9000)
    expect(disk.names.filter((name) => name === "wary").length).toBeGreaterThanOrEqual(4)
  })

  test("a relapse doubles the wait, a long good time ends that", () => {
    const disk = new Disk()
    const waitAfter = (goodMs: number): number => {
      disk.write(400, 5000)
      const betterMs = disk.nowMs
      disk.write(3, goodMs)
      const good = disk.verdicts.findLast(([name]) => name === "good")?.[1] as number
      return Math.round((good - betterMs) / 1000)
    }
    expect(waitAfter(11_000)).toBe(10)
    expect(waitAfter(21_000)).toBe(20)
    expect(waitAfter(41_000)).toBe(40)
    expect(waitAfter(200_000)).toBe(40)
    expect(waitAfter(11_000)).toBe(10)
  })
})
