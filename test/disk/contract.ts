import { expect, test } from "bun:test"
import type { Disk, DiskErrorReason } from "../../src/disk/disk.ts"
import { DiskError } from "../../src/disk/disk.ts"
import { text, utf8 } from "../../src/lib/bytes.ts"

/** What every `Disk` does, whatever lies below it. `make` gives an empty one. */
export function diskContract(name: string, make: () => Disk): void {
  const refusal = (call: () => unknown): DiskErrorReason => {
    try {
      call()
    } catch (error) {
      if (error instanceof DiskError) return error.reason
      throw error
    }
    throw new Error("not refused")
  }

  test(`${name}: bytes are read where they were written`, () => {
    const file = make().create("a")
    file.write(utf8("hello"), 0)
    file.write(utf8("J"), 0)
    file.write(utf8("!"), 5)
    const target = new Uint8Array(6)
    expect(file.read(target, 0)).toBe(6)
    expect(text(target)).toBe("Jello!")
    expect(file.sizeBytes).toBe(6)
    expect(file.path).toBe("a")
    file.close()
  })

  test(`${name}: a read stops at the end of the file and leaves the rest of its target alone`, () => {
    const file = make().create("a")
    file.write(utf8("abc"), 0)
    const target = new Uint8Array(5).fill(7)
    expect(file.read(target, 1)).toBe(2)
    expect([...target]).toEqual([98, 99, 7, 7, 7])
    expect(file.read(target, 3)).toBe(0)
    expect(file.read(target, 30)).toBe(0)
    expect(file.read(new Uint8Array(0), 0)).toBe(0)
    file.close()
  })

  test(`${name}: a write past the end fills the gap with zeros`, () => {
    const file = make().create("a")
    file.write(utf8("a"), 0)
    file.write(utf8("b"), 5_000)
    const target = new Uint8Array(5_001).fill(9)
    expect(file.read(target, 0)).toBe(5_001)
    expect(target[0]).toBe(97)
    expect(target.subarray(1, 5_000).every((byte) => byte === 0)).toBe(true)
    file.close()
  })

  test(`${name}: a subarray is written, not the buffer below it`, () => {
    const file = make().create("a")
    file.write(utf8("abcdef").subarray(2, 4), 0)
    const target = new Uint8Array(10)
    expect(file.read(target.subarray(4, 8), 0)).toBe(2)
    expect([...target]).toEqual([0, 0, 0, 0, 99, 100, 0, 0, 0, 0])
    file.close()
  })

  test(`${name}: two handles of one file see each other's writes`, () => {
    const disk = make()
    const first = disk.create("a")
    const second = disk.open("a")
    first.write(utf8("one"), 0)
    const target = new Uint8Array(3)
    expect(second.read(target, 0)).toBe(3)
    expect(text(target)).toBe("one")
    first.close()
    second.sync()
    second.close()
  })

  test(`${name}: errors say whether a file is missing or in the way`, () => {
    const disk = make()
    expect(refusal(() => disk.open("a"))).toBe("not-found")
    expect(refusal(() => disk.remove("a"))).toBe("not-found")
    expect(refusal(() => disk.rename("a", "b"))).toBe("not-found")
    expect(refusal(() => disk.create("d/a"))).toBe("not-found")
    expect(refusal(() => disk.syncDirectory("d"))).toBe("not-found")
    disk.create("a").close()
    expect(refusal(() => disk.create("a"))).toBe("exists")
    expect(refusal(() => disk.makeDirectory("a"))).toBe("exists")
    expect(refusal(() => disk.open("a/b"))).toBe("not-found")
  })

  test(`${name}: folders list their names in order, and a missing folder is empty`, () => {
    const disk = make()
    expect(disk.list("d")).toEqual([])
    expect(disk.exists("d")).toBe(false)
    disk.makeDirectory("d")
    disk.makeDirectory("d")
    expect(disk.exists("d")).toBe(true)
    for (const file of ["d/b", "d/a", "d/C", "d/10", "d/9"]) disk.create(file).close()
    expect(disk.list("d")).toEqual(["10", "9", "C", "a", "b"])
    expect(disk.exists("d/a")).toBe(true)
    expect(disk.exists("d/x")).toBe(false)
    expect(disk.exists("x/a")).toBe(false)
    disk.remove("d/b")
    expect(disk.list("d")).toEqual(["10", "9", "C", "a"])
    disk.syncDirectory("d")
    disk.syncDirectory("")
  })

  test(`${name}: a rename replaces its target, and open handles follow the file`, () => {
    const disk = make()
    const next = disk.create("next")
    next.write(utf8("new"), 0)
    disk.create("current").close()
    disk.rename("next", "current")
    expect(disk.list("")).toEqual(["current"])
    next.write(utf8("N"), 0)
    const target = new Uint8Array(3)
    const file = disk.open("current")
    expect(file.read(target, 0)).toBe(3)
    expect(text(target)).toBe("New")
    file.close()
    next.close()
  })

  test(`${name}: a removed file stays readable through its open handle`, () => {
    const disk = make()
    const file = disk.create("a")
    file.write(utf8("x"), 0)
    disk.remove("a")
    expect(disk.exists("a")).toBe(false)
    expect(file.read(new Uint8Array(1), 0)).toBe(1)
    file.close()
  })

  test(`${name}: a link is a second name of one file, which goes with its last name`, () => {
    const disk = make()
    disk.makeDirectory("d")
    const file = disk.create("a")
    file.write(utf8("x"), 0)
    disk.link("a", "d/b")
    file.write(utf8("y"), 1)
    file.close()
    disk.remove("a")
    expect(disk.list("")).toEqual(["d"])
    const other = disk.open("d/b")
    const target = new Uint8Array(2)
    expect(other.read(target, 0)).toBe(2)
    expect(text(target)).toBe("xy")
    other.close()
    expect(refusal(() => disk.link("a", "c"))).toBe("not-found")
    expect(refusal(() => disk.link("d/b", "x/c"))).toBe("not-found")
    disk.create("c").close()
    expect(refusal(() => disk.link("d/b", "c"))).toBe("exists")
  })

  test(`${name}: free space is a number of bytes, or not known`, () => {
    const freeBytes = make().freeBytes()
    if (freeBytes === undefined) return
    expect(freeBytes).toBeGreaterThanOrEqual(0)
    expect(Number.isSafeInteger(freeBytes)).toBe(true)
  })

  test(`${name}: a closed file refuses everything but being closed again`, () => {
    const file = make().create("a")
    file.close()
    file.close()
    expect(() => file.read(new Uint8Array(1), 0)).toThrow("is open")
    expect(() => file.write(new Uint8Array(1), 0)).toThrow("is open")
    expect(() => file.sync()).toThrow("is open")
  })
}
