import { Effect } from "effect"
import { type KvorumError, NotSupportedInMode } from "../Errors.ts"
import type { NamespaceInfo } from "../wire/answers.ts"
import { eventualOptions } from "./EventualKeys.ts"
import type { CommandEnded } from "./Output.ts"

/** Each slot of an eventual namespace is read on one owner: a scan has no other level. */
export const scanOptions = Effect.fnUntraced(function* (
  namespace: NamespaceInfo,
  words: { readonly consistency: string | undefined },
): Effect.fn.Return<void, KvorumError | CommandEnded> {
  const { consistency } = yield* eventualOptions(namespace, words)
  if (consistency === undefined || consistency === "one") return
  const detail = `a scan of ${namespace.name}, which is eventual, reads each slot on one owner: --consistency one`
  return yield* new NotSupportedInMode({ detail })
})
