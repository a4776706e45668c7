/**
 * What the simulator checks. Numbers are those of the invariants in DESIGN section 9.
 *
 * - `leader`: at most one leader per group and term (1)
 * - `committed`: a committed entry is never lost or changed (1)
 * - `logMatching`: two logs that hold an entry of the same index and term agree on it and on the one before (1)
 * - `durability`: nothing is acknowledged, to a client or a peer, before it is durable; a restart finds what was durable (2)
 * - `vote`: a voter votes once per term (2)
 * - `lease`: no two valid leases of a group at one instant (1)
 * - `tiling`: ranges tile the position space, and replicas on a node are disjoint (3)
 * - `versions`: a range's versions only rise, and at equal index its replicas agree on its descriptor
 * - `directory`: what the meta group says of a range, as a node learns it, goes back
 * - `members`: majorities of consecutive memberships of a group meet; each replica goes by the last one in its log
 * - `removed`: only a replica that was removed from its group is destroyed; then it neither votes nor comes back
 * - `chain`: at equal index replicas have made the same writes (4)
 * - `linearizability`: each key behaves as one register, each command takes effect at most once
 * - `staleRead`: a read of a replica goes backwards, or is behind the floor that it names
 * - `counter`: a counter is not the sum of its distinct adds
 * - `expiry`: a key is gone sooner or later than its expiry, or half of an atomic batch is seen
 * - `lostWrite`: eventual mode lost a write that was acknowledged and that nobody has covered (5, 6)
 * - `resurrection`: what was covered, deleted or has expired shows again
 * - `falseSibling`: a value shows beside one whose writer had seen it
 * - `session`: a read of as many owners as overlap with a write misses it
 * - `divergence`: after healing, owners hold other bytes than each other, or somebody keeps what is not his
 * - `undecided`: the check of a key ran out of its budget
 * - `value`: a read returned bytes or a version that no write made
 * - `liveness`: after healing, every group elects, commits and converges in bounded time; no node turns for ever and does nothing
 * - `assertion`: an assert of the program failed, or it refused its own files
 */
export type Invariant =
  | "leader"
  | "committed"
  | "logMatching"
  | "durability"
  | "vote"
  | "lease"
  | "tiling"
  | "versions"
  | "directory"
  | "members"
  | "removed"
  | "chain"
  | "linearizability"
  | "staleRead"
  | "counter"
  | "expiry"
  | "lostWrite"
  | "resurrection"
  | "falseSibling"
  | "session"
  | "divergence"
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
