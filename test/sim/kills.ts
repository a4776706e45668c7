/** What the last search for a seed that kills a mutant came to. */
export interface KillRecord {
  /** `undefined`: it survived. */
  readonly seed: number | undefined
  readonly seedsTried: number
  readonly invariant: string | undefined
}

/** Written by `npm run mutants`, which searches blind; to be found anew when the simulator draws differently. */
export const kills: Readonly<Record<string, KillRecord>> = {}
