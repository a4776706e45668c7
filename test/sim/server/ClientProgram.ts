import { Cause, Context, Effect, type Exit, Layer, Option } from "effect"
import { Client, type ClientShape } from "../../../src/client/Client.ts"
import type { KvorumError } from "../../../src/Errors.ts"
import type { NodeId } from "../../../src/types.ts"
import type { Machine } from "./machine.ts"
import { clientAddressOf } from "./ServerNode.ts"
import type { SimulatedProcess } from "./simulatedProcess.ts"

/** What a call came to: its answer, or why there is none. */
export type Ended<A> = { readonly answer: A } | { readonly error: KvorumError }

/** A program that uses the client, in a process of its own. */
export class ClientProgram {
  readonly process: SimulatedProcess
  private shape: ClientShape | undefined

  constructor(machine: Machine, founders: ReadonlyArray<NodeId>, attemptTimeoutMs: number) {
    this.process = machine.boot()
    const endpoints = founders.map((node) => clientAddressOf(`n${node}`))
    const layer = Client.layer({ endpoints, attemptTimeoutMs })
    const run = Effect.scoped(
      Effect.flatMap(Layer.build(layer), (context) => {
        this.shape = Context.get(context, Client)
        return Effect.never
      }),
    )
    this.process.run(() => void Effect.runFork(run))
  }

  get client(): ClientShape {
    if (this.shape === undefined) throw new Error("the client is not built yet")
    return this.shape
  }

  /** Calls from an event of the world. `done` is part of the process. */
  call<A>(
    what: (client: ClientShape) => Effect.Effect<A, KvorumError>,
    done: (ended: Ended<A>) => void,
  ): void {
    this.process.run(() => {
      Effect.runFork(Effect.suspend(() => what(this.client))).addObserver((exit) =>
        done(endOf(exit)),
      )
    })
  }
}

/** A defect of the client is one of the program, and ends the run. */
function endOf<A>(exit: Exit.Exit<A, KvorumError>): Ended<A> {
  if (exit._tag === "Success") return { answer: exit.value }
  const error = Option.getOrUndefined(Cause.findErrorOption(exit.cause))
  if (error === undefined)
    throw new Error(`a call ended with a defect: ${Cause.pretty(exit.cause)}`)
  return { error }
}
