import { expect, test } from "bun:test"
import { text } from "../../src/lib/bytes.ts"
import { NodeSet, temporaryFolder, until } from "./Cluster.ts"
import { Load } from "./Load.ts"
import { NodeReader } from "./NodeReader.ts"

/**
 * Three real node processes under 32 writers. Each round kills one node (each in turn) with `kill -9`, starts it again under load, then kills all
 * of them at once under load and starts them again. Afterwards the histories must be linearizable, and every acknowledged write must be there,
 * read back through the cluster and from each node by itself.
 *
 * The seed decides what the writers ask for; the schedule is that of the machine, so it does not replay.
 */
const rounds = 4
const writers = 32
const seed = Number(process.env.KVORUM_SEED ?? Math.floor(performance.timeOrigin % 2 ** 31))

/** Asked by the load's own client: a command for each look would take the processor from the nodes. */
async function allReady(nodes: NodeSet, load: Load): Promise<void> {
  await until("every node is ready", async () => (await load.readyNodes()) === nodes.nodes)
}

/** Waits until enough calls have succeeded since `before`, so that a round does its work whatever the machine's speed. */
async function progress(load: Load, calls: number): Promise<void> {
  const goal = load.counts.ok + calls
  await until(`${calls} more calls succeed`, () => load.counts.ok >= goal)
}

async function killOne(nodes: NodeSet, load: Load, id: number): Promise<void> {
  await progress(load, 300)
  await nodes.killed([id])
  // Reads and writes go on without it: the calls of the ranges it led wait for a new leader, and succeed.
  await progress(load, 500)
  nodes.start(id)
  await allReady(nodes, load)
  await progress(load, 300)
}

async function killAll(nodes: NodeSet, load: Load): Promise<void> {
  await nodes.killed(nodes.ids)
  nodes.startAll()
  await allReady(nodes, load)
  await progress(load, 200)
}

/** Waits until each node has applied, in every range, what the furthest of them has. */
async function caughtUp(readers: ReadonlyArray<NodeReader>): Promise<void> {
  await until("every node has caught up", async () => {
    const reports = await Promise.all(readers.map((reader) => reader.reports()))
    const furthest = new Map<number, number>()
    for (const { descriptor, index } of reports.flat()) {
      furthest.set(descriptor.id, Math.max(index, furthest.get(descriptor.id) ?? 0))
    }
    return reports.every((each) =>
      each.every(({ descriptor, index }) => index === furthest.get(descriptor.id)),
    )
  })
}

/** Acknowledged writes that one node does not hold. */
async function missingAt(reader: NodeReader, load: Load): Promise<ReadonlyArray<string>> {
  const missing: Array<string> = []
  const keys = [...load.acknowledged.keys()]
  for (let i = 0; i < keys.length; i += 500) {
    await Promise.all(
      keys.slice(i, i + 500).map(async (key) => {
        const { value } = await reader.get(key)
        if (value === undefined || text(value) !== load.acknowledged.get(key)) missing.push(key)
      }),
    )
  }
  return missing
}

async function story(nodes: NodeSet, load: Load): Promise<void> {
  nodes.startAll()
  await allReady(nodes, load)
  let checked = 0
  for (let round = 0; round < rounds; round++) {
    load.start(round)
    await killOne(nodes, load, 1 + (round % nodes.nodes))
    await killAll(nodes, load)
    await load.stop()
    await load.readRegisters()
    const keys = [...load.acknowledged.keys()].slice(checked)
    checked = load.acknowledged.size
    expect(await load.missing(keys), `acknowledged writes missing in round ${round}`).toEqual([])
    expect(nodes.fallen, "nodes that ended by themselves").toEqual([])
  }
  expect(load.violations()).toEqual([])
  const readers = await Promise.all(nodes.ids.map((id) => NodeReader.open(nodes.endpoint(id))))
  await caughtUp(readers)
  for (const [i, reader] of readers.entries()) {
    expect(await missingAt(reader, load), `acknowledged writes missing at n${i + 1}`).toEqual([])
    reader.close()
  }
}

test("kill -9 of one node after another, and of all at once, under load: nothing acknowledged is lost, and histories are linearizable", async () => {
  const folder = temporaryFolder()
  const nodes = new NodeSet({ nodes: 3, directory: folder.path })
  const endpoints = nodes.endpoints.split(",")
  const load = new Load({ endpoints, writers, seed, deadlineMs: 8000 })
  try {
    await story(nodes, load)
    // A run that did nothing proves nothing.
    expect(load.counts.ok).toBeGreaterThan(rounds * 1000)
    expect(load.acknowledged.size).toBeGreaterThan(rounds * 100)
  } catch (error) {
    console.error(`seed ${seed}\n${nodes.logs}`)
    throw error
  } finally {
    await nodes.stop()
    await load.dispose()
    folder.remove()
  }
  const { ok, unknown, refused } = load.counts
  const errors = [...load.errors].map(([name, count]) => `${name} ${count}`).join(", ")
  console.log(
    `killNine: seed ${seed}, ${rounds} rounds, ${ok} calls succeeded, ${unknown} unknown, ${refused} refused (${errors}); ` +
      `${load.registerOperations} register operations checked, ${load.acknowledged.size} acknowledged writes read back from each node`,
  )
}, 300_000)
