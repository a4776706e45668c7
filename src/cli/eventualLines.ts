import type { EventualStatus } from "../dynamo/node/eventualStatus.ts"
import type { EventualReceipt } from "../dynamo/node/requests.ts"
import { toHex } from "../lib/bytes.ts"
import { nodeName } from "./receipts.ts"
import { exactText } from "./textBytes.ts"

/** What answers of eventual namespaces look like in lines and in JSON. */

export function jsonEventualReceipt(receipt: EventualReceipt) {
  const { coordinator, asked, achieved, answered, owners, standIns, sloppy, overlap } = receipt
  return {
    ...{ asked, achieved, coordinator: nodeName(coordinator) },
    answered: answered.map(nodeName),
    owners: owners.map(nodeName),
    standIns: standIns.map(({ node, owner }) => ({ node: nodeName(node), owner: nodeName(owner) })),
    ...{ sloppy, overlap },
    repairs: receipt.repairs.map(nodeName),
  }
}

/** `siblings` as text, or `siblingsHex` when asked for, or when one of them is no UTF-8. */
export function jsonSiblings(siblings: ReadonlyArray<Uint8Array>, hex: boolean) {
  const texts = hex ? [undefined] : siblings.map(exactText)
  return texts.includes(undefined) ? { siblingsHex: siblings.map(toHex) } : { siblings: texts }
}

/** `quorum: n1, n2 of n1 n2 n3` and what else is to be known of it. */
export function receiptLine(receipt: EventualReceipt, kind: "read" | "write"): string {
  const { asked, achieved, answered, owners, standIns, overlap, sloppy, repairs } = receipt
  const names = (nodes: ReadonlyArray<number>) => nodes.map(nodeName).join(" ")
  const parts = [
    `${asked}: ${names(answered) || "no owner"} of ${names(owners)} (level achieved by owners and stand-ins: ${achieved})`,
    `coordinated by ${nodeName(receipt.coordinator)}`,
  ]
  for (const { node, owner } of standIns) {
    parts.push(
      node === owner
        ? `${nodeName(node)} keeps a hint for the owners by a newer ring`
        : `${nodeName(node)} stands in for ${nodeName(owner)}`,
    )
  }
  if (sloppy) parts.push("sloppy: owners alone do not make up the level")
  const others = kind === "read" ? "writes" : "reads"
  parts.push(
    overlap
      ? `overlaps with ${others} at the namespace's level, stand-ins apart`
      : `does not overlap with ${others} at the namespace's level`,
  )
  if (repairs.length > 0) parts.push(`repaired: ${names(repairs)}`)
  return parts.join("; ")
}

export function jsonEventualStatus(status: EventualStatus) {
  const { divergence, hints, refilling } = status
  return {
    ...status,
    divergence: divergence.map((each) => ({ ...each, node: nodeName(each.node) })),
    hints: hints.map((each) => ({ ...each, node: nodeName(each.node) })),
    refilling: { ...refilling, from: refilling.from.map(nodeName) },
  }
}

/** What is out of the ordinary; none when all is well. */
export function eventualStatusLines(status: EventualStatus): ReadonlyArray<string> {
  const lines: Array<string> = []
  const { slots, unannounced, from } = status.refilling
  if (slots > 0) {
    const waits = unannounced > 0 ? `; the ring has not heard of ${unannounced} of them` : ""
    const owners = from.length > 0 ? ` from ${from.map(nodeName).join(" ")}` : ""
    lines.push(`has lost data of ${slots} slots to damage: refills them${owners}${waits}`)
  }
  for (const { node, keys, oldestMs } of status.divergence) {
    if (keys > 0) lines.push(`differs from ${nodeName(node)} in ${keys} keys, for ${oldestMs} ms`)
  }
  for (const { node, count, bytes } of status.hints) {
    lines.push(`owes ${nodeName(node)} ${count} hints, ${bytes} bytes`)
  }
  return lines
}
