import { describe, expect, test } from "bun:test"
import { DiskSpace, reservePath } from "../../src/server/diskSpace.ts"
import { defaultSettings } from "../../src/server/settings.ts"
import { SimulatedDisk } from "../sim/simulatedDisk.ts"
import { LoopNode } from "./loopNode.ts"

const settings = { reserveBytes: 100, lowFreeBytes: 20 }

describe("the space of a disk", () => {
  test("the reserve is made at first, where there is room for it", () => {
    const space = new DiskSpace(settings, false)
    expect(space.step(0, 1000)).toBe("makeReserve")
    expect(space.isDue(10_000)).toBe(false)
    space.reserveMade(true)
    expect(space.state).toBe("ok")
    expect(space.isDue(499)).toBe(false)
    expect(space.isDue(500)).toBe(true)
    expect(space.step(500, 1000)).toBe("none")
  })

  test("few free bytes are a full disk before a write has failed: the reserve goes back at once", () => {
    const space = new DiskSpace(settings, true)
    expect(space.step(0, 19)).toBe("releaseReserve")
    expect(space.state).toBe("full")
  })

  test("a failed job gives the reserve back without waiting, and puts are taken again once it could be made", () => {
    const space = new DiskSpace(settings, true)
    space.step(0, 1000)
    space.failed()
    expect(space.state).toBe("full")
    expect(space.isDue(1)).toBe(true)
    expect(space.step(1, 50)).toBe("releaseReserve")
    space.reserveReleased()
    // The reserve itself is free now: that is not enough.
    expect(space.step(600, 139)).toBe("none")
    expect(space.state).toBe("full")
    expect(space.step(1200, 140)).toBe("makeReserve")
    expect(space.state).toBe("full")
    space.reserveMade(false)
    expect(space.state).toBe("full")
    expect(space.step(1800, undefined)).toBe("makeReserve")
    space.reserveMade(true)
    expect(space.state).toBe("ok")
  })

  test("without a reserve free bytes decide", () => {
    const space = new DiskSpace({ reserveBytes: 0, lowFreeBytes: 20 }, false)
    expect(space.step(0, 10)).toBe("none")
    expect(space.state).toBe("full")
    space.step(500, 39)
    expect(space.state).toBe("full")
    space.step(1000, 40)
    expect(space.state).toBe("ok")
  })
})

test("a reserve that a crash left unfinished is made anew, and a whole one is kept", () => {
  const settings = { ...defaultSettings, space: { reserveBytes: 4096, lowFreeBytes: 0 } }
  for (const leftBytes of [100, 4096]) {
    const disk = new SimulatedDisk()
    const file = disk.create(reservePath)
    file.write(new Uint8Array(leftBytes), 0)
    file.close()
    const node = new LoopNode({ disk, settings })
    expect(disk.exists(reservePath)).toBe(leftBytes === 4096)
    node.untilLeader()
    const made = disk.open(reservePath)
    expect(made.sizeBytes).toBe(4096)
    made.close()
  }
})
