import { expect } from "bun:test"
import { Effect } from "effect"
import type { ClientShape } from "../../src/client/Client.ts"
import type { Level } from "../../src/dynamo/coordinator/slotPlan.ts"
import type { EventualReceipt } from "../../src/dynamo/node/requests.ts"
import { text } from "../../src/lib/bytes.ts"
import { slotCount } from "../../src/lib/slot.ts"
import { memberOf } from "../../src/topology/member.ts"
import type { Ring } from "../../src/topology/ring.ts"
import { slotsToMove } from "../../src/topology/ringChange.ts"
import { SlotOwners } from "../../src/topology/slotOwners.ts"
import type { NodeId } from "../../src/types.ts"
import { type Nodes, until } from "./nodes.ts"

export const keys = Array.from({ length: 40 }, (_, i) => `key-${i}`)

/** Copies of a key in the namespace `eventual`. */
const copies = 3

/** `node`: who carries it out; any one by default. */
export function order(
  client: ClientShape,
  verb: string,
  args: unknown,
  node?: NodeId,
): Promise<Record<string, unknown>> {
  const options = { deadlineMs: 60_000, ...(node === undefined ? {} : { node }) }
  return Effect.runPromise(client.admin(verb, args, options)) as Promise<Record<string, unknown>>
}

/** As a node knows it. */
export function ringAt(nodes: Nodes, name: string): Ring {
  const { ring } = nodes.node(name).control.directory()
  if (ring === undefined) throw new Error(`${name} knows no ring`)
  return ring.ring
}

export function isAtRest(ring: Ring): boolean {
  return ring.changes().length === 0 && slotsToMove(ring, ring.goal()) === 0
}

export const owns = (ring: Ring, slot: number, node: number) => ring.isOwner(slot, copies, node)

/** Slots of which a node is an owner, now or soon. */
export function ownedBy(ring: Ring, node: number): number {
  let count = 0
  for (let slot = 0; slot < slotCount; slot++) if (owns(ring, slot, node)) count++
  return count
}

/** Waits until these know one ring, in which nothing moves and every slot has one set of owners: as many as there are to have, and all of them members. */
export async function oneOwnerSet(nodes: Nodes, names: ReadonlyArray<string>): Promise<void> {
  await until(
    `${names} know one ring, at rest`,
    () => {
      const rings = names.map((name) => ringAt(nodes, name))
      return rings.every(isAtRest) && new Set(rings.map(({ version }) => version)).size === 1
    },
    40_000,
  )
  const ring = ringAt(nodes, names[0] as string)
  const members = ring.members.filter(({ state }) => state === "member").length
  const owners = new SlotOwners()
  for (let slot = 0; slot < slotCount; slot++) {
    ring.owners(slot, copies, owners)
    expect(owners.oldMask).toBe(owners.newMask)
    const found = [...owners.nodes.subarray(0, owners.count)]
    expect(new Set(found).size).toBe(Math.min(copies, members))
    for (const node of found) expect(memberOf(ring.members, node)?.state).toBe("member")
  }
}

/** Waits until all these nodes know the ring, and a write reaches every owner: for a moment after its start a node counts others as down. */
export async function takesWrites(
  nodes: Nodes,
  names: ReadonlyArray<string>,
  client: ClientShape,
): Promise<void> {
  await until(`${names} know the ring`, () => {
    return names.every((name) => nodes.node(name).control.directory().ring !== undefined)
  })
  for (const key of keys) {
    const options = { consistency: "all", strict: true } as const
    await until(`${key} is written by all owners`, () => {
      const write = client.eventual.put("eventual", `first ${key}`, "", options)
      return Effect.runPromise(Effect.match(write, { onSuccess: yes, onFailure: no }))
    })
  }
}
const yes = () => true
const no = () => false

/** As many owners as the level asks for have every write when this returns, stand-ins apart. */
export async function writeAll(
  client: ClientShape,
  round: string,
  consistency: Level = "all",
): Promise<void> {
  for (const key of keys) {
    const { context } = await Effect.runPromise(
      client.eventual.get("eventual", key, { consistency: "quorum" }),
    )
    const options = { consistency, context }
    await Effect.runPromise(client.eventual.put("eventual", key, `${key} ${round}`, options))
  }
}

/** As many owners as the level asks for answer, and what comes out is this, and nothing else. Owners that had not all of it are repaired. */
export async function expectShown(
  client: ClientShape,
  round: string,
  consistency: Level = "all",
): Promise<ReadonlyArray<EventualReceipt>> {
  const receipts: Array<EventualReceipt> = []
  for (const key of keys) {
    const { siblings, receipt } = await Effect.runPromise(
      client.eventual.get("eventual", key, { consistency }),
    )
    expect(siblings.map(text)).toEqual([`${key} ${round}`])
    receipts.push(receipt)
  }
  return receipts
}

/** As many owners as the level asks for have this, each of them all of it. */
export async function expectAll(
  client: ClientShape,
  round: string,
  consistency: Level = "all",
): Promise<void> {
  for (const receipt of await expectShown(client, round, consistency))
    expect(receipt).toMatchObject({ sloppy: false, repairs: [] })
}
