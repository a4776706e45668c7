import { Journal } from "../../../src/journal/journal.ts"
import type { StoreParts } from "../../../src/server/storeLoop.ts"
import type { Parameters } from "../parameters.ts"
import type { SimulatedDisk } from "../simulatedDisk.ts"

/** A bug, planted by a subclass or a patch and never by a flag in src, that the simulator must find. */
export interface Mutant {
  /** Short: `npm run sim -- SEED --mutant A`. */
  readonly name: string
  /** What is wrong. */
  readonly title: string
  readonly parts?: StoreParts
  readonly Disk?: typeof SimulatedDisk
  /** Whether it can show at all in a world of these parameters: others are passed over, and count as tried. */
  readonly shows?: (parameters: Parameters) => boolean
  /** It breaks no promise but leaves groups that stand still: a run that does not settle shows it. */
  readonly stalls?: boolean
  /** Plants the bug before a run, and returns what takes it out again after it. */
  readonly plant?: () => () => void
}

/** Whether a run's end shows the bug: one that does not settle may have been led astray by any change at all. */
export function shownBy(
  mutant: Mutant,
  violation: { readonly invariant: string } | undefined,
): boolean {
  return violation !== undefined && (violation.invariant !== "liveness" || mutant.stalls === true)
}

/** The journal's class as the store sees it, each recovered journal patched before it is used. */
export function journalWith(patch: (journal: Journal) => void): typeof Journal {
  const recover: typeof Journal.recover = (...options) => {
    const recovered = Journal.recover(...options)
    patch(recovered.journal)
    return recovered
  }
  return { recover } as unknown as typeof Journal
}

type Method<This, Options extends ReadonlyArray<unknown>, Result> = (
  this: This,
  ...options: Options
) => Result

/** Puts another method in place of a class's, private or not, for the length of a run. */
export function withMethod<This, Options extends ReadonlyArray<unknown>, Result>(
  owner: { readonly prototype: object },
  name: string,
  make: (original: Method<This, Options, Result>) => Method<This, Options, Result>,
): () => () => void {
  return () => {
    const prototype = owner.prototype as Record<string, Method<This, Options, Result>>
    const original = prototype[name]
    if (original === undefined) throw new Error(`no method ${name} to replace`)
    prototype[name] = make(original)
    return () => {
      prototype[name] = original
    }
  }
}

/** Several patches that make one bug. */
export function together(...plants: ReadonlyArray<() => () => void>): () => () => void {
  return () => {
    const takeOut = plants.map((plant) => plant())
    return () => {
      for (const undo of takeOut) undo()
    }
  }
}
