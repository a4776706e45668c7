import { writeSync } from "node:fs"
import { Cause, Data, Effect, Exit } from "effect"
import { CliConfig, CliOutput, GlobalFlag } from "./EffectCli.ts"

/**
 * What a command leaves behind: data on stdout, everything else on stderr, and one of five exit codes. With `--json`, stdout ends in
 * exactly one line, whether the command was carried out or refused.
 */
export const exitCodes = {
  done: 0,
  /** Refused, with the typed error's name on stderr. */
  refused: 1,
  usage: 2,
  /** The write may or may not have happened. */
  outcomeUnknown: 3,
  /** The key is absent, or the condition did not hold. */
  negative: 4,
} as const

/** Ends the command with `code`; `message`, if any, is one line for stderr. */
export class CommandEnded extends Data.TaggedError("CommandEnded")<{
  readonly code: number
  readonly message: string | undefined
}> {}

export function usageError(message: string): CommandEnded {
  return new CommandEnded({ code: exitCodes.usage, message })
}

export function refusal(message: string): CommandEnded {
  return new CommandEnded({ code: exitCodes.refused, message })
}

export const negative = new CommandEnded({ code: exitCodes.negative, message: undefined })

const pause = new Int32Array(new SharedArrayBuffer(4))

/**
 * Writes all of `bytes`, however slowly the reader takes them: a pipe can be left non-blocking by another process, and then answers EAGAIN.
 * Synchronous, so that nothing is lost when the process exits next. A reader that has gone (`| head -1`) ends the process quietly.
 */
export function writeFully(descriptor: 1 | 2, bytes: Uint8Array): void {
  let offset = 0
  while (offset < bytes.length) {
    try {
      offset += writeSync(descriptor, bytes, offset, bytes.length - offset)
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code
      if (code === "EPIPE") process.exit(exitCodes.done)
      if (code !== "EAGAIN") throw error
      Atomics.wait(pause, 0, 0, 1)
    }
  }
}

export function printBytes(bytes: Uint8Array): Effect.Effect<void> {
  return Effect.sync(() => writeFully(1, bytes))
}

export function print(line: string): Effect.Effect<void> {
  return printBytes(Buffer.from(`${line}\n`))
}

export function printJson(value: unknown): Effect.Effect<void> {
  return print(JSON.stringify(value))
}

/** One line on stderr. */
export function note(line: string): Effect.Effect<void> {
  return Effect.sync(() => writeFully(2, Buffer.from(`${line}\n`)))
}

/** Help and version to stdout when asked for; anything about a wrong invocation to stderr. */
const presenter: CliOutput.Presenter = {
  present: Effect.fnUntraced(function* (event) {
    const colors = event._tag === "Help" && event.reason === "Requested" && process.stdout.isTTY
    const formatter = CliOutput.defaultFormatter({ colors: colors === true })
    switch (event._tag) {
      case "Help": {
        const flags = event.helpDoc.flags.map((flag) =>
          // How Flags.toggle looks to the library; to people it is a switch.
          flag.type === "[=boolean]" ? { ...flag, type: "boolean" } : flag,
        )
        const help = formatter.formatHelpDoc({ ...event.helpDoc, flags })
        return yield* event.reason === "Requested" ? print(help) : note(help)
      }
      case "InvalidInvocation": {
        for (const error of event.errors) yield* note(`kvorum: ${error.message}`)
        return yield* note(`Try: ${event.commandPath.join(" ")} --help`)
      }
      case "Version":
        return yield* print(formatter.formatVersion(event.name, event.version))
      default:
        return event satisfies never
    }
  }),
}

export const layers = {
  presenter: CliOutput.layerPresenter(presenter),
  /** Only what scripts and people of this command use; the wizard and log levels of the library stay out. */
  config: CliConfig.layer({
    builtIns: [GlobalFlag.Help, GlobalFlag.Version, GlobalFlag.Completions],
  }),
}

/** The exit code of a whole run. Prints what has not been printed yet: defects, with their trace. */
export function teardown<E, A>(exit: Exit.Exit<E, A>, onExit: (code: number) => void): void {
  if (Exit.isSuccess(exit) || Cause.hasInterruptsOnly(exit.cause)) return onExit(exitCodes.done)
  const error = Cause.squash(exit.cause)
  if (error instanceof CommandEnded) {
    if (error.message !== undefined && error.message !== "") {
      writeFully(2, Buffer.from(`kvorum: ${error.message}\n`))
    }
    return onExit(error.code)
  }
  // The presenter has already said what is wrong with the invocation.
  if ((error as { _tag?: string })._tag === "ShowHelp") return onExit(exitCodes.usage)
  writeFully(2, Buffer.from(`kvorum: ${Cause.pretty(exit.cause)}\n`))
  return onExit(exitCodes.refused)
}
