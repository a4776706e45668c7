import type { Receipt } from "../wire/answers.ts"

/** A node id as people write it. */
export function nodeName(id: number): string {
  return `n${id}`
}

/** What an answer says of itself, as `--json` prints it; `staleBoundMs` is null when nobody knows how old the state was. */
export function jsonReceipt(receipt: Receipt) {
  const { level, node, role, range, term, index, replica, staleBoundMs } = receipt
  const stale = staleBoundMs < 0 ? null : staleBoundMs
  return { level, node: nodeName(node), role, range, replica, term, index, staleBoundMs: stale }
}
