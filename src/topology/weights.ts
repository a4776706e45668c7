import type { RangeId } from "../types.ts"

/** What is known of a range. */
interface Measured {
  readonly bytes: number
  readonly requestsPerSecond: number
}

/** Below these means a cluster is as good as empty, or idle, and what differs is noise. */
const meanBytesMin = 4 * 1024 * 1024
const meanRequestsMin = 100

/**
 * What a replica of each range costs its node, in comparison with the others: a third for being there, a third for its bytes, a third for its requests, each in proportion to the mean of
 * all ranges. So an average range weighs 1, and nodes that carry equal weights are equal in number, disk and load as far as one number can make them.
 */
export function weightsOf(measures: ReadonlyMap<RangeId, Measured>): (range: RangeId) => number {
  const count = Math.max(1, measures.size)
  let bytes = 0
  let requests = 0
  for (const measure of measures.values()) {
    bytes += measure.bytes
    requests += measure.requestsPerSecond
  }
  const meanBytes = Math.max(meanBytesMin, bytes / count)
  const meanRequests = Math.max(meanRequestsMin, requests / count)
  return (range) => {
    const measure = measures.get(range) ?? { bytes: 0, requestsPerSecond: 0 }
    return (1 + measure.bytes / meanBytes + measure.requestsPerSecond / meanRequests) / 3
  }
}
