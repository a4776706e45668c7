import { ByteReader, MalformedBytes } from "../lib/byteReader.ts"
import { equalBytes, text, utf8 } from "../lib/bytes.ts"
import { ByteWriter } from "../lib/byteWriter.ts"
import { crc32 } from "../lib/checksum.ts"
import { slotCount } from "../lib/slot.ts"
import {
  type MemberState,
  membersMax,
  type RingMember,
  replicasMax,
  type Strategy,
  virtualNodesMax,
} from "./member.ts"
import { ownedCode, Ring, type RingParts, ringProblem, type SlotTable } from "./ring.ts"
import { ListTable } from "./slotTable.ts"

/**
 * A ring as bytes, for the meta group and for those who learn it. Stored: do not change. A ring has one form: equal rings, equal bytes.
 *
 *     ring    := format u8 = 1 ‖ strategy u8 ‖ version ‖ floor ‖ count ‖ member* ‖ count ‖ list* ‖ run* ‖ crc32 u32 LE of all before
 *     member  := node ‖ state u8 ‖ zone ‖ rack ‖ host ‖ count ‖ token*        name := length u8 ‖ UTF-8
 *     token   := distance from the one before, the first from slot 0
 *     list    := count u8 ‖ member index*
 *     run     := slots ‖ state u8 ‖ list (‖ new list, unless owned) ‖ age
 *
 * Numbers without a width are varints. Lists are in the order in which the slots first have them, present lists before new ones. Runs tile the slots and are as long as
 * can be. A run's age is the ring's version less that of its slots.
 */
const format = 1
const strategies: ReadonlyArray<Strategy> = ["simple", "rack", "zone"]
const states: ReadonlyArray<MemberState> = ["member", "leaving", "gone"]
/** The largest value that the meta group takes; a list and a run for every slot and 256 members with the longest names stay below it. */
export const ringBytesMax: number = 1024 * 1024

export function encodeRing(ring: Ring): Uint8Array {
  const writer = new ByteWriter(4096)
  writer.u8(format)
  writer.u8(strategies.indexOf(ring.strategy))
  writer.varint(ring.version)
  writer.varint(ring.floor)
  writer.varint(ring.members.length)
  for (const member of ring.members) writeMember(writer, member)
  const numbers = writeLists(writer, ring)
  writeRuns(writer, ring, numbers)
  writer.u32(crc32(writer.bytes()))
  return writer.take()
}

/** The ring that these bytes are. Throws `MalformedBytes` for anything that `encodeRing` would not have written. */
export function decodeRing(bytes: Uint8Array): Ring {
  if (bytes.length > ringBytesMax) throw new MalformedBytes(`a ring of ${bytes.length} bytes`)
  if (bytes.length < 4) throw new MalformedBytes("a ring without checksum")
  const body = bytes.subarray(0, bytes.length - 4)
  const stated = new ByteReader(bytes, body.length).u32()
  if (crc32(body) !== stated) throw new MalformedBytes("checksum of a ring")
  const reader = new ByteReader(body)
  const found = reader.u8()
  if (found !== format) throw new MalformedBytes(`ring of format ${found}`)
  const strategy = named(strategies, reader.u8(), "strategy")
  const version = reader.varint()
  const floor = reader.varint()
  const memberCount = counted(reader.varint(), membersMax, "members")
  const members = Array.from({ length: memberCount }, () => readMember(reader))
  const lists = readLists(reader, members)
  const table = readRuns(reader, lists, version)
  reader.end()
  const parts: RingParts = { version, floor, strategy, members, table }
  const problem = ringProblem(parts)
  if (problem !== undefined) throw new MalformedBytes(`ring ${version}: ${problem}`)
  const ring = new Ring(parts)
  if (!equalBytes(encodeRing(ring), bytes)) throw new MalformedBytes("a ring in another form")
  return ring
}

function writeMember(writer: ByteWriter, member: RingMember): void {
  writer.varint(member.node)
  writer.u8(states.indexOf(member.state))
  for (const name of [member.zone, member.rack, member.host]) {
    const bytes = utf8(name)
    writer.u8(bytes.length)
    writer.raw(bytes)
  }
  writer.varint(member.tokens.length)
  let last = 0
  for (const token of member.tokens) {
    writer.varint(token - last)
    last = token
  }
}

function readMember(reader: ByteReader): RingMember {
  const node = reader.varint()
  const state = named(states, reader.u8(), "state")
  const [zone, rack, host] = Array.from({ length: 3 }, () => text(reader.raw(reader.u8())))
  const count = counted(reader.varint(), virtualNodesMax, "tokens")
  let last = 0
  const tokens = Array.from({ length: count }, () => {
    last += reader.varint()
    return last
  })
  return { node, zone, rack, host, state, tokens }
}

/** Writes the lists and returns their numbers in the bytes by their numbers in the table. */
function writeLists(writer: ByteWriter, ring: Ring): Int32Array {
  const { lists, from, to } = ring.table
  const numbers = new Int32Array(lists.count).fill(-1)
  const inOrder: Array<number> = []
  for (const of of [from, to]) {
    for (let slot = 0; slot < slotCount; slot++) {
      if (numbers[of[slot]] >= 0) continue
      numbers[of[slot]] = inOrder.length
      inOrder.push(of[slot])
    }
  }
  const indexes = new Map(ring.members.map(({ node }, index) => [node, index]))
  writer.varint(inOrder.length)
  for (const list of inOrder) {
    const nodes = lists.nodesOf(list)
    writer.u8(nodes.length)
    for (const node of nodes) writer.varint(indexes.get(node) ?? membersMax)
  }
  return numbers
}

function readLists(reader: ByteReader, members: ReadonlyArray<RingMember>): ListTable {
  const count = counted(reader.varint(), 2 * slotCount, "lists")
  const lists = new ListTable()
  for (let i = 0; i < count; i++) {
    const size = counted(reader.u8(), replicasMax, "nodes in a list")
    const nodes = Array.from({ length: size }, () => {
      const index = reader.varint()
      if (index >= members.length) throw new MalformedBytes(`member ${index} in a list`)
      return members[index].node
    })
    if (lists.intern(nodes) !== i) throw new MalformedBytes("a list twice")
  }
  return lists
}

function writeRuns(writer: ByteWriter, ring: Ring, numbers: Int32Array): void {
  const { from, to, states: stateOf, since } = ring.table
  let start = 0
  for (let slot = 1; slot <= slotCount; slot++) {
    const goesOn =
      slot < slotCount &&
      from[slot] === from[start] &&
      to[slot] === to[start] &&
      stateOf[slot] === stateOf[start] &&
      since[slot] === since[start]
    if (goesOn) continue
    writer.varint(slot - start)
    writer.u8(stateOf[start])
    writer.varint(numbers[from[start]])
    if (stateOf[start] !== ownedCode) writer.varint(numbers[to[start]])
    writer.varint(ring.version - since[start])
    start = slot
  }
}

function readRuns(reader: ByteReader, lists: ListTable, version: number): SlotTable {
  const from = new Uint16Array(slotCount)
  const to = new Uint16Array(slotCount)
  const stateOf = new Uint8Array(slotCount)
  const since = new Float64Array(slotCount)
  let start = 0
  while (start < slotCount) {
    const length = counted(reader.varint(), slotCount - start, "slots in a run")
    if (length === 0) throw new MalformedBytes("a run without slots")
    const state = reader.u8()
    const list = counted(reader.varint(), lists.count - 1, "lists")
    const newList = state === ownedCode ? list : counted(reader.varint(), lists.count - 1, "lists")
    const age = counted(reader.varint(), version, "versions")
    from.fill(list, start, start + length)
    to.fill(newList, start, start + length)
    stateOf.fill(state, start, start + length)
    since.fill(version - age, start, start + length)
    start += length
  }
  return { lists, from, to, states: stateOf, since }
}

function counted(count: number, limit: number, what: string): number {
  if (count > limit) throw new MalformedBytes(`${count} ${what}: limit is ${limit}`)
  return count
}

function named<A>(names: ReadonlyArray<A>, code: number, what: string): A {
  const name = names[code]
  if (name === undefined) throw new MalformedBytes(`${what} ${code}`)
  return name
}
