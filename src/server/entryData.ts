import { ByteWriter } from "../lib/byteWriter.ts"
import { loadU64 } from "../lib/littleEndian.ts"
import { entryKinds } from "../raft/message.ts"
import type { LogIndex, Term, Version } from "../types.ts"

/**
 * What an entry of kind `commands` holds. Stored and sent: do not change.
 *
 *     0   u64 LE  base: the version of the first command; command j gets base + j
 *     8   u16 LE  count of commands, at least 1
 *     10  commands back to back (wire/command.ts)
 *
 * Entries of all other kinds begin with a base too, and count as one command (rangeEntries.ts); only an empty one holds nothing.
 */
export const entryHeaderBytes = 10

export function encodeEntryData(base: Version, commands: ReadonlyArray<Uint8Array>): Uint8Array {
  let length = entryHeaderBytes
  for (const command of commands) length += command.length
  const writer = new ByteWriter(length)
  writer.u64(base)
  writer.u16(commands.length)
  for (const command of commands) writer.raw(command)
  return writer.take()
}

export function entryBase(data: Uint8Array): Version {
  return loadU64(data, 0)
}

/** Of an entry of kind `commands`. */
export function entryCount(data: Uint8Array): number {
  return (data[8] as number) | ((data[9] as number) << 8)
}

/** The version of an entry's last command: the range's time once it is applied; `undefined` of an empty one, which has no time. */
export function entryLastVersion(entry: {
  readonly kind: number
  readonly data: Uint8Array
}): Version | undefined {
  if (entry.kind === entryKinds.empty) return undefined
  const base = entryBase(entry.data)
  return entry.kind === entryKinds.commands ? base + entryCount(entry.data) - 1 : base
}

/** An entry that is committed and durable here. */
export interface AppliedEntry {
  readonly index: LogIndex
  readonly term: Term
  readonly kind: number
  readonly data: Uint8Array
}
