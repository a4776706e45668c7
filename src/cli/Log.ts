import { Logger, References } from "effect"
import { writeFully } from "./Output.ts"

/**
 * Logs of a node and of commands: one line each on stderr, `TIME LEVEL message key=value ...`. Line breaks in what is logged become `\n`, so that nothing
 * from outside can pass for a line of its own.
 */
const lineLogger = Logger.make<unknown, void>(({ date, logLevel, message, cause, fiber }) => {
  const parts = Array.isArray(message) ? message : [message]
  const words = [date.toISOString(), logLevel.toUpperCase(), ...parts.map(show)]
  for (const [name, value] of Object.entries(fiber.getRef(References.CurrentLogAnnotations))) {
    words.push(`${name}=${show(value)}`)
  }
  if (cause.reasons.length > 0) words.push(show(String(cause)))
  writeFully(2, Buffer.from(`${words.join(" ")}\n`))
})

function show(value: unknown): string {
  const text = typeof value === "string" ? value : (JSON.stringify(value) ?? String(value))
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
  return text.replace(/[\u0000-\u001f\u007f]/g, (character) =>
    character === "\n" ? "\\n" : `\\x${character.charCodeAt(0).toString(16).padStart(2, "0")}`,
  )
}

export const layer = Logger.layer([lineLogger])
