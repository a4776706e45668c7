/**
 * Trees: one engine holds several, each under a first byte of its keys. The manifest records which
 * ones and how they are called, so that a later program cannot take one for another. A table never
 * spans two.
 */
import { assert } from "../lib/assert.ts"
import type { Interval } from "./manifest/version.ts"

export interface Tree {
  /** First byte of all its keys. */
  readonly id: number
  readonly name: string
}

export const maxTreeNameBytes = 255

/** The directory was made with other trees. Nothing is changed; the engine does not open. */
export class TreesDiffer extends Error {
  override readonly name = "TreesDiffer"
  readonly path: string
  readonly recorded: ReadonlyArray<Tree>
  readonly declared: ReadonlyArray<Tree>
  constructor(options: {
    path: string
    recorded: ReadonlyArray<Tree>
    declared: ReadonlyArray<Tree>
  }) {
    const { path, recorded, declared } = options
    super(`${path} holds the trees ${inWords(recorded)}; declared are ${inWords(declared)}`)
    this.path = path
    this.recorded = recorded
    this.declared = declared
  }
}

function inWords(trees: ReadonlyArray<Tree>): string {
  return trees.length === 0 ? "none" : trees.map(({ id, name }) => `${id} "${name}"`).join(", ")
}

/**
 * The trees to record: those declared, in order of id. Throws `TreesDiffer` unless each one that
 * `recorded` names is declared under the same name. New ones may come.
 */
export function checkTrees(
  path: string,
  recorded: ReadonlyArray<Tree>,
  declared: ReadonlyArray<Tree>,
): ReadonlyArray<Tree> {
  for (const { id, name } of declared) {
    assert(Number.isInteger(id) && id >= 0 && id <= 255, () => `tree ${id} is named by a byte`)
    assert(name.length > 0 && name.length * 3 <= maxTreeNameBytes, "a tree has a short name")
    const same = declared.filter((other) => other.id === id || other.name === name)
    assert(same.length === 1, () => `tree ${id} "${name}" is declared once`)
  }
  const known = recorded.every(({ id, name }) =>
    declared.some((tree) => tree.id === id && tree.name === name),
  )
  if (!known) throw new TreesDiffer({ path, recorded, declared })
  return [...declared].sort((left, right) => left.id - right.id)
}

/** All keys of a tree. */
export function treeInterval(id: number): Interval {
  return {
    lower: Uint8Array.of(id),
    upper: id === 255 ? undefined : Uint8Array.of(id + 1),
  }
}

/** Which first bytes keys may have. An engine that declares no trees takes any. */
export class TreeSet {
  private readonly declared = new Uint8Array(256)
  readonly takesAny: boolean

  constructor(trees: ReadonlyArray<Tree>) {
    this.takesAny = trees.length === 0
    if (this.takesAny) this.declared.fill(1)
    for (const { id } of trees) this.declared[id] = 1
  }

  /** False for the empty key too. */
  holds(bytes: Uint8Array, offset: number): boolean {
    return this.declared[bytes[offset]] === 1
  }

  /** Whether an interval lies in one declared tree; where none are declared, any does. */
  holdsInterval(lower: Uint8Array, upper: Uint8Array): boolean {
    if (this.takesAny) return true
    if (!this.holds(lower, 0)) return false
    return upper[0] === lower[0] || (upper.length === 1 && upper[0] === lower[0] + 1)
  }
}
