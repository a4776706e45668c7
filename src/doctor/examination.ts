import type { Disk } from "../disk/disk.ts"
import { isJournal } from "../journal/segments.ts"
import { parseName } from "../lsm/table/format.ts"
import { EngineCheck } from "./engineCheck.ts"
import { JournalCheck } from "./journalCheck.ts"
import { type Damage, Findings, type Progress, type Report } from "./report.ts"

/**
 * A data directory looked at from outside, while nobody has it: is every byte still what was written, and what is it used for?
 *
 * 1. `examine` goes through a directory: identity file, journal (journalCheck.ts), engine (engineCheck.ts). It is a generator that
 *    yields after each piece of work, so that its caller can show how far it is, and returns a `Report`.
 * 2. Each check reads everything with the classes that the engine and the journal themselves read with: a format is known
 *    in one place. What they throw becomes a `Damage` (file, offset, expected, found, what it covers), and the check goes on behind it.
 * 3. `reportLines.ts` puts a report into words; `dumpTable.ts`, `dumpManifest.ts` and `dumpJournal.ts` print one file.
 *
 * Invariants:
 * - nothing on the disk changes: real files are opened read-only (ReadOnlyDisk.ts), and recovery runs on a disk that drops
 *   what it is told to write (dryDisk.ts);
 * - a directory is sound if and only if there is no damage; torn tails and orphans, which every crash leaves, are notes;
 * - one damage never hides another, except behind a manifest or an index page that cannot be read.
 *
 * Left out: repair. A replica with damage is rebuilt from its peers.
 */
export interface Identity {
  /** Name of the file at the top of the directory. */
  readonly fileName: string
  /** Whose data it is, in words, or what is wrong with the file. */
  read(disk: Disk): { readonly words: string } | { readonly problem: string }
}

export interface Layout {
  readonly engine: string | undefined
  readonly journal: string | undefined
}

/** Where engine and journal lie in a directory: in folders of their own, or the directory is itself one of the two. */
export function layoutOf(disk: Disk): Layout {
  if (disk.exists("engine") || disk.exists("journal")) {
    return {
      engine: disk.exists("engine") ? "engine" : undefined,
      journal: disk.exists("journal") ? "journal" : undefined,
    }
  }
  const isEngine = disk.list("").some((name) => parseName(name) !== undefined)
  return { engine: isEngine ? "." : undefined, journal: isJournal(disk, ".") ? "." : undefined }
}

/** Whether the directory has any file of an engine or a journal. */
export function holdsData(disk: Disk): boolean {
  const { engine, journal } = layoutOf(disk)
  const isEngine =
    engine !== undefined && disk.list(engine).some((name) => parseName(name) !== undefined)
  return isEngine || (journal !== undefined && isJournal(disk, journal))
}

export function* examine(options: {
  readonly disk: Disk
  /** For people; the paths in the report are relative to it. */
  readonly directory: string
  readonly identity: Identity
  /** Leaves the other half out. */
  readonly only?: "engine" | "journal"
}): Generator<Progress, Report> {
  const { disk, directory, only } = options
  const findings = new Findings()
  const found = layoutOf(disk)
  const layout = {
    engine: only === "journal" ? undefined : found.engine,
    journal: only === "engine" ? undefined : found.journal,
  }
  const identity = checkIdentity(disk, options.identity, findings)
  const meter = new Meter(totalBytes(disk, layout))
  const journal =
    layout.journal === undefined
      ? undefined
      : yield* meter.watch(new JournalCheck({ disk, directory: layout.journal, findings }).run())
  const engine =
    layout.engine === undefined
      ? undefined
      : yield* meter.watch(new EngineCheck({ disk, directory: layout.engine, findings }).run())
  checkTogether({ layout, journal: journal !== undefined, disk, findings })
  const { damages, notes } = findings
  return { directory, identity, engine, journal, damages, notes }
}

function checkIdentity(disk: Disk, identity: Identity, findings: Findings): string | undefined {
  const { fileName } = identity
  if (!disk.exists(fileName)) return undefined
  const covers = "whose data this is: the directory as a whole"
  const found = findings.attempt(covers, () => identity.read(disk), fileName)
  if (found === undefined || "words" in found) return found?.words
  const expected = "the identity of a node"
  findings.add({ path: fileName, offset: 0, expected, found: found.problem, covers })
  return undefined
}

/** Without its journal an engine has lost what was not flushed, and a voter its votes (server/storage.ts). */
function checkTogether(options: {
  layout: Layout
  journal: boolean
  disk: Disk
  findings: Findings
}): void {
  const { layout, disk, findings } = options
  const isNode = layout.engine === "engine" && disk.exists("engine/CURRENT")
  if (!isNode || isJournal(disk, "journal")) return
  const damage: Damage = {
    path: "journal",
    offset: 0,
    expected: "the journal of the engine beside it",
    found: "no journal",
    covers: "votes, and all that was not flushed",
  }
  findings.add(damage)
}

function totalBytes(disk: Disk, layout: Layout): number {
  let total = 0
  for (const directory of [layout.journal, layout.engine]) {
    if (directory === undefined) continue
    for (const name of disk.list(directory)) {
      const isData = parseName(name)?.kind === "table" || name.endsWith(".log")
      if (!isData) continue
      const file = disk.open(`${directory}/${name}`)
      total += file.sizeBytes
      file.close()
    }
  }
  return total
}

/** Adds up what checks have read. */
class Meter {
  private doneBytes = 0
  private readonly totalBytes: number

  constructor(totalBytes: number) {
    this.totalBytes = totalBytes
  }

  *watch<A>(
    check: Generator<{ readonly path: string; readonly readBytes: number }, A>,
  ): Generator<Progress, A> {
    for (;;) {
      const step = check.next()
      if (step.done) return step.value
      this.doneBytes += step.value.readBytes
      yield { path: step.value.path, doneBytes: this.doneBytes, totalBytes: this.totalBytes }
    }
  }
}
