import type { DiskFile } from "../../../src/disk/disk.ts"
import { blockTrailerBytes } from "../../../src/lsm/table/format.ts"
import { TableFile } from "../../../src/lsm/table/tableFile.ts"
import { RaftNode } from "../../../src/raft/raftNode.ts"
import type { Ready } from "../../../src/raft/ready.ts"
import { SimulatedDisk } from "../simulatedDisk.ts"
import { type Mutant, withMethod } from "./mutant.ts"

class NamesForgotten extends SimulatedDisk {
  override syncDirectory(): void {}
}

export const directoryNotSynced: Mutant = {
  name: "AR",
  title: "the names of new files are not synced",
  Disk: NamesForgotten,
}

class TablesUnsynced extends SimulatedDisk {
  override create(path: string): DiskFile {
    const file = super.create(path)
    if (path.endsWith(".table")) file.sync = () => {}
    return file
  }
}

export const tableNotSynced: Mutant = {
  name: "AS",
  title: "a flushed table is not synced before the manifest names it",
  Disk: TablesUnsynced,
}

class VotesEarly extends RaftNode {
  override ready(): Ready {
    const ready = super.ready()
    const isVote = ({ _tag }: { readonly _tag: string }) => _tag === "VoteResponse"
    const early = ready.messagesAfterPersist.filter((message) => isVote(message))
    const rest = ready.messagesAfterPersist.filter((message) => !isVote(message))
    return { ...ready, messages: [...ready.messages, ...early], messagesAfterPersist: rest }
  }
}

export const voteBeforeSync: Mutant = {
  name: "AT",
  title: "a vote leaves before it is durable (pitfall 4)",
  parts: { RaftNode: VotesEarly },
}

export const damageNotNoticed: Mutant = {
  name: "AU",
  title: "a table's blocks are read without a look at their checksums",
  shows: ({ faults }) => faults.flippedNode !== undefined,
  plant: withMethod<TableFile, [Uint8Array, number, { readonly sizeBytes: number }], number>(
    TableFile,
    "checkBlock",
    () => (bytes, start, place) => bytes[start + place.sizeBytes - blockTrailerBytes] as number,
  ),
}
