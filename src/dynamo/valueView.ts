import type { NamespaceId } from "../types.ts"
import { encodeToken } from "./contextToken.ts"
import { counterValue } from "./crdt/counter.ts"
import { registerValue } from "./crdt/register.ts"
import { SetState } from "./crdt/set.ts"
import { ElementCursor } from "./elements.ts"
import { contextOf, ruleOf } from "./keyState.ts"
import { latestStamp } from "./lww.ts"

/** What a state shows. Byte strings are copies. */
export type ValueView =
  /** Concurrent values in order of their dots; under `lww` and `register` one at most. */
  | { readonly _tag: "Values"; readonly values: ReadonlyArray<Uint8Array> }
  /** In order of bytes. */
  | { readonly _tag: "Set"; readonly members: ReadonlyArray<Uint8Array> }
  /** `undefined`: nothing was counted, or all of it deleted. */
  | { readonly _tag: "Counter"; readonly value: bigint | undefined }
  | { readonly _tag: "Flag"; readonly enabled: boolean }

const cursor = new ElementCursor()

/** Takes a state apart in which what has expired is gone already (`expireState`). Throws `MalformedBytes` for bytes that are none. */
export function viewOf(state: Uint8Array): ValueView {
  const rule = ruleOf(state)
  switch (rule) {
    case "siblings":
    case "lww": {
      const values: Array<Uint8Array> = []
      cursor.open(state)
      while (cursor.next()) if (!cursor.deleted) values.push(cursor.value.slice())
      return { _tag: "Values", values }
    }
    case "register": {
      const value = registerValue(state, 0)
      return { _tag: "Values", values: value === undefined ? [] : [value.slice()] }
    }
    case "set":
      return {
        _tag: "Set",
        members: SetState.read(state).members.map(({ value }) => value.slice()),
      }
    case "flag":
      return { _tag: "Flag", enabled: SetState.read(state).members.length > 0 }
    case "counter":
      return { _tag: "Counter", value: counterValue(state) }
    default:
      return rule satisfies never
  }
}

/** The context token of who has read this state. */
export function tokenOf(state: Uint8Array, namespace: NamespaceId, key: Uint8Array): Uint8Array {
  const rule = ruleOf(state)
  const stamp = rule === "lww" || rule === "register" ? latestStamp(state) : 0
  return encodeToken({ rule, stamp, seen: contextOf(state) }, namespace, key)
}
