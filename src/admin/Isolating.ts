import { Effect } from "effect"
import { NamespaceNotFound } from "../Errors.ts"
import { compareBytes, prefixEnd, text } from "../lib/bytes.ts"
import { namespaceStart, positionIn, slotStart } from "../lib/position.ts"
import { hashTag, slotCount, slotOf } from "../lib/slot.ts"
import { containsPosition, rangeAsJson, type StrongNamespace } from "../server/directory.ts"
import type { Key, Position } from "../types.ts"
import { boundaryKey, invalid } from "./Meta.ts"
import { type Plane, rangesOf } from "./Plane.ts"
import { cutAtAll } from "./Ranges.ts"

/**
 * Gives the keys of one hash tag a range of their own, so that they can be led and moved apart from all others: all of the tag's slot, in which keys of other tags
 * may lie too. In an ordered namespace: all keys that begin with the prefix. Done already counts as done.
 */
export const isolateTag = Effect.fnUntraced(function* (plane: Plane, name: string, prefix: Key) {
  const namespace = plane.control.directory().namespaces.find((each) => each.name === name)
  if (namespace === undefined) return yield* new NamespaceNotFound({ namespace: name })
  if (namespace.mode !== "strong") {
    return yield* invalid(`namespace ${name} is eventual: its keys lie on the ring, not in ranges`)
  }
  if (prefix.length === 0) return yield* invalid("a tag has at least one byte")
  if (namespace.partitioning === "hash" && hashTag(prefix).start === 0) {
    return yield* invalid(
      `"${text(prefix)}" holds no hash tag: keys of a hash namespace are kept together by the part in braces, such as {user1}`,
    )
  }
  const { start, end } = intervalOf(namespace, prefix)
  const { id } = namespace
  const isEdge = (at: Position) =>
    compareBytes(at, namespaceStart(id)) <= 0 || compareBytes(at, namespaceStart(id + 1)) >= 0
  const cuts = [start, end].filter((at) => !isEdge(at))
  yield* cutAtAll(plane, cuts)
  for (const at of cuts) yield* plane.meta.create(boundaryKey(at), "ordered")
  const ranges = yield* rangesOf(plane)
  const found = ranges.find(({ descriptor }) => containsPosition(descriptor, start))
  if (found === undefined) return yield* invalid(`no node that is up knows the range of ${name}`)
  return { descriptor: rangeAsJson(found.descriptor) }
})

function intervalOf(namespace: StrongNamespace, prefix: Key) {
  const { id, partitioning } = namespace
  const last = namespaceStart(id + 1)
  if (partitioning === "ordered") {
    const start = positionIn(namespace, prefix)
    const end = prefixEnd(start)
    return { start, end: end === undefined || compareBytes(end, last) > 0 ? last : end }
  }
  const slot = slotOf(prefix)
  const start = slot === 0 ? namespaceStart(id) : slotStart(id, slot)
  return { start, end: slot + 1 < slotCount ? slotStart(id, slot + 1) : last }
}
