import { concatBytes } from "../../src/lib/bytes.ts"
import type { Prng } from "../../src/lib/prng.ts"

/** A copy of `bytes` with a few things wrong: bits, bytes, lengths that claim much, pieces cut, doubled or moved. */
export function mutated(bytes: Uint8Array, prng: Prng): Uint8Array {
  let result: Uint8Array = bytes.slice()
  for (let left = prng.int(1, 3); left > 0 && result.length > 0; left--) {
    result = mutatedOnce(result, prng)
  }
  return result
}

function mutatedOnce(bytes: Uint8Array, prng: Prng): Uint8Array {
  const at = prng.int(0, bytes.length - 1)
  switch (prng.int(0, 7)) {
    case 0:
      bytes[at] = prng.int(0, 255)
      return bytes
    case 1:
    case 2:
      bytes[at] = (bytes[at] as number) ^ (1 << prng.int(0, 7))
      return bytes
    case 3:
      return bytes.slice(0, at)
    case 4:
      return concatBytes(bytes.subarray(0, at), bytes.subarray(prng.int(at, bytes.length)))
    case 5:
      return concatBytes(bytes.subarray(0, at), bytes.subarray(prng.int(0, at)))
    case 6:
      // Where a length may be: a large one, of every width.
      bytes.fill(prng.pick([0xff, 0x7f, 0x80, 0]), at, at + prng.pick([1, 2, 4, 8]))
      return bytes
    default:
      bytes.copyWithin(at, prng.int(0, bytes.length - 1), prng.int(0, bytes.length))
      return bytes
  }
}
