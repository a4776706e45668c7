import type { Receipt } from "../wire/answers.ts"

/** A node id as people write it. */
export function nodeName(id: number): string {
  return `n${id}`
}

/** What an answer says of itself, as `--json` prints it. */
export function jsonReceipt(receipt: Receipt) {
  const { level, node, role, range, term, index } = receipt
  return { level, node: nodeName(node), role, range, term, index }
}
