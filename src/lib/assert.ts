/** A broken promise of this program. Nothing catches it: wrong is worse than down. */
export class AssertionError extends Error {
  override readonly name = "AssertionError"
}

/**
 * Throws `AssertionError` unless `condition` holds. Stays on in production. `message` names the values; pass a
 * function where building the text would cost something in a hot loop.
 */
export function assert(condition: boolean, message: string | (() => string)): asserts condition {
  if (!condition) throw new AssertionError(typeof message === "string" ? message : message())
}
