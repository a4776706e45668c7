import { MalformedBytes } from "../lib/byteReader.ts"
import type { ReplicaRole } from "../types.ts"

/** Stored and sent: do not change the order. */
const roles: ReadonlyArray<ReplicaRole> = ["voter", "incoming", "outgoing", "learner"]

export function roleCode(role: ReplicaRole): number {
  return roles.indexOf(role)
}

/** Throws `MalformedBytes`. */
export function roleOf(code: number): ReplicaRole {
  const role = roles[code]
  if (role === undefined) throw new MalformedBytes(`unknown role ${code} of a replica`)
  return role
}
