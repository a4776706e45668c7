import { entryKinds } from "../../src/raft/message.ts"
import type { AppliedEntry, Outcomes } from "../../src/server/apply.ts"
import { entryBase, entryCount, entryHeaderBytes } from "../../src/server/entryData.ts"
import type { LogIndex, RangeId, Version } from "../../src/types.ts"
import { CommandView, commandStatuses } from "../../src/wire/command.ts"
import { Violation } from "./violation.ts"

/**
 * A command takes effect once, in whatever range, however often it was sent: seen where entries are applied, so also of a command whose second effect no
 * client notices.
 */
export class Effects {
  /** By client and sequence: the version that the command had when it took effect. */
  private readonly versions = new Map<string, Version>()
  /** By range: up to where the log was looked at. */
  private readonly seen = new Map<RangeId, LogIndex>()
  private readonly command = new CommandView()

  applied(range: RangeId, entry: AppliedEntry, outcomes: Outcomes): void {
    if (entry.index <= (this.seen.get(range) ?? 0)) return
    this.seen.set(range, entry.index)
    if (entry.kind !== entryKinds.commands) return
    const { command, versions } = this
    const base = entryBase(entry.data)
    let offset = entryHeaderBytes
    for (let j = 0; j < entryCount(entry.data); j++) {
      command.at(entry.data, offset)
      offset = command.end
      const version = base + j
      // A retry is answered with the version of its first time.
      const isEffect =
        outcomes.statuses[j] === commandStatuses.done && outcomes.versions[j] === version
      if (!isEffect) continue
      const { clientId, sequence } = command
      const name = `${clientId}/${sequence}`
      const earlier = versions.get(name)
      if (earlier === undefined) versions.set(name, version)
      else if (earlier !== version) {
        throw new Violation(
          "linearizability",
          `command ${sequence} of client ${clientId} takes effect in r${range} at ${version}, after ${earlier}`,
        )
      }
    }
  }
}
