import { isJoint } from "../../src/server/descriptors.ts"
import { decodeMergeStep } from "../../src/server/merge/entries.ts"
import type { PeerMessage } from "../../src/server/peerMessage.ts"
import type { Reply } from "../../src/server/requests.ts"
import type { RangeDescriptor } from "../../src/types.ts"
import { LoopCluster, voter } from "./loopCluster.ts"
import { outcomeOf } from "./loopNode.ts"

/**
 * Golden scripts of ranges that change: commands to a few store loops in one process, and what the replicas of the ranges did. A line of the trace is an entry that
 * changed a range, as the first node applied it and then who did after that; a message about a merge; or what came of a command.
 *
 *     nodes 3 [+1]              begin, with so many founders and so many more that hold nothing
 *     put KEY VALUE | get KEY
 *     split R CHILD at KEY | merge R R | members R N... | transfer R N
 *     begin R R                 a merge, without waiting for what comes of it
 *     cut N | heal              messages to and from a node are lost
 *     crash N | start N         the power goes; what was not synced is lost
 *     pass MS
 */
export function runRangeScript(commands: ReadonlyArray<string>): ReadonlyArray<string> {
  const script = new RangeScript()
  for (const command of commands) script.run(command)
  return script.lines
}

class RangeScript {
  readonly lines: Array<string> = []
  private cluster = new LoopCluster({ founders: [] })
  private cutOff = new Set<number>()
  private nextReplica = 100
  /** What was applied, and by whom, to be told as one line. */
  private applied = new Map<string, Array<number>>()
  private open: string | undefined

  run(command: string): void {
    const [verb = "", ...words] = command.split(/\s+/)
    const outcome = this.carryOut(verb, words)
    this.close()
    this.lines.push(outcome === undefined ? `> ${command}` : `> ${command}: ${outcome}`)
  }

  private carryOut(verb: string, words: ReadonlyArray<string>): string | undefined {
    const [first = "", second = ""] = words
    const { cluster } = this
    const [range, other] = [Number(first), Number(second)]
    switch (verb) {
      case "nodes":
        return this.begin(range, other || 0)
      case "put":
        cluster.put(first, second)
        return undefined
      case "get":
        return cluster.get(first)
      case "split":
        return this.reply(cluster.split(range, other, words[3]))
      case "merge":
        return this.reply(cluster.merge(range, other))
      case "begin": {
        const { boundsVersion } = cluster.descriptor(range)
        cluster.begin({ _tag: "Merge", range, boundsVersion, source: other })
        return undefined
      }
      case "members":
        return this.reply(cluster.members(range, this.places(range, words.slice(1).map(nodeOf))))
      case "transfer":
        return this.reply(cluster.change({ _tag: "Transfer", range, to: nodeOf(second) }))
      case "cut":
        this.cutOff.add(nodeOf(first))
        return undefined
      case "heal":
        this.cutOff.clear()
        return undefined
      case "crash":
        cluster.crash(nodeOf(first))
        return undefined
      case "start":
        this.listen(nodeOf(first))
        return undefined
      case "pass":
        cluster.pass(range)
        return undefined
      default:
        throw new Error(`no command ${verb}`)
    }
  }

  private begin(founders: number, more: number): undefined {
    this.cluster = new LoopCluster({
      founders: Array.from({ length: founders }, (_, i) => i + 1),
      applied: (node, machine, entry) => this.note(node, machine, entry),
    })
    for (let id = founders + 1; id <= founders + more; id++) this.listen(id)
    this.cluster.loses = (from, to, message) => {
      if (this.cutOff.has(from) || this.cutOff.has(to)) return true
      this.heard(from, to, message)
      return false
    }
    this.cluster.untilLeader(1)
    return undefined
  }

  private listen(node: number): void {
    this.cluster.start(node)
  }

  private note(
    node: number,
    { descriptor, changed }: { descriptor: RangeDescriptor; changed: string | undefined },
    entry: { readonly kind: number; readonly data: Uint8Array },
  ): void {
    if (changed === undefined) return
    const what = changed === "merge" || entry.kind === mergeKind ? stepOf(entry.data) : changed
    const refused = changed === "refused" ? ", which does nothing" : ""
    this.tell(`r${descriptor.id} ${what}${refused}: ${shown(descriptor)}`, node)
  }

  /** One line for all who apply the same, as long as nothing else comes between. */
  private tell(what: string, node: number): void {
    if (this.open !== what) this.close()
    this.open = what
    this.applied.set(what, [...(this.applied.get(what) ?? []), node])
  }

  private close(): void {
    if (this.open === undefined) return
    const nodes = this.applied.get(this.open) ?? []
    this.lines.push(`${nodes.map((node) => `n${node}`).join(" ")}: ${this.open}`)
    this.applied.clear()
    this.open = undefined
  }

  private heard(from: number, to: number, message: PeerMessage): void {
    if (message._tag !== "Merge" || message.kind === "asked" || message.kind === "applied") return
    this.close()
    this.lines.push(`n${from} -> n${to} ${message.kind} r${message.source} for r${message.target}`)
  }

  private reply(reply: Reply | undefined): string {
    if (reply === undefined) return "no answer"
    if (reply._tag !== "Refused") return outcomeOf(reply)
    const { refusal } = reply
    if (refusal._tag === "InvalidRequest") return `refused: ${refusal.message}`
    return refusal._tag === "Overloaded" ? `refused: ${refusal.what}` : `refused: ${refusal._tag}`
  }

  private places(range: number, nodes: ReadonlyArray<number>) {
    const { replicas } = this.cluster.descriptor(range)
    return nodes.map(
      (node) => replicas.find((place) => place.node === node) ?? voter(node, this.nextReplica++),
    )
  }
}

const mergeKind = 6

function stepOf(data: Uint8Array): string {
  const step = decodeMergeStep(data)
  switch (step._tag) {
    case "Freeze":
      return `frozen, to take in r${step.source.id}`
    case "Prepare":
      return `prepared for r${step.target}`
    case "Fence":
      return `goes on without r${step.target}`
    case "Commit":
      return "takes in its neighbour"
    case "Abort":
      return "gives the merge up"
    case "Thaw":
      return "thawed"
    case "Settle":
      return "forgets what it has taken in"
    default:
      return step satisfies never
  }
}

function shown({ boundsVersion, membersVersion, replicas }: RangeDescriptor): string {
  const places = replicas.map(({ node, role }) =>
    role === "voter" ? `n${node}` : `n${node}(${role})`,
  )
  return `${boundsVersion}.${membersVersion} ${places.join(" ")}${isJoint(replicas) ? " joint" : ""}`
}

function nodeOf(word: string): number {
  return Number(word.replace(/^n/, ""))
}
