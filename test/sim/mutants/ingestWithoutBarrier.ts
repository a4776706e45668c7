import { SnapshotExchange } from "../../../src/server/snapshotExchange.ts"
import type { Mutant } from "./mutant.ts"

class Broken extends SnapshotExchange {
  protected override barrierPassed(): boolean {
    return true
  }
}

export const ingestWithoutBarrier: Mutant = {
  name: "K",
  title: "a snapshot is ingested while memtables still hold the range's old state",
  parts: { SnapshotExchange: Broken },
}
