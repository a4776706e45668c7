import { expect, test } from "bun:test"
import { NodeSet, temporaryFolder, until } from "./Cluster.ts"
import { kvorum } from "./Command.ts"
import { EventualLoad } from "./EventualLoad.ts"
import { Load } from "./Load.ts"

interface Row {
  readonly id: number
  readonly namespace: string | null
  readonly leader: string | null
  readonly replicas: ReadonlyArray<string>
}

/**
 * As many writers as the machine can serve, while everything that can change changes: ranges split, merge, move and change leaders, nodes join, are killed and come
 * back, are drained, replaced and removed, and the ring of the eventual namespaces follows. Nobody may be told of an error, what the registers showed must be linearizable, and every acknowledged key must be there in the end.
 */
test("splits, merges, moves, joins, drains, replacements and kills under the highest load: no error, a linearizable history, nothing lost", async () => {
  const folder = temporaryFolder()
  const nodes = new NodeSet({ nodes: 3, directory: folder.path, more: 4 })
  nodes.startAll()
  const endpoints = nodes.endpoints.split(",")
  const load = new Load({ endpoints, writers: 32, seed: 6, deadlineMs: 60_000 })
  const eventual = new EventualLoad(endpoints)
  const run = async (...words: ReadonlyArray<string>) => {
    const { code, stdout, stderr } = await kvorum([...words, "--endpoints", nodes.endpoints])
    expect([words.join(" "), code, code === 0 ? "" : stderr]).toEqual([words.join(" "), 0, ""])
    return stdout.trim()
  }
  const ranges = async () =>
    (JSON.parse(await run("ranges", "--json")).ranges as ReadonlyArray<Row>).filter(
      ({ namespace }) => namespace === "default",
    )
  const changed = { splits: 0, merges: 0, moves: 0 }
  /** Two splits, a move of each half's replica where there is room, a merge back. */
  const reshuffle = async (spare: string) => {
    for (const { id } of (await ranges()).slice(0, 2)) {
      await run("range", "split", `${id}`)
      changed.splits++
    }
    const [first, second] = await ranges()
    for (const row of [first, second]) {
      const from = row?.replicas.find((name) => name !== row.leader)
      if (row === undefined || from === undefined || row.replicas.includes(spare)) continue
      await run("range", "move", `${row.id}`, from, spare)
      changed.moves++
    }
    await run("range", "merge", `${first?.id}`, `${second?.id}`)
    changed.merges++
  }
  try {
    await until("all nodes are ready", async () => (await load.readyNodes()) === 3)
    load.start(0)
    await eventual.start(8)
    await until("there are keys to split at", () => load.counts.ok > 2000, 60_000)
    const fourth = await nodes.join()
    await reshuffle(`n${fourth}`)
    const fifth = await nodes.join()
    const sixth = await nodes.join()
    // One that holds replicas dies in the middle of it, and comes back.
    const during = reshuffle(`n${fifth}`)
    await Bun.sleep(300)
    await nodes.killed([2])
    nodes.start(2)
    await during
    await run("node", "drain", `n${fourth}`)
    await run("node", "remove", `n${fourth}`)
    await run("node", "replace", "n3")
    await reshuffle(`n${sixth}`)
    await run("rebalance")
    await Promise.all([load.stop(), eventual.stop()])
    expect([...load.errors]).toEqual([])
    expect(load.counts).toMatchObject({ unknown: 0, refused: 0 })
    await load.readRegisters()
    expect(load.violations()).toEqual([])
    expect(await load.missing([...load.acknowledged.keys()])).toEqual([])
    eventual.errors.delete("OutcomeUnknown")
    expect([...eventual.errors]).toEqual([])
    expect(eventual.acknowledged.size).toBeGreaterThan(1000)
    expect(await eventual.missing()).toEqual([])
    expect(changed).toMatchObject({ splits: 6, merges: 3 })
    const { nodes: listed } = JSON.parse(await run("node", "list", "--json"))
    const states = listed.map(({ id, state }: { id: string; state: string }) => `${id} ${state}`)
    expect(states).toEqual(["n1 up", "n2 up", "n3 gone", "n4 gone", "n5 up", "n6 up"])
  } finally {
    await Promise.all([load.dispose(), eventual.dispose()])
    await nodes.stop()
    folder.remove()
  }
}, 400_000)
