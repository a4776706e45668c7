import type { Disk } from "../../disk/disk.ts"
import { StorageCorruption } from "../../disk/disk.ts"
import { currentPath, manifestPath, parseName, tablePath } from "../table/format.ts"
import type { Tree } from "../trees.ts"
import { checkTrees } from "../trees.ts"
import type { ManifestEnd, ManifestState } from "./manifest.ts"
import { newManifest, readCurrent, readManifest } from "./manifest.ts"
import { runManifestWrite } from "./manifestWrite.ts"

export interface OpenedManifest {
  readonly state: ManifestState
  readonly end: ManifestEnd
  /** Tables of expendable trees that have no file. */
  readonly missing: ReadonlyArray<StorageCorruption>
}

/**
 * What the manifest in force says, made durable, with nothing else left in the folder; a folder
 * without an engine gets one. Trees that are new are recorded. All checks come before the first
 * change; throws `StorageCorruption`, `OlderFormat`, `NewerFormat` or `TreesDiffer`.
 */
export function openManifest(
  disk: Disk,
  directory: string,
  options: { readonly trees: ReadonlyArray<Tree>; readonly expendable: ReadonlyArray<number> },
): OpenedManifest {
  const declared = options.trees
  const names = disk.list(directory)
  if (!names.includes("CURRENT")) return create(disk, directory, names, declared)

  const fileNumber = readCurrent(disk, directory)
  const read = readManifest(disk, directory, fileNumber)
  const trees = checkTrees(manifestPath(directory, fileNumber), read.state.trees, declared)
  const present = new Set(names)
  const missing = new Map<string, StorageCorruption>()
  for (const fragment of read.state.fragments) {
    const path = tablePath(directory, fragment.fileNumber)
    if (present.has(path.slice(directory.length + 1))) continue
    const expected = `a table of ${fragment.sizeBytes} bytes`
    const error = new StorageCorruption({ path, offset: 0, expected, actual: "no file" })
    if (!options.expendable.includes(fragment.lower[0])) throw error
    missing.set(path, error)
  }

  // The process may have died between writing and syncing. What was read must be durable before
  // anything is built on it or removed because of it.
  const manifest = disk.open(manifestPath(directory, fileNumber))
  manifest.sync()
  manifest.close()
  disk.syncDirectory(directory)

  // Numbers of orphans are not used again either.
  let { nextFileNumber } = read.state
  for (const name of names) {
    nextFileNumber = Math.max(nextFileNumber, (parseName(name)?.fileNumber ?? 0) + 1)
  }
  let state: ManifestState = { ...read.state, nextFileNumber, trees }
  let { end } = read
  if (read.torn || trees.length > read.state.trees.length) {
    // Nothing may follow a torn edit, and only the first edit names trees: the log goes on in a new
    // manifest.
    state = { ...state, nextFileNumber: nextFileNumber + 1 }
    const next = newManifest({ id: 0, directory, fileNumber: nextFileNumber, state })
    runManifestWrite(disk, next.write)
    end = next.end
  }
  removeOrphans(disk, directory, state, end.fileNumber)
  return { state, end, missing: [...missing.values()] }
}

function create(
  disk: Disk,
  directory: string,
  names: ReadonlyArray<string>,
  declared: ReadonlyArray<Tree>,
): OpenedManifest {
  // A crash in the middle of creation leaves the first manifest, perhaps, and nothing else.
  for (const name of names) {
    const parsed = parseName(name)
    const left = parsed?.kind === "manifest" && parsed.fileNumber === 1
    if (parsed === undefined || left || parsed.kind === "nextCurrent") {
      continue
    }
    const path = currentPath(directory)
    const expected = `a file, because there is ${name}`
    throw new StorageCorruption({ path, offset: 0, expected, actual: "no file" })
  }
  const slash = directory.lastIndexOf("/")
  disk.makeDirectory(directory)
  disk.syncDirectory(slash < 0 ? "" : directory.slice(0, slash))
  for (const name of names) if (parseName(name) !== undefined) disk.remove(`${directory}/${name}`)
  const state: ManifestState = {
    flushedThrough: 0,
    lastSequence: 0,
    nextFileNumber: 2,
    written: { userBytes: 0, flushedBytes: 0, compactedBytes: 0, ingestedBytes: 0 },
    trees: checkTrees(directory, [], declared),
    fragments: [],
  }
  const first = newManifest({ id: 0, directory, fileNumber: 1, state })
  runManifestWrite(disk, first.write)
  return { state, end: first.end, missing: [] }
}

function removeOrphans(
  disk: Disk,
  directory: string,
  state: ManifestState,
  manifestNumber: number,
): void {
  const live = new Set(state.fragments.map((fragment) => fragment.fileNumber))
  for (const name of disk.list(directory)) {
    const parsed = parseName(name)
    if (parsed === undefined || parsed.kind === "current") continue
    if (parsed.kind === "table" && live.has(parsed.fileNumber)) continue
    if (parsed.kind === "manifest" && parsed.fileNumber === manifestNumber) continue
    disk.remove(`${directory}/${name}`)
  }
}
