import { expect, test } from "bun:test"
import { Effect } from "effect"
import { Meta, namespaceKey, nodeKey } from "../../src/admin/Meta.ts"
import type { ClientShape } from "../../src/client/Client.ts"
import { utf8 } from "../../src/lib/bytes.ts"

const node = (id: number) => ({
  ...{ id, incarnation: `i${id}`, peer: `h${id}:1`, client: `h${id}:2`, host: `h${id}` },
  state: "member",
})
const namespace = (name: string) => ({
  ...{ id: 7, name, mode: "strong", partitioning: "hash", ranges: 1, replicas: 3, state: "ready" },
})

/** Serves a page a record, and writes what `between` says before each. */
function paged(between: (pages: number, write: (key: string, value: object) => void) => void) {
  const records = new Map<string, { readonly value: Uint8Array; readonly version: number }>()
  let version = 0
  let pages = 0
  const write = (key: string, value: object) =>
    void records.set(key, { value: utf8(JSON.stringify(value)), version: ++version })
  const scanPage = (_: string, { cursor }: { cursor?: string }) =>
    Effect.sync(() => {
      between(pages++, write)
      const keys = [...records.keys()].sort()
      const at = cursor === undefined ? 0 : keys.findIndex((key) => key > cursor)
      const key = keys[at] as string
      const entry = { key: utf8(key), ...records.get(key) }
      return { entries: [entry], cursor: at + 1 < keys.length ? key : undefined }
    })
  return { meta: new Meta({ scanPage } as unknown as ClientShape), pages: () => pages }
}

test("a directory of several pages is read as it was at one moment", async () => {
  const { meta, pages } = paged((page, write) => {
    if (page === 0) for (const id of [1, 2]) write(nodeKey(id), node(id))
    // Behind the page that it would be in, and one that is still to come.
    if (page === 1) {
      write(namespaceKey("a"), namespace("a"))
      write(nodeKey(3), node(3))
    }
  })
  const { directory } = await Effect.runPromise(meta.read)
  expect(directory.namespaces.map(({ name }) => name)).toEqual(["a"])
  expect(directory.nodes.map(({ id }) => id)).toEqual([1, 2, 3])
  const read = pages()
  await Effect.runPromise(meta.read)
  // Nothing has changed: once is enough.
  expect(pages()).toBe(read + 4)
})

test("one that never stands still is given up, by name", async () => {
  const { meta } = paged((page, write) => {
    if (page === 0) write(nodeKey(2), node(2))
    write(nodeKey(1), node(1))
  })
  const error = await Effect.runPromise(Effect.flip(meta.read))
  expect(error.message).toContain("the directory, which changes all the time")
})
