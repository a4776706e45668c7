import { hashPrefixBytes } from "../lib/position.ts"

/**
 * Every limit of the doors, the client and the peers' frames, in one place. What lies beyond one is refused by name
 * (`InvalidRequest`), or closes the connection that sent it; nothing is ever allocated by a claimed length.
 */
export const limits = {
  /** A frame's payload, of peers and of the native door. */
  frameBytes: 16 * 1024 * 1024,
  /** The first frame of a connection, before anything is known of who sends it. */
  helloBytes: 4 * 1024,
  keyBytes: 2048,
  valueBytes: 1024 * 1024,
  /** Of values in eventual namespaces, 71 years as in strong ones: what ends then is a number that all can read. */
  ttlMs: Math.floor(2 ** 51 / 1000),
  /** Above this a value is taken, and a warning logged: Kvorum is made for small pairs. */
  valueWarnBytes: 10 * 1024,
  batchOperations: 1000,
  batchBytes: 4 * 1024 * 1024,
  scanPageEntries: 1000,
  /** A page of a scan is cut here; one pair may exceed it. */
  scanPageBytes: 1024 * 1024,
  /** A command expires at most 120 s after it was made, 10 s of which are slack for clocks (DESIGN section 3). */
  deadlineMs: 110_000,
  /** A procedure of the control plane may have to move data. */
  adminDeadlineMs: 3_600_000,
} as const

export const positionBytesMax = hashPrefixBytes + limits.keyBytes

/** Why a key is refused, or `undefined`. */
export function keyProblem(keyBytes: number): string | undefined {
  if (keyBytes === 0) return "key is empty: limit is 1 to 2048 bytes"
  if (keyBytes > limits.keyBytes)
    return `key of ${keyBytes} bytes: limit is ${limits.keyBytes} bytes`
  return undefined
}

/** Why a value is refused, or `undefined`. `what` names it in the text. */
export function valueProblem(valueBytes: number, what = "value"): string | undefined {
  if (valueBytes <= limits.valueBytes) return undefined
  return `${what} of ${valueBytes} bytes: limit is ${limits.valueBytes} bytes`
}

/** Why the time after which a value of an eventual namespace expires is refused, or `undefined`. 0: never. */
export function ttlProblem(ttlMs: number): string | undefined {
  if (Number.isInteger(ttlMs) && ttlMs >= 0 && ttlMs <= limits.ttlMs) return undefined
  return `ttlMs of ${ttlMs}: limit is whole numbers from 1 to ${limits.ttlMs} ms (leave it out for a value that does not expire)`
}

/** Why a batch is refused, or `undefined`. `sizeBytes` counts keys and values. */
export function batchProblem(options: {
  readonly operations: number
  readonly sizeBytes: number
}): string | undefined {
  if (options.operations > limits.batchOperations) {
    return `batch of ${options.operations} operations: limit is ${limits.batchOperations} operations`
  }
  if (options.sizeBytes > limits.batchBytes) {
    return `batch of ${options.sizeBytes} bytes: limit is ${limits.batchBytes} bytes`
  }
  return undefined
}

/** Why a deadline is refused, or `undefined`. */
export function deadlineProblem(deadlineMs: number): string | undefined {
  if (deadlineMs > 0 && deadlineMs <= limits.deadlineMs) return undefined
  return `deadline of ${deadlineMs} ms: limit is above 0 and up to ${limits.deadlineMs} ms`
}
