import { Call } from "../../../src/client/Call.ts"
import { ClientCore } from "../../../src/client/ClientCore.ts"
import {
  type EventualCallOptions,
  EventualCalls,
  type EventualOutcome,
} from "../../../src/client/eventual/EventualCalls.ts"
import { QuorumUnavailable } from "../../../src/Errors.ts"
import { Identity } from "../../../src/server/Identity.ts"
import { NodeControl, type NodeControlOptions } from "../../../src/server/NodeControl.ts"
import { NodeDirectory } from "../../../src/server/nodeDirectory.ts"
import { Machine } from "./machine.ts"

/** A bug of the node layer or the client, to see that the server simulator finds it. `plant` returns how to take it out again. */
export interface PlantedBug {
  readonly title: string
  /** The search begins with it: one before it takes long. Default 1. */
  readonly from?: number
  readonly plant: () => () => void
}

/** Puts `make(original)` in the place of a member of a prototype. */
function replace(
  prototype: object,
  name: string,
  make: (original: PropertyDescriptor) => PropertyDescriptor,
): () => void {
  const original = Object.getOwnPropertyDescriptor(prototype, name)
  if (original === undefined) throw new Error(`there is no ${name}`)
  Object.defineProperty(prototype, name, { ...make(original), configurable: true })
  return () => void Object.defineProperty(prototype, name, original)
}

type Method = (this: unknown, ...rest: ReadonlyArray<unknown>) => unknown

function replaceMethod(
  prototype: object,
  name: string,
  make: (original: Method) => Method,
): () => void {
  return replace(prototype, name, ({ value }) => ({ value: make(value), writable: true }))
}

/** Changes what an eventual call is asked, and what it comes to. */
function replaceEventualCalls(
  options: (asked: EventualCallOptions) => EventualCallOptions,
  outcome: (ended: EventualOutcome) => EventualOutcome,
): () => void {
  return replaceMethod(
    EventualCalls.prototype,
    "start",
    (original) =>
      function (this: unknown, ...rest) {
        const [asked, done] = rest as [EventualCallOptions, (ended: EventualOutcome) => void]
        return original.apply(this, [
          options(asked),
          (ended: EventualOutcome) => done(outcome(ended)),
        ])
      },
  )
}

export const plantedBugs: ReadonlyArray<PlantedBug> = [
  {
    title: "the journal's file is not synced",
    plant: () =>
      replaceMethod(
        Machine.prototype,
        "acquire",
        (original) =>
          function (this: unknown, ...rest) {
            const directory = original.apply(this, [...rest]) as ReturnType<Machine["acquire"]>
            const openJournal: typeof directory.openJournal = (path) => ({
              ...directory.openJournal(path),
              sync: (done) => void setImmediate(() => done(null)),
            })
            return { ...directory, openJournal }
          },
      ),
  },
  {
    title: "each copy of a call has an identity of its own",
    plant: () =>
      replaceMethod(
        ClientCore.prototype,
        "send",
        (original) =>
          function (this: unknown, ...rest) {
            const [call] = rest as [Call<unknown>]
            if (call.sends > 0) call.plan.renew()
            return original.apply(this, [...rest])
          },
      ),
  },
  {
    title: "a mutation ends in a refusal although a copy of it may have been carried out",
    plant: () => replace(Call.prototype, "isUncertain", () => ({ get: () => false })),
  },
  {
    title: "pitfall 28: nobody looks at incarnations, so that a wiped node votes twice",
    plant: () => {
      const undo = [
        replaceMethod(Identity.prototype, "problemOfPeer", () => () => undefined),
        replace(NodeDirectory.prototype, "verdict", () => ({ get: () => undefined })),
      ]
      return () => {
        for (const each of undo) each()
      }
    },
  },
  {
    title: "the directory takes an older report of a range",
    from: 19,
    plant: () =>
      replaceMethod(
        NodeControl.prototype,
        "news",
        () =>
          function (this: unknown) {
            // Of whoever holds a replica, however far behind it is.
            const { options } = this as { options: NodeControlOptions }
            return options
              .ranges()
              .flatMap(({ descriptor, term }) => (term > 0 ? [descriptor] : []))
          },
      ),
  },
  {
    title: "an eventual write whose answer was lost is sent to the next node",
    plant: () =>
      replaceEventualCalls(
        (asked) => ({ ...asked, repeats: "anywhere" }),
        (ended) => ended,
      ),
  },
  {
    title: "an eventual write that may have been taken ends in a refusal",
    plant: () =>
      replaceEventualCalls(
        (asked) => asked,
        (ended) => {
          const isUnknown = "error" in ended && ended.error._tag === "OutcomeUnknown"
          return isUnknown ? { error: new QuorumUnavailable({ detail: "planted" }) } : ended
        },
      ),
  },
]
