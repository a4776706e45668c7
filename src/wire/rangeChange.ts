import { MalformedBytes } from "../lib/byteReader.ts"
import type {
  BoundsVersion,
  MembersVersion,
  NodeId,
  Position,
  RangeId,
  ReplicaPlace,
} from "../types.ts"
import { asArray, asBytes, asCount, orUndefined } from "./packed.ts"
import { packPlaces, readPlaces } from "./routesLayout.ts"

/** What is to become of a range itself rather than of its data. */
export type RangeChange =
  | {
      readonly _tag: "Split"
      readonly boundsVersion: BoundsVersion
      /** The first position of the right half; `undefined` = about the middle of the data. */
      readonly at: Position | undefined
      /** Id of the right half, never used before. */
      readonly child: RangeId
    }
  | {
      readonly _tag: "ChangeMembers"
      readonly membersVersion: MembersVersion
      /** All that there are to be in the end: voters and learners only. */
      readonly replicas: ReadonlyArray<ReplicaPlace>
    }
  | { readonly _tag: "Transfer"; readonly to: NodeId }
  | { readonly _tag: "Clear"; readonly boundsVersion: BoundsVersion }
  | {
      readonly _tag: "Merge"
      readonly boundsVersion: BoundsVersion
      /** The right neighbour, which is taken in. */
      readonly source: RangeId
    }

/** Verb and arguments, as members of a packed request (native.ts). */
export function packChange(change: RangeChange): ReadonlyArray<unknown> {
  switch (change._tag) {
    case "Split":
      return ["split", change.boundsVersion, change.at ?? null, change.child]
    case "ChangeMembers":
      return ["members", change.membersVersion, packPlaces(change.replicas)]
    case "Transfer":
      return ["transfer", change.to]
    case "Clear":
      return ["clear", change.boundsVersion]
    case "Merge":
      return ["merge", change.boundsVersion, change.source]
    default:
      return change satisfies never
  }
}

/** Throws `MalformedBytes`. */
export function readChange(members: ReadonlyArray<unknown>): RangeChange {
  const [verb, ...rest] = members
  switch (verb) {
    case "split": {
      const [boundsVersion, at, child] = asArray(rest, 3)
      return {
        _tag: "Split",
        boundsVersion: asCount(boundsVersion),
        at: orUndefined(at, asBytes),
        child: asCount(child),
      }
    }
    case "members": {
      const [version, places] = asArray(rest, 2)
      const membersVersion = asCount(version)
      return { _tag: "ChangeMembers", membersVersion, replicas: readPlaces(places) }
    }
    case "transfer":
      return { _tag: "Transfer", to: asCount(asArray(rest, 1)[0]) }
    case "clear":
      return { _tag: "Clear", boundsVersion: asCount(asArray(rest, 1)[0]) }
    case "merge": {
      const [boundsVersion, source] = asArray(rest, 2)
      return { _tag: "Merge", boundsVersion: asCount(boundsVersion), source: asCount(source) }
    }
    default:
      throw new MalformedBytes("unknown change of a range")
  }
}
