import { RangeMachine } from "../../../src/server/apply.ts"
import { KeyWriter } from "../../../src/server/keyWriter.ts"
import { Replica } from "../../../src/server/replica.ts"
import type { WallMs } from "../../../src/types.ts"
import type { BatchView } from "../../../src/wire/batch.ts"
import { type CommandStatus, commandStatuses } from "../../../src/wire/command.ts"
import type { OperationView } from "../../../src/wire/commandCodes.ts"
import { type Mutant, withMethod } from "./mutant.ts"

class DropsByPresentTime extends RangeMachine {
  constructor(...options: ConstructorParameters<typeof RangeMachine>) {
    super(...options)
    Object.defineProperty(this, "flushedTime", { get: () => this.rangeTime, set: () => {} })
  }
}

export const expiredDroppedEarly: Mutant = {
  name: "CA",
  title: "compactions drop by the range time in memory, not by that of the flushed state",
  parts: { RangeMachine: DropsByPresentTime },
}

interface Stamping {
  lastVersion: number
}

export const tickNotInFloor: Mutant = {
  name: "CB",
  title: "a leader stamps below the tick that it has proposed",
  plant: withMethod<Stamping, [WallMs], void>(
    Replica,
    "proposeTick",
    (original) =>
      function (wallMs) {
        const { lastVersion } = this
        original.call(this, wallMs)
        this.lastVersion = lastVersion
      },
  ),
}

interface Adding {
  kept: number
}

export const addForgetsExpiry: Mutant = {
  name: "CC",
  title: "an add without a ttl makes its key last for ever",
  plant: withMethod<Adding, [OperationView, Uint8Array | undefined], CommandStatus>(
    KeyWriter,
    "add",
    (original) =>
      function (view, record) {
        const status = original.call(this, view, record)
        this.kept = 0
        return status
      },
  ),
}

interface Applying {
  readonly batch: BatchView
  readonly keys: KeyWriter
  readonly command: OperationView
}

export const batchInPieces: Mutant = {
  name: "CD",
  title: "a batch is judged while it is carried out: what came before the false condition stays",
  plant: withMethod<Applying, [number, number], CommandStatus>(
    RangeMachine,
    "applyBatch",
    (original) =>
      function (version, at) {
        const { batch, keys } = this
        batch.begin(this.command.value)
        while (batch.next()) {
          const status = keys.judge(batch, version)
          if (status === commandStatuses.conditionFalse) break
          if (status === commandStatuses.done) keys.carryOut(batch, version)
        }
        return original.call(this, version, at)
      },
  ),
}
