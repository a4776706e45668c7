import { fromHex, utf8 } from "../lib/bytes.ts"

/**
 * Lines of an operations file, each a JSON object:
 *
 *     {"op":"put","key":"a","value":"b"}       {"op":"delete","key":"a"}
 *
 * with `keyHex` and `valueHex` in place of `key` and `value` where the bytes are not text. Empty lines are passed over.
 */
export type BatchLine =
  | { readonly op: "put"; readonly key: Uint8Array; readonly value: Uint8Array }
  | { readonly op: "delete"; readonly key: Uint8Array }

const fields = new Set(["op", "key", "keyHex", "value", "valueHex"])

function bytesOf(object: Readonly<Record<string, unknown>>, name: string): Uint8Array | string {
  const plain = object[name]
  const hex = object[`${name}Hex`]
  if (plain !== undefined && hex !== undefined) return `has both ${name} and ${name}Hex`
  if (plain !== undefined)
    return typeof plain === "string" ? utf8(plain) : `${name} is not a string`
  if (hex === undefined) return `has neither ${name} nor ${name}Hex`
  const bytes = typeof hex === "string" ? fromHex(hex) : undefined
  return bytes ?? `${name}Hex is not hex`
}

function parseLine(line: string): BatchLine | string {
  let parsed: unknown
  try {
    parsed = JSON.parse(line)
  } catch {
    return "is not JSON"
  }
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) {
    return "is not a JSON object"
  }
  const object = parsed as Readonly<Record<string, unknown>>
  for (const name of Object.keys(object))
    if (!fields.has(name)) return `has an unknown field ${name}`
  const key = bytesOf(object, "key")
  if (typeof key === "string") return key
  if (object.op === "delete") {
    if (object.value !== undefined || object.valueHex !== undefined) return "deletes a value"
    return { op: "delete", key }
  }
  if (object.op !== "put") return 'has an op that is neither "put" nor "delete"'
  const value = bytesOf(object, "value")
  return typeof value === "string" ? value : { op: "put", key, value }
}

/** All operations of a file, or a sentence that names the first bad line (counted from 1). */
export function parseBatch(source: string): ReadonlyArray<BatchLine> | string {
  const result: Array<BatchLine> = []
  const lines = source.split("\n")
  for (let i = 0; i < lines.length; i++) {
    const line = (lines[i] as string).trim()
    if (line === "") continue
    const operation = parseLine(line)
    if (typeof operation === "string") return `line ${i + 1} ${operation}`
    result.push(operation)
  }
  return result
}
