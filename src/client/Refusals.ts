import {
  DiskFull,
  InvalidRequest,
  type KvorumError,
  NamespaceNotFound,
  NotLeader,
  OutcomeUnknown,
  Overloaded,
  QuorumUnavailable,
  RangeMoved,
  StorageCorrupt,
} from "../Errors.ts"
import type { Refusal } from "../wire/answers.ts"
import type { Failure } from "./plans.ts"

export function failureOf({ error, detail }: Failure): KvorumError {
  return error === "RangeMoved" ? new RangeMoved({ detail }) : new InvalidRequest({ detail })
}

/** The error that a caller sees when a refusal was the last word. */
export function errorOf(refusal: Refusal): KvorumError {
  switch (refusal._tag) {
    case "NotLeader":
      if (refusal.leader === undefined) {
        return new QuorumUnavailable({ detail: `range ${refusal.range} has no leader` })
      }
      return new NotLeader({ range: refusal.range, leader: refusal.leader })
    case "RangeMoved":
      return new RangeMoved({
        detail: "the range of the key moved and was not found again in time",
      })
    case "QuorumUnavailable":
      return new QuorumUnavailable({
        detail: `range ${refusal.range}: no majority of its replicas confirmed in time`,
      })
    case "Overloaded":
      return new Overloaded({ what: refusal.what })
    case "DiskFull":
      return new DiskFull({ where: `n${refusal.node}` })
    case "InvalidRequest":
      return new InvalidRequest({ detail: refusal.message })
    case "OutcomeUnknown":
      return new OutcomeUnknown({
        detail: `range ${refusal.range}: the write was under way when its leader stopped answering`,
      })
    case "StorageCorrupt":
      return new StorageCorrupt({ detail: refusal.message })
    case "Unfinished":
      return new OutcomeUnknown({ detail: refusal.message })
    case "NamespaceNotFound":
      return new NamespaceNotFound({ namespace: refusal.namespace })
    default:
      return refusal satisfies never
  }
}
