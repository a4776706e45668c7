import type { Interval } from "../lsm/manifest/version.ts"

const shownBytes = 48

/** Bytes as one word of a line: printable ASCII as it is, everything else as \xNN, long ones cut. */
export function bytesText(bytes: Uint8Array, maxBytes = shownBytes): string {
  let result = ""
  for (const byte of bytes.subarray(0, maxBytes)) {
    if (byte === 0x5c) result += "\\\\"
    else if (byte >= 0x20 && byte < 0x7f) result += String.fromCharCode(byte)
    else result += `\\x${byte.toString(16).padStart(2, "0")}`
  }
  return bytes.length > maxBytes ? `${result}...(${bytes.length} bytes)` : result
}

/** `[lower, upper)`; an upper bound that is a key with a zero byte behind it, as the one after the last key is, reads `key]`. */
export function intervalText(interval: Interval): string {
  const { lower, upper } = interval
  const start = `[${bytesText(lower)}, `
  if (upper === undefined) return `${start})`
  const closed = upper.length > 0 && upper[upper.length - 1] === 0
  return closed
    ? `${start}${bytesText(upper.subarray(0, upper.length - 1))}]`
    : `${start}${bytesText(upper)})`
}

const kibibyte = 1024
const mebibyte = 1024 * kibibyte

/** A size for people: `512 B`, `12.0 KiB`, `64.0 MiB`. */
export function sizeText(sizeBytes: number): string {
  if (sizeBytes < kibibyte) return `${sizeBytes} B`
  if (sizeBytes < mebibyte) return `${(sizeBytes / kibibyte).toFixed(1)} KiB`
  return `${(sizeBytes / mebibyte).toFixed(1)} MiB`
}
