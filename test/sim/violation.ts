/**
 * What the simulator checks. Numbers are those of the invariants in DESIGN section 9.
 *
 * - `leader`: at most one leader per group and term (1)
 * - `committed`: a committed entry is never lost or changed (1)
 * - `logMatching`: two logs that hold an entry of the same index and term agree on it and on the one before (1)
 * - `durability`: nothing is acknowledged, to a client or a peer, before it is durable; a restart finds what was durable (2)
 * - `vote`: a voter votes once per term (2)
 * - `chain`: at equal index replicas have made the same writes (4)
 * - `linearizability`: each key behaves as one register, each command takes effect at most once
 * - `undecided`: the check of a key ran out of its budget
 * - `value`: a read returned bytes or a version that no write made
 * - `liveness`: after healing, every group elects, commits and converges in bounded time
 * - `assertion`: an assert of the program failed, or it refused its own files
 */
export type Invariant =
  | "leader"
  | "committed"
  | "logMatching"
  | "durability"
  | "vote"
  | "chain"
  | "linearizability"
  | "undecided"
  | "value"
  | "liveness"
  | "assertion"

/** Ends a run. */
export class Violation extends Error {
  override readonly name = "Violation"
  readonly invariant: Invariant
  constructor(invariant: Invariant, message: string, cause?: unknown) {
    super(message, { cause })
    this.invariant = invariant
  }
}
