/**
 * Majorities, for groups so small (at most nine voters) that a quadratic count without allocation
 * is the fastest way to find one.
 */

/** Size of the smallest majority of `voters` voters, which must be 1 or more. */
export function majority(voters: number): number {
  return (voters >>> 1) + 1
}

/**
 * Largest number that a majority of `values` reaches, or 0. One value per voter, in any order: a
 * log index stored there, or a heartbeat round that it echoed. It can go down after a leader
 * change, so callers must not assert that it advances. (Raft paper 5.3, 5.4.2)
 */
export function quorumIndex(values: ReadonlyArray<number>): number {
  const needed = majority(values.length)
  let best = 0
  for (let i = 0; i < values.length; i++) {
    const candidate = values[i] as number
    if (candidate <= best) continue
    let reaching = 0
    for (let j = 0; j < values.length; j++) if ((values[j] as number) >= candidate) reaching++
    if (reaching >= needed) best = candidate
  }
  return best
}

/**
 * Largest number that a majority of every set reaches, or 0 (Raft paper 6: both majorities of a joint group). Requires at least one set.
 */
export function jointQuorumIndex(sets: ReadonlyArray<ReadonlyArray<number>>): number {
  let least = Number.POSITIVE_INFINITY
  for (let i = 0; i < sets.length; i++) {
    least = Math.min(least, quorumIndex(sets[i] as ReadonlyArray<number>))
  }
  return least
}

export type Ballot = "granted" | "refused" | undefined
export type VoteResult = "won" | "lost" | "pending"

/** What the ballots, one per voter, decide: lost as soon as the missing ones cannot win it. */
export function voteResult(ballots: ReadonlyArray<Ballot>): VoteResult {
  const needed = majority(ballots.length)
  let granted = 0
  let refused = 0
  for (let i = 0; i < ballots.length; i++) {
    if (ballots[i] === "granted") granted++
    else if (ballots[i] === "refused") refused++
  }
  if (granted >= needed) return "won"
  return ballots.length - refused < needed ? "lost" : "pending"
}

/** What ballots in every set decide: won in all of them, lost in any. */
export function jointVoteResult(sets: ReadonlyArray<ReadonlyArray<Ballot>>): VoteResult {
  const results = sets.map(voteResult)
  if (results.includes("lost")) return "lost"
  return results.includes("pending") ? "pending" : "won"
}
