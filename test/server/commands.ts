import { emptyBytes, utf8 } from "../../src/lib/bytes.ts"
import { hashPosition } from "../../src/lib/position.ts"
import { type Command, conditions, encodeCommand, operations } from "../../src/wire/command.ts"

/** A command on key `key` of namespace 1, with everything else as a careful client would set it. */
export function command(
  key: string,
  options: Partial<Command> & { readonly text?: string } = {},
): Uint8Array {
  const { text, ...fields } = options
  return encodeCommand({
    operation: operations.put,
    condition: conditions.none,
    boundsVersion: 1,
    clientId: 7,
    sequence: 1,
    ackedBelow: 0,
    expiresAt: 100_000_000,
    expectedVersion: 0,
    ttl: 0,
    position: hashPosition(1, utf8(key)),
    value: text === undefined ? emptyBytes : utf8(text),
    expectedValue: emptyBytes,
    ...fields,
  })
}
