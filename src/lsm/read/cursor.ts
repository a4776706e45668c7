/**
 * A position in one sorted source. Fields, not accessors that allocate: the key and the value are
 * stretches of byte arrays that the source owns, valid until the cursor moves.
 *
 * A cursor shows at most one version of a key: the newest that it may see, deletes included. It
 * goes one way, down when `reverse`; who wants it to go the other way sets that and seeks.
 */
export interface Cursor {
  reverse: boolean
  readonly valid: boolean
  readonly keyBytes: Uint8Array
  readonly keyOffset: number
  readonly keyLength: number
  readonly sequence: number
  /** One of `kinds` (format.ts). */
  readonly kind: number
  readonly valueBytes: Uint8Array
  readonly valueOffset: number
  readonly valueLength: number
  /**
   * Forward: to the first key at or after `key`. Backward: to the last key before it. `undefined`:
   * to the first of all.
   */
  seek(key: Uint8Array | undefined): void
  /** Requires `valid`. */
  advance(): void
}

/** `compareBytes` over stretches, so that no views need be made. */
export function compareRanges(
  left: Uint8Array,
  leftOffset: number,
  leftLength: number,
  right: Uint8Array,
  rightOffset: number,
  rightLength: number,
): number {
  const length = Math.min(leftLength, rightLength)
  for (let i = 0; i < length; i++) {
    const difference = left[leftOffset + i] - right[rightOffset + i]
    if (difference !== 0) return difference
  }
  return leftLength - rightLength
}

/** The cursor's key against a whole byte string. */
export function compareKey(cursor: Cursor, key: Uint8Array): number {
  return compareRanges(cursor.keyBytes, cursor.keyOffset, cursor.keyLength, key, 0, key.length)
}
