import { Journal } from "../../../src/journal/journal.ts"
import type { StoreParts } from "../../../src/server/storeLoop.ts"
import type { SimulatedDisk } from "../simulatedDisk.ts"

/** A bug, planted by a subclass or a patch and never by a flag in src, that the simulator must find. */
export interface Mutant {
  /** One letter: `npm run sim -- SEED --mutant A`. */
  readonly name: string
  /** What is wrong. */
  readonly title: string
  readonly parts?: StoreParts
  readonly Disk?: typeof SimulatedDisk
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
