import { fromHex, utf8 } from "../lib/bytes.ts"

/**
 * Lines of an operations file, each a JSON object:
 *
 *     {"op":"put","key":"a","value":"b"}       {"op":"delete","key":"a"}       {"op":"add","key":"a","delta":2}
 *
 * with `keyHex` and `valueHex` in place of `key` and `value` where the bytes are not text, a `delta` beyond 2^53 as text, and for puts and adds `ttlMs`. Empty lines
 * are passed over. In an eventual namespace an add or remove may name the `member` (or `memberHex`) of a set, and a put or delete may have a `context`:
 *
 *     {"op":"add","key":"cart1","member":"iPhone"}       {"op":"remove","key":"cart1","member":"iPhone"}
 *
 * An atomic batch may have a condition in each line: `"ifAbsent":true`, `"ifVersion":N` (0 is absent, too), or `"ifValue":"x"` (`ifValueHex`).
 */
export type LineExpectation =
  | { readonly absent: true }
  | { readonly version: number }
  | { readonly value: Uint8Array }

interface LineBase {
  readonly key: Uint8Array
  readonly expect?: LineExpectation
  readonly context?: string
}

export type BatchLine = LineBase &
  (
    | { readonly op: "put"; readonly value: Uint8Array; readonly ttlMs?: number }
    | { readonly op: "delete" }
    | { readonly op: "add"; readonly delta: bigint; readonly ttlMs?: number }
    | { readonly op: "addMember" | "remove"; readonly member: Uint8Array }
  )

type Fields = Readonly<Record<string, unknown>>

const keyFields = ["op", "key", "keyHex"]
const conditionFields = ["ifAbsent", "ifVersion", "ifValue", "ifValueHex"]
const ownFields = new Map<unknown, ReadonlyArray<string>>([
  ["put", ["value", "valueHex", "ttlMs", "context"]],
  ["delete", ["context"]],
  ["add", ["delta", "ttlMs", "member", "memberHex"]],
  ["remove", ["member", "memberHex"]],
])

function bytesOf(object: Fields, name: string): Uint8Array | string {
  const plain = object[name]
  const hex = object[`${name}Hex`]
  if (plain !== undefined && hex !== undefined) return `has both ${name} and ${name}Hex`
  if (plain !== undefined)
    return typeof plain === "string" ? utf8(plain) : `${name} is not a string`
  if (hex === undefined) return `has neither ${name} nor ${name}Hex`
  const bytes = typeof hex === "string" ? fromHex(hex) : undefined
  return bytes ?? `${name}Hex is not hex`
}

function deltaOf({ delta }: Fields): bigint | string {
  const isWhole = typeof delta === "number" && Number.isSafeInteger(delta)
  const isText = typeof delta === "string" && /^-?\d{1,19}$/.test(delta)
  if (isWhole || isText) return BigInt(delta)
  // As a number it has lost digits already.
  if (Number.isInteger(delta)) return "has a delta beyond 2^53: write it as text, in quotes"
  return typeof delta === "string" && /^-?\d+$/.test(delta)
    ? "has a delta that is not between -2^63 and 2^63 - 1"
    : 'has no delta that is a whole number, such as "delta":2'
}

function ttlOf({ ttlMs }: Fields): { readonly ttlMs?: number } | string {
  if (ttlMs === undefined) return {}
  return typeof ttlMs === "number" && ttlMs > 0
    ? { ttlMs }
    : "has a ttlMs that is no number above 0"
}

function expectationOf(object: Fields): { readonly expect?: LineExpectation } | string {
  const given = conditionFields.filter((name) => object[name] !== undefined)
  if (given.length === 0) return {}
  if (given.length > 1) return `has more than one condition: ${given.join(" and ")}`
  const { ifAbsent, ifVersion } = object
  switch (given[0]) {
    case "ifAbsent":
      return ifAbsent === true ? { expect: { absent: true } } : "has an ifAbsent that is not true"
    case "ifVersion":
      if (ifVersion === 0) return { expect: { absent: true } }
      return Number.isSafeInteger(ifVersion) && (ifVersion as number) > 0
        ? { expect: { version: ifVersion as number } }
        : "has an ifVersion that is no version"
    default: {
      const value = bytesOf(object, "ifValue")
      return typeof value === "string" ? value : { expect: { value } }
    }
  }
}

function parseLine(line: string, atomic: boolean): BatchLine | string {
  let parsed: unknown
  try {
    parsed = JSON.parse(line)
  } catch {
    return "is not JSON"
  }
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) {
    return "is not a JSON object"
  }
  const object = parsed as Fields
  const { op } = object
  const own = ownFields.get(op)
  if (own === undefined) return 'has an op that is none of "put", "delete", "add" and "remove"'
  for (const name of Object.keys(object)) {
    if (keyFields.includes(name) || own.includes(name)) continue
    if (!conditionFields.includes(name)) return `has a field ${name}, which ${op} does not take`
    if (!atomic) return `has the condition ${name}: conditions need --atomic`
  }
  const key = bytesOf(object, "key")
  const condition = expectationOf(object)
  const ttl = ttlOf(object)
  for (const problem of [key, condition, ttl]) if (typeof problem === "string") return problem
  const { context } = object
  if (context !== undefined && typeof context !== "string") return "has a context that is no text"
  const base = {
    key: key as Uint8Array,
    ...(condition as { expect?: LineExpectation }),
    ...(context === undefined ? {} : { context }),
  }
  const namesMember = object.member !== undefined || object.memberHex !== undefined
  if (op === "remove" || (op === "add" && namesMember)) {
    if (object.delta !== undefined) return "has both a delta and a member"
    if (object.ttlMs !== undefined) return "has a ttlMs, which members of sets do not take"
    const member = bytesOf(object, "member")
    if (typeof member === "string") return member
    return { op: op === "add" ? "addMember" : "remove", member, ...base }
  }
  if (op === "delete") return { op, ...base }
  if (op === "add") {
    const delta = deltaOf(object)
    return typeof delta === "string" ? delta : { op, delta, ...base, ...(ttl as object) }
  }
  const value = bytesOf(object, "value")
  if (typeof value === "string") return value
  return { op: "put", value, ...base, ...(ttl as object) }
}

/** All operations of a file, or a sentence that names the first bad line (counted from 1). */
export function parseBatch(
  source: string,
  options: { readonly atomic: boolean } = { atomic: false },
): ReadonlyArray<BatchLine> | string {
  const result: Array<BatchLine> = []
  const lines = source.split("\n")
  for (let i = 0; i < lines.length; i++) {
    const line = (lines[i] as string).trim()
    if (line === "") continue
    const operation = parseLine(line, options.atomic)
    if (typeof operation === "string") return `line ${i + 1} ${operation}`
    result.push(operation)
  }
  return result
}
