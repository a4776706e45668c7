import { noEventualStatus } from "../../src/dynamo/node/eventualStatus.ts"
import { ByteWriter } from "../../src/lib/byteWriter.ts"
import { hashPosition } from "../../src/lib/position.ts"
import type { Prng } from "../../src/lib/prng.ts"
import { encodeRing } from "../../src/topology/ringCodec.ts"
import type { RangeDescriptor, ReplicaPlace } from "../../src/types.ts"
import type { DataAnswer, Receipt, Refusal, Routes } from "../../src/wire/answers.ts"
import {
  writeAdministered,
  writeAnswer,
  writeClosing,
  writeEventual,
  writeRoutes,
  writeStatus,
} from "../../src/wire/answersLayout.ts"
import { type BatchOperation, encodeBatch } from "../../src/wire/batch.ts"
import { commandStatuses, conditions, encodeCommand, operations } from "../../src/wire/command.ts"
import {
  type RangeChange,
  type WireFreshness,
  type WireRequest,
  writeHello,
  writeRequest,
  writeTurnedAway,
  writeWelcome,
} from "../../src/wire/native.ts"
import {
  writePeerClosing,
  writePeerHello,
  writePeerPing,
  writePeerRefusal,
} from "../../src/wire/peer.ts"
import { ringOf } from "../topology/harness.ts"
import { eventualReplyOf, eventualRequestOf } from "./eventualSamples.ts"

/** Well-formed things of every kind, drawn from a seed. */
export function bytesOf(prng: Prng, min: number, max: number): Uint8Array {
  return Uint8Array.from({ length: prng.int(min, max) }, () => prng.int(0, 255))
}

const safe = (prng: Prng) => Math.floor(prng.logUniform(1, 2 ** 53 - 1))
const level = (prng: Prng) => prng.pick(["linearizable", "local", "bounded"] as const)

function positionOf(prng: Prng): Uint8Array {
  return hashPosition(1, bytesOf(prng, 1, prng.chance(0.05) ? 2048 : 20))
}

const { put, delete: remove, add } = operations

export function batchOperationOf(prng: Prng): BatchOperation {
  const operation = prng.pick([put, remove, add])
  const condition = prng.pick(Object.values(conditions))
  return {
    operation,
    condition,
    expectedVersion: safe(prng),
    ttl: operation === remove || prng.chance(0.5) ? 0 : prng.int(1, 2 ** 40),
    position: positionOf(prng),
    value:
      operation === put
        ? bytesOf(prng, 0, 40)
        : operation === add
          ? bytesOf(prng, 8, 8)
          : new Uint8Array(0),
    expectedValue: condition === conditions.valueEquals ? bytesOf(prng, 0, 10) : new Uint8Array(0),
  }
}

/** Operations on different keys. */
export function batchOf(prng: Prng): ReadonlyArray<BatchOperation> {
  const byKey = new Map<string, BatchOperation>()
  for (let left = prng.int(1, 6); left > 0; left--) {
    const operation = batchOperationOf(prng)
    byKey.set(operation.position.toString(), operation)
  }
  return [...byKey.values()]
}

export function commandOf(prng: Prng): Uint8Array {
  const identity = {
    boundsVersion: prng.uint32(),
    clientId: safe(prng),
    sequence: safe(prng),
    ackedBelow: safe(prng),
    expiresAt: safe(prng),
  }
  if (!prng.chance(0.25)) {
    return encodeCommand({ ...identity, ...batchOperationOf(prng) })
  }
  const batch = batchOf(prng)
  return encodeCommand({
    ...identity,
    operation: operations.batch,
    condition: conditions.none,
    expectedVersion: 0,
    ttl: 0,
    position: (batch[0] as BatchOperation).position,
    value: encodeBatch(batch),
    expectedValue: new Uint8Array(0),
  })
}

export function requestOf(prng: Prng): WireRequest {
  const base = { id: prng.uint32(), range: prng.uint32(), deadlineMs: prng.int(1, 10_000) }
  switch (prng.int(0, 6)) {
    case 0:
      return { _tag: "Mutate", ...base, command: commandOf(prng) }
    case 1: {
      const boundsVersion = prng.uint32()
      const read = { level: level(prng), ...freshnessOf(prng) }
      return { _tag: "Get", ...base, ...read, boundsVersion, position: positionOf(prng) }
    }
    case 2:
      return {
        _tag: "Scan",
        ...base,
        ...freshnessOf(prng),
        level: level(prng),
        boundsVersion: safe(prng),
        lower: positionOf(prng),
        upper: positionOf(prng),
        limit: prng.int(1, 1000),
        countOnly: prng.chance(0.5),
        prefix: bytesOf(prng, 0, 5),
      }
    case 3:
      return { _tag: "AskRoutes", id: base.id }
    case 4:
      return { _tag: "Range", ...base, change: changeOf(prng) }
    case 5: {
      const { id, deadlineMs } = base
      return { _tag: "Admin", id, deadlineMs, verb: "range.move", args: { range: 3, to: [null] } }
    }
    default:
      return { _tag: "AskStatus", id: base.id }
  }
}

function freshnessOf(prng: Prng): WireFreshness {
  return {
    maxStalenessMs: prng.uint32(),
    atLeast: safe(prng),
    anyReplica: prng.chance(0.5),
  }
}

function changeOf(prng: Prng): RangeChange {
  const at = prng.chance(0.5) ? undefined : positionOf(prng)
  return prng.pick<RangeChange>([
    { _tag: "Split", boundsVersion: safe(prng), at, child: safe(prng) },
    { _tag: "ChangeMembers", membersVersion: safe(prng), replicas: placesOf(prng) },
    { _tag: "Transfer", to: prng.int(1, 9) },
    { _tag: "Clear", boundsVersion: safe(prng) },
    { _tag: "Merge", boundsVersion: safe(prng), source: safe(prng) },
  ])
}

function placesOf(prng: Prng): ReadonlyArray<ReplicaPlace> {
  return Array.from({ length: prng.int(0, 5) }, (_, i) => ({
    node: i + 1,
    replica: safe(prng),
    role: prng.pick(["voter", "incoming", "outgoing", "learner"] as const),
  }))
}

function descriptorOf(prng: Prng): RangeDescriptor {
  return {
    id: prng.int(0, 100),
    namespace: prng.chance(0.2) ? undefined : prng.int(0, 5),
    start: bytesOf(prng, 0, 8),
    end: bytesOf(prng, 0, 8),
    boundsVersion: safe(prng),
    membersVersion: safe(prng),
    replicas: placesOf(prng),
  }
}

function receiptOf(prng: Prng): Receipt {
  return {
    level: level(prng),
    role: prng.pick(["leader", "follower"] as const),
    node: prng.uint32(),
    range: prng.uint32(),
    term: safe(prng),
    index: safe(prng),
    replica: safe(prng),
    staleBoundMs: prng.int(-1, 1000),
    stateTime: safe(prng),
  }
}

function refusalOf(prng: Prng): Refusal {
  const range = prng.int(0, 1000)
  return prng.pick<Refusal>([
    { _tag: "NotLeader", range, leader: prng.chance(0.5) ? undefined : prng.int(1, 9) },
    {
      _tag: "RangeMoved",
      descriptors: Array.from({ length: prng.int(0, 3) }, () => descriptorOf(prng)),
    },
    { _tag: "QuorumUnavailable", range },
    { _tag: "Overloaded", what: "a queue — full" },
    { _tag: "DiskFull", node: prng.int(1, 9) },
    { _tag: "InvalidRequest", message: "key of 0 bytes" },
    { _tag: "OutcomeUnknown", range },
    { _tag: "StorageCorrupt", message: "" },
    { _tag: "Unfinished", message: "range 3 is on its way" },
    { _tag: "NamespaceNotFound", namespace: "größen" },
  ])
}

export function answerOf(prng: Prng): DataAnswer {
  const base = { rangeTime: safe(prng) }
  const receipt = receiptOf(prng)
  const version = safe(prng)
  switch (prng.int(0, 4)) {
    case 0: {
      const status = prng.pick(Object.values(commandStatuses))
      const value = prng.chance(0.5) ? undefined : bytesOf(prng, 1, 8)
      return { _tag: "Mutated", ...base, status, version, value, receipt }
    }
    case 1: {
      const value = prng.chance(0.3) ? undefined : bytesOf(prng, 0, 50)
      return { _tag: "Value", ...base, value, version, receipt }
    }
    case 2:
      return {
        _tag: "Page",
        ...base,
        count: safe(prng),
        entries: Array.from({ length: prng.int(0, 5) }, () => ({
          position: positionOf(prng),
          value: bytesOf(prng, 0, 30),
          version: safe(prng),
        })),
        next: prng.chance(0.5) ? undefined : positionOf(prng),
        receipt,
      }
    case 3:
      return { _tag: "Changed", ...base, descriptor: descriptorOf(prng), receipt }
    default:
      return { _tag: "Refused", ...base, refusal: refusalOf(prng) }
  }
}

export function routesOf(prng: Prng): Routes {
  return {
    nodes: [
      { id: 1, client: "127.0.0.1:7401", peer: "127.0.0.1:7501" },
      { id: 2, client: "h:1", peer: "" },
    ],
    namespaces: [
      { id: 1, name: "default", mode: "strong", partitioning: "hash" },
      {
        ...{ id: 2 ** 31 + 1, name: "carts", mode: "eventual", partitioning: "hash" },
        eventual: { conflict: "set", copies: 3, write: "quorum", read: "one" },
      },
    ],
    ring: prng.chance(0.5) ? undefined : encodeRing(ringOf(2)),
    ranges: Array.from({ length: prng.int(0, 6) }, () => ({
      descriptor: descriptorOf(prng),
      leader: prng.chance(0.5) ? undefined : prng.int(1, 9),
      term: safe(prng),
      index: safe(prng),
    })),
  }
}

export const statusSample = {
  id: 3,
  pid: 4711,
  state: "ready",
  addresses: { client: "127.0.0.1:7403", peer: "127.0.0.1:7503" },
  eventual: noEventualStatus,
}

/** One well-formed frame, length prefix included, of any kind that either protocol knows. */
export function frameOf(prng: Prng): Uint8Array {
  const writer = new ByteWriter()
  const kinds: ReadonlyArray<() => void> = [
    () => writeRequest(writer, requestOf(prng)),
    () => writeRequest(writer, requestOf(prng)),
    () => writeAnswer(writer, prng.uint32(), answerOf(prng)),
    () => writeAnswer(writer, prng.uint32(), answerOf(prng)),
    () => writeEventual(writer, prng.uint32(), eventualReplyOf(prng)),
    () => {
      const [id, request] = [prng.uint32(), eventualRequestOf(prng)]
      writeRequest(writer, { _tag: "Eventual", id, request })
    },
    () => writeRoutes(writer, prng.uint32(), routesOf(prng)),
    () => writeStatus(writer, prng.uint32(), statusSample),
    () => writeClosing(writer, "garbage"),
    () => writeAdministered(writer, prng.uint32(), { ranges: [1, "two", null] }),
    () => writeHello(writer, { internal: prng.chance(0.5) }),
    () => writeWelcome(writer, { clusterId: "c", node: 1, time: safe(prng) }),
    () => writeTurnedAway(writer, "no"),
    () => writePeerHello(writer, { clusterId: "c", node: 2, incarnation: "i" }),
    () => writePeerRefusal(writer, "no"),
    () => writePeerPing(writer, "ping"),
    () => writePeerClosing(writer, "bye"),
  ]
  prng.pick(kinds)()
  return writer.take()
}
