/**
 * Which room of the other node a message is for. Sent: do not change.
 *
 * What nodes say to each other in a turn leaves as one byte string, one body after another:
 *
 *     message := (code u8 ‖ length u32 ‖ body)*
 */
export const opCodes = {
  /** An owner, or a stand-in with a hint, is to hold a state (requestOps.ts). */
  store: 1,
  stored: 2,
  fetch: 3,
  fetched: 4,
  /** The sender lives, and works by this version of the ring. */
  greeting: 8,
  /** Between two owners that compare and exchange a run of slots (exchanges.ts). */
  exchange: 16,
  /** A hint is brought to its owner, and a tenure ends (hints.ts). */
  hint: 24,
  hinted: 25,
  tenureEnded: 26,
  tenureKnown: 27,
  /** Clocks for reaping (reaper.ts). */
  clocksWanted: 32,
  clocks: 33,
  /** The same for a former owner, before it forgets (formerSlots.ts). */
  coverWanted: 34,
  cover: 35,
  /** A former owner's clock (formerSlots.ts). */
  parting: 36,
  /** Which epochs have ended (endings.ts). */
  endingWanted: 40,
  endingSaid: 41,
} as const
