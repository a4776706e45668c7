import type { JournalGroup } from "../../src/journal/group.ts"
import type { Journal } from "../../src/journal/journal.ts"
import type { LoggedEntry } from "../../src/journal/logged.ts"

/** A journal claimed something that is not so. */
export class Dishonest extends Error {
  override readonly name = "Dishonest"
}

export const keyOf = ({ key }: JournalGroup) => `${key.range}/${key.replica}`

export function entryText({ index, term, kind, data }: LoggedEntry): string {
  return `${index}@${term}/${kind}:${Buffer.from(data).toString("hex")}`
}

/** What a group holds, by index; "missing" where it knows that it misses it. */
export function logOf(group: JournalGroup): ReadonlyArray<string> {
  const log: Array<string> = []
  for (let index = group.firstIndex; index <= group.lastIndex; index++) {
    const [entry] = group.entries(index, index + 1, 1e9)
    log.push(entry === undefined ? "missing" : entryText(entry))
  }
  return log
}

function expectSame(what: string, found: unknown, right: unknown): void {
  if (JSON.stringify(found) === JSON.stringify(right)) return
  throw new Dishonest(`${what}: ${JSON.stringify(found)} in place of ${JSON.stringify(right)}`)
}

/**
 * Throws if a journal that met damage claims anything that is not so: a group that is not in doubt has its hard state and the bounds of its log, every entry
 * that it shows is the right one, and it owes what it misses. Returns how many entries are missing, and how many groups in doubt.
 */
export function expectHonest(found: Journal, truth: Journal): { missing: number; unsure: number } {
  let missing = 0
  let unsure = 0
  const groups = new Map(found.list().map((group) => [keyOf(group), group]))
  for (const right of truth.list()) {
    const name = keyOf(right)
    const group = groups.get(name)
    if (group === undefined) throw new Dishonest(`${name} is unknown`)
    groups.delete(name)
    if (group.isUnsure) {
      unsure++
      expectSame(`${name} may vote`, group.mayVote, false)
      continue
    }
    expectSame(`${name} hard state`, group.hardState, right.hardState)
    const bounds = [group.firstIndex, group.lastIndex]
    expectSame(`${name} log`, bounds, [right.firstIndex, right.lastIndex])
    const log = logOf(group)
    const rightLog = logOf(right)
    for (let i = 0; i < log.length; i++) {
      if (log[i] === "missing") missing++
      else expectSame(`${name} entry`, log[i], rightLog[i])
    }
    const last = { index: right.lastIndex, term: right.term(right.lastIndex) as number }
    expectSame(`${name} floor`, group.voteFloor, group.missingCount > 0 ? last : undefined)
  }
  // A replica of which the record of its end is lost may seem to live, but not to be sure of it.
  for (const group of groups.values()) {
    if (!group.isUnsure) throw new Dishonest(`${keyOf(group)} lives`)
  }
  return { missing, unsure }
}
