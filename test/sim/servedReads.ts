import type { NodeId, RangeId, ReplicaId, Version } from "../../src/types.ts"
import type { RegisterValue } from "./linearizability.ts"
import { Violation } from "./violation.ts"

/** A read at the moment in which a replica served it. */
export interface ServedRead {
  readonly node: NodeId
  /** Of the node's process. */
  readonly life: number
  readonly replica: ReplicaId
  readonly range: RangeId
  readonly index: number
  readonly key: number
  readonly value: RegisterValue
  /** 0 = absent. */
  readonly version: Version
  /** The session's floor; 0 = none. */
  readonly atLeast: Version
  readonly rangeTime: Version
}

/**
 * Reads of one replica never go backwards within one life of its node, whatever their level: neither the index applied nor what a key holds. And none is
 * behind the floor that it names.
 */
export class ServedReads {
  private readonly indexes = new Map<string, number>()
  private readonly versions = new Map<string, Version>()
  /** Values that some read returned, to be compared with the outcome of their writes. */
  readonly values = new Set<RegisterValue>()

  note(read: ServedRead): void {
    const { node, life, replica, range, index, key, version, value } = read
    const place = `${node}/${life}/${replica}/`
    this.rise(this.indexes, `${place}${range}`, index, () => `the index of r${range} on n${node}`)
    if (version !== 0) {
      this.rise(this.versions, `${place}k${key}`, version, () => `key ${key} on n${node}`)
      this.values.add(value)
    }
    const isBehind = read.rangeTime < read.atLeast || (version !== 0 && version < read.atLeast)
    if (read.atLeast === 0 || !isBehind) return
    throw new Violation(
      "staleRead",
      `n${node} answers a read of key ${key} with version ${version} at ${read.rangeTime}, behind its floor ${read.atLeast}`,
    )
  }

  private rise(known: Map<string, number>, name: string, to: number, what: () => string): void {
    const from = known.get(name) ?? 0
    if (to < from) throw new Violation("staleRead", `${what()} falls from ${from} to ${to}`)
    known.set(name, to)
  }
}
