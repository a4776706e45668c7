import { Effect } from "effect"
import type { ClientSession, ClientShape } from "../client/Client.ts"
import type { KvorumError } from "../Errors.ts"
import { Flag } from "./EffectCli.ts"
import * as Flags from "./Flags.ts"
import { note } from "./Output.ts"

/** Sessions on the command line: a token goes in, and the one to go on with comes out. */
export const sessionFlag = Flags.maybe(
  Flag.String("session").pipe(
    Flag.withMetavar("TOKEN"),
    Flag.withDescription(
      "See at least what earlier commands of this session wrote and saw, whichever replica answers; `new` begins one. " +
        "The token to go on with is printed on stderr, and with --json as `session`",
    ),
  ),
)

/** The option that a call takes, for the word after `--session`. */
export const sessionOption = (
  client: ClientShape,
  word: string | undefined,
): Effect.Effect<{ readonly session?: ClientSession }, KvorumError> =>
  word === undefined
    ? Effect.succeed({})
    : Effect.map(client.session(word === "new" ? undefined : word), (session) => ({ session }))

/** What `--json` says of the session. */
export const jsonSession = ({ session }: { readonly session?: ClientSession }) =>
  session === undefined ? {} : { session: session.token }

/** Says on stderr with which token to go on. */
export const noteSession = (
  { session }: { readonly session?: ClientSession },
  json: boolean,
): Effect.Effect<void> =>
  session === undefined || json ? Effect.void : note(`session ${session.token}`)
