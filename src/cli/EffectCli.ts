/** The one place that imports Effect's command-line modules, which its authors mark unstable. */
export { Argument, CliConfig, CliError, CliOutput, Command, Flag, GlobalFlag } from "effect/cli"
