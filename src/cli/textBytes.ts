import { equalBytes, fromHex, text, toHex, utf8 } from "../lib/bytes.ts"

/** Bytes as people type and read them: UTF-8 text by default, hex on request, escapes where a line of text would be ambiguous. */

/** The text of `bytes`, or `undefined` when they are not UTF-8, so that the text would not give them back. */
export function exactText(bytes: Uint8Array): string | undefined {
  const decoded = text(bytes)
  return equalBytes(utf8(decoded), bytes) ? decoded : undefined
}

/** The bytes that an argument spells, or `undefined` when `hex` is asked for and it is none. */
export function argumentBytes(argument: string, hex: boolean): Uint8Array | undefined {
  return hex ? fromHex(argument) : utf8(argument)
}

/** `{ [name]: text }`, or `{ [nameHex]: hex }` when asked for or when the bytes are not UTF-8. */
export function jsonBytes(
  name: string,
  bytes: Uint8Array,
  hex: boolean,
): Readonly<Record<string, string>> {
  const exact = hex ? undefined : exactText(bytes)
  return exact === undefined ? { [`${name}Hex`]: toHex(bytes) } : { [name]: exact }
}

function escapeCharacter(character: string): string {
  switch (character) {
    case "\\":
      return "\\\\"
    case "\n":
      return "\\n"
    case "\r":
      return "\\r"
    case "\t":
      return "\\t"
    default:
      return [...utf8(character)].map(escapeByte).join("")
  }
}

function escapeByte(byte: number): string {
  return `\\x${byte.toString(16).padStart(2, "0")}`
}

/** One field of a line of output: text in which backslash, control characters and what is not UTF-8 are escaped. */
export function lineText(bytes: Uint8Array): string {
  const exact = exactText(bytes)
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
  if (exact !== undefined) return exact.replace(/[\\\u0000-\u001f\u007f-\u009f]/g, escapeCharacter)
  let result = ""
  for (const byte of bytes) {
    if (byte === 0x5c) result += "\\\\"
    else if (byte >= 0x20 && byte < 0x7f) result += String.fromCharCode(byte)
    else result += escapeByte(byte)
  }
  return result
}
