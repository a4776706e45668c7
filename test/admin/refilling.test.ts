import { expect, test } from "bun:test"
import { readdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { Effect, Exit } from "effect"
import { founded, until, withNodes } from "./nodes.ts"

const contentOf = (i: number) => `what-is-damaged-${i}`

/** Flips a bit of what was written in the middle. Returns whether it was there. */
function damageJournal(directory: string, value: string): boolean {
  for (const name of readdirSync(directory)) {
    const path = join(directory, name)
    const bytes = readFileSync(path)
    const at = bytes.indexOf(value)
    if (at < 0) continue
    bytes[at] ^= 1
    writeFileSync(path, bytes)
    return true
  }
  return false
}

test("a node that starts over damage to its eventual half is refilled, once the meta group has made a fence", async () => {
  await withNodes(3, async (nodes) => {
    await founded(nodes)
    const client = await nodes.client()
    // Founded a moment ago, they may have yet to hear of each other.
    await until("a write reaches all owners", async () => {
      const first = client.eventual.put("eventual", "first", "", { consistency: "all" })
      return Exit.isSuccess(await Effect.runPromiseExit(first))
    })
    for (let i = 0; i < 30; i++) {
      const bytes = new TextEncoder().encode(contentOf(i))
      await Effect.runPromise(
        client.eventual.put("eventual", `key-${i}`, bytes, { consistency: "all" }),
      )
    }
    await nodes.stop("n1")
    expect(damageJournal(join(nodes.directory("n1"), "journal"), contentOf(15))).toBe(true)
    await nodes.start(1)
    const refilling = () => nodes.node("n1").store.status().eventual.refilling
    expect(refilling().slots).toBe(16_384)
    await until("it is whole", () => refilling().slots === 0)
    const internal = await nodes.client(true)
    await until("the meta group has no more to do with it", async () => {
      const found = await Effect.runPromise(internal.get("system", "ring-lost/1"))
      return !found.found
    })
    await nodes.stop("n2")
    for (let i = 0; i < 30; i++) {
      const found = await Effect.runPromise(
        client.eventual.get("eventual", `key-${i}`, { consistency: "quorum" }),
      )
      expect(found.siblings.map((value) => new TextDecoder().decode(value))).toEqual([contentOf(i)])
    }
  })
}, 60_000)
