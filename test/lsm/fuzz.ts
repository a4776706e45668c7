import { DiskError, StorageCorruption } from "../../src/disk/disk.ts"
import { MalformedBytes } from "../../src/lib/byteReader.ts"
import { toHex } from "../../src/lib/bytes.ts"
import { Prng } from "../../src/lib/prng.ts"
import { NewerFormat, OlderFormat } from "../../src/lsm/table/format.ts"
import { type Decoder, makeDecoders } from "./fuzzDecoders.ts"
import { mutated } from "./fuzzMutation.ts"

export interface StorageFuzzReport {
  readonly inputs: number
  /** Inputs that a decoder took, by decoder. */
  readonly taken: Record<string, number>
  readonly refused: Record<string, number>
  /** The input that took longest, milliseconds. */
  readonly slowestMs: number
  readonly slowest: string
  /** By how much the largest resident set grew, bytes. */
  readonly grownBytes: number
}

const timeLimitMs = 100

/**
 * Feeds mutated bytes to every decoder of stored bytes: batch, journal segment, table and its parts, blocks under a right checksum, manifest and
 * its edits under a right checksum, CURRENT, spill, each compression. Each may refuse with a typed error and do nothing else: no other error, no
 * input that takes over 100 ms. Throws at the first that does, with the input.
 */
export function runStorageFuzz(count: number, seed: number): StorageFuzzReport {
  const prng = new Prng(seed)
  const decoders = makeDecoders(prng.fork())
  const weights = decoders.flatMap((decoder) => Array<Decoder>(decoder.weight).fill(decoder))
  const taken: Record<string, number> = {}
  const refused: Record<string, number> = {}
  for (const { name } of decoders) {
    taken[name] = 0
    refused[name] = 0
  }
  // The first calls of each are those of a cold machine.
  for (const decoder of decoders) for (const sample of decoder.samples) decoder.decode(sample)
  const before = process.resourceUsage().maxRSS
  let slowestMs = 0
  let slowest = ""
  for (let i = 0; i < count; i++) {
    const decoder = prng.pick(weights)
    const sample = prng.pick(decoder.samples)
    const input = (decoder.mutate ?? mutated)(sample, prng)
    const start = performance.now()
    const isTaken = meet(decoder, input, seed)
    const took = performance.now() - start
    if (isTaken) taken[decoder.name]++
    else refused[decoder.name]++
    if (took > slowestMs) {
      slowestMs = took
      slowest = decoder.name
    }
    if (took > timeLimitMs) checkSlow(decoder, input, seed)
  }
  // maxRSS is in KiB on Linux.
  const grownBytes = (process.resourceUsage().maxRSS - before) * 1024
  return { inputs: count, taken, refused, slowestMs, slowest, grownBytes }
}

function meet(decoder: Decoder, input: Uint8Array, seed: number): boolean {
  try {
    decoder.decode(input)
    return true
  } catch (cause) {
    if (isTyped(cause)) return false
    throw new Error(`seed ${seed}: ${decoder.name}: ${cause}: ${toHex(input)}`, { cause })
  }
}

export function isTyped(error: unknown): boolean {
  return (
    error instanceof StorageCorruption ||
    error instanceof MalformedBytes ||
    error instanceof NewerFormat ||
    error instanceof OlderFormat ||
    (error instanceof DiskError && error.reason === "not-found")
  )
}

/** A pause of the machine is no hang: an input is slow when it is slow again and again. */
function checkSlow(decoder: Decoder, input: Uint8Array, seed: number): void {
  for (let i = 0; i < 3; i++) {
    const start = performance.now()
    meet(decoder, input, seed)
    if (performance.now() - start <= timeLimitMs) return
  }
  throw new Error(`seed ${seed}: ${decoder.name} takes over ${timeLimitMs} ms: ${toHex(input)}`)
}
