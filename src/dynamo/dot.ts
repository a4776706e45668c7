import { assert } from "../lib/assert.ts"
import type { ByteReader } from "../lib/byteReader.ts"
import { MalformedBytes } from "../lib/byteReader.ts"
import type { ByteWriter } from "../lib/byteWriter.ts"
import type { NodeId } from "../types.ts"

/**
 * A dot names one write: (actor, counter). An actor is a node in one of its epochs; its counter runs through all keys of a
 * slot, from 1. A dot is never used for two writes: the counter is durable before the dot leaves the node, and a
 * node that lost data or begins a tenure takes a new epoch.
 *
 *     dot = node varint ‖ epoch varint ‖ counter varint
 *
 * Stored and sent: do not change. An actor is one safe integer, node * 2^32 + epoch, so that sorting by actor is sorting
 * by node, then epoch.
 */
export type Actor = number

const epochs = 2 ** 32
/** Exclusive: an actor stays a safe integer. */
const nodes = 2 ** 21

export function isEpoch(epoch: number): boolean {
  return epoch >= 1 && epoch < epochs
}

export function actorOf(node: NodeId, epoch: number): Actor {
  assert(node >= 1 && node < nodes, () => `node ${node} makes no actor`)
  assert(isEpoch(epoch), () => `epoch ${epoch} makes no actor`)
  return node * epochs + epoch
}

export function nodeOf(actor: Actor): NodeId {
  return Math.floor(actor / epochs)
}

export function epochOf(actor: Actor): number {
  return actor % epochs
}

/** The actor of a node and an epoch read from bytes, in hot paths: nothing is checked. */
export function actorUnsafe(node: number, epoch: number): Actor {
  return node * epochs + epoch
}

/** Negative, zero or positive as the left dot is before, equal to or after the right in every list of dots. */
export function compareDots(
  leftActor: Actor,
  leftCounter: number,
  rightActor: Actor,
  rightCounter: number,
): number {
  return leftActor === rightActor ? leftCounter - rightCounter : leftActor - rightActor
}

export function writeActor(out: ByteWriter, actor: Actor): void {
  const node = Math.floor(actor / epochs)
  out.varint(node)
  out.varint(actor - node * epochs)
}

export function readActor(reader: ByteReader): Actor {
  const node = reader.varint()
  const epoch = reader.varint()
  if (node < 1 || node >= nodes || !isEpoch(epoch)) {
    throw new MalformedBytes(`node ${node} in epoch ${epoch} is no actor`)
  }
  return node * epochs + epoch
}

/** A counter of a dot that exists, so 1 or more. */
export function readCounter(reader: ByteReader): number {
  const counter = reader.varint()
  if (counter === 0) throw new MalformedBytes("counters begin at 1")
  return counter
}

/** `n2.1:7`: the seventh dot of node 2 in epoch 1. */
export function describeDot(actor: Actor, counter: number): string {
  return `n${nodeOf(actor)}.${epochOf(actor)}:${counter}`
}
