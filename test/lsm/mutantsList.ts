/** A bug, planted as a change of one place in a copy of src, and never by a flag in src. */
export interface EngineMutant {
  readonly name: string
  /** File of src. */
  readonly file: string
  /** Stands there exactly once. */
  readonly before: string
  readonly after: string
}

function mutant(name: string, file: string, before: string, after: string): EngineMutant {
  return { name, file: `src/${file}`, before, after }
}

export const engineMutants: ReadonlyArray<EngineMutant> = [
  mutant(
    "a delete is dropped above older data",
    "lsm/maintenance/tableOutput.ts",
    "if (this.dropDeletes && cursor.kind === kinds.delete) return",
    "if (cursor.kind === kinds.delete && this.options.level > 0) return",
  ),
  mutant(
    "a range tombstone is dropped above older data",
    "lsm/maintenance/tableOutput.ts",
    "    if (this.dropDeletes) return\n",
    "    if (this.options.level > 0) return\n",
  ),
  mutant(
    "a range tombstone is not clipped to its fragment",
    "lsm/maintenance/jobs.ts",
    "const own = clip(tableOf(fragment).tombstones, fragment.lower, fragment.upper)",
    "const own = tableOf(fragment).tombstones",
  ),
  mutant(
    "what a range tombstone covers stays in the table written",
    "lsm/maintenance/tableOutput.ts",
    "return cursor.sequence < sequence && compareKey(cursor, lower) >= 0",
    "return this.dropDeletes && cursor.sequence < sequence && compareKey(cursor, lower) > 0",
  ),
  mutant(
    "a range tombstone does not hide older runs from a point read",
    "lsm/engine.ts",
    "if (isFound ? cursor.sequence < covering : covering > 0) return false",
    "if (isFound && cursor.sequence < covering) return false",
  ),
  mutant(
    "a snapshot sees later writes",
    "lsm/memtable/memtable.ts",
    "if (this.sequenceOf(node) <= sequence) return node",
    "return node",
  ),
  mutant(
    "versions that a snapshot needs are overwritten",
    "lsm/memtable/memtable.ts",
    "this.sequenceOf(found) > pinnedSequence",
    "this.sequenceOf(found) > 0",
  ),
  mutant(
    "a flush marks the generation after its own",
    "lsm/maintenance/maintenance.ts",
    'const flushedThrough = job._tag === "Flush" ? job.generation : this.installedGeneration',
    'const flushedThrough = job._tag === "Flush" ? job.generation + 1 : this.installedGeneration',
  ),
  mutant(
    "a flush does not mark its generation",
    "lsm/maintenance/maintenance.ts",
    'const flushedThrough = job._tag === "Flush" ? job.generation : this.installedGeneration',
    "const flushedThrough = this.installedGeneration",
  ),
  mutant(
    "a table is not synced before the edit that names it",
    "lsm/table/tableWriter.ts",
    "    this.file.sync()\n",
    "",
  ),
  mutant(
    "the folder is not synced before the edit that names its tables",
    "lsm/maintenance/tableOutput.ts",
    "if (tables.length > 0) options.disk.syncDirectory(options.directory)",
    "",
  ),
  mutant(
    "the folder is not synced before CURRENT is replaced",
    "lsm/manifest/manifestWrite.ts",
    "  disk.syncDirectory(directory)\n  const next",
    "  const next",
  ),
  mutant(
    "an edit of the manifest is not synced",
    "lsm/manifest/manifestWrite.ts",
    "    file.sync()\n",
    "    if (offset === 0) file.sync()\n",
  ),
  mutant(
    "recovery builds on a manifest that is not durable",
    "lsm/manifest/recovery.ts",
    "  manifest.sync()\n",
    "",
  ),
  mutant(
    "tables are removed before the edit that replaces them is durable",
    "lsm/maintenance/maintenance.ts",
    "    this.pending = { job, write: next.write, edit, end: next.end, version, written }\n",
    `    this.pending = { job, write: next.write, edit, end: next.end, version, written }
    for (const file of edit.removedFiles) {
      const path = \`\${directory}/\${String(file).padStart(8, "0")}.table\`
      const disk = (this.tables as unknown as { disk: { exists(p: string): boolean; remove(p: string): void } }).disk
      if (!edit.added.some((fragment) => fragment.fileNumber === file) && disk.exists(path)) disk.remove(path)
    }
`,
  ),
  mutant(
    "orphans are left in the folder",
    "lsm/manifest/recovery.ts",
    "  removeOrphans(disk, directory, state, end.fileNumber)\n",
    "",
  ),
  mutant(
    "a checksum is not seeded by its place",
    "lsm/table/format.ts",
    "return crc32(bytes, (Math.imul(id, 0x9e3779b1) ^ offset) >>> 0)",
    "return crc32(bytes, (id & 0) ^ (offset & 0))",
  ),
  mutant(
    "a block's checksum is not looked at",
    "lsm/table/tableFile.ts",
    "const actual = placedChecksum(covered, this.tableId, offset)",
    "const actual = readU32(bytes, end + 1)",
  ),
  mutant(
    "a manifest's sector is believed whatever its checksum",
    "lsm/manifest/manifestSectors.ts",
    "readU32(sector, 0) === placedChecksum(sector.subarray(4), this.fileNumber, at)",
    "readU32(sector, 4) === this.editNumber",
  ),
  mutant(
    "damage in a manifest is taken for its torn end",
    "lsm/manifest/manifestSectors.ts",
    'corrupt(this.path, next, "a whole sector, or a torn one", "a damaged one")',
    "break",
  ),
  mutant(
    "the filter hashes other bytes than were added",
    "lsm/engine.ts",
    "const hash = keyHash(key, 0, key.length)",
    "const hash = keyHash(key, 0, key.length - (key.length > 6 ? 1 : 0))",
  ),
  mutant(
    "the block cache is keyed by the block alone",
    "lsm/cache/blockCache.ts",
    "    return new Int32Array(this.budgetBytes > 0 ? blockCount : 0)\n",
    `    const all = this as unknown as { shared?: Int32Array }
    all.shared ??= new Int32Array(4096)
    return all.shared.subarray(0, this.budgetBytes > 0 ? blockCount : 0)
`,
  ),
  mutant(
    "a search goes on from the wrong restart",
    "lsm/table/block.ts",
    "if (compareRanges(bytes, at, length >>> 1, key, 0, key.length) < 0) low = middle",
    "if (compareRanges(bytes, at, length >>> 1, key, 0, key.length) < 2) low = middle",
  ),
  mutant(
    "a step back from a restart is off by one",
    "lsm/table/block.ts",
    "    while (this.nextOffset < target) this.step()\n    if (this.nextOffset !== target)",
    "    this.step()\n    if (this.nextOffset > target)",
  ),
  mutant(
    "the numbers of files are used again",
    "lsm/maintenance/maintenance.ts",
    "    this.nextFileNumber += result.tables.length\n",
    "    this.nextFileNumber += Math.max(0, result.tables.length - 1)\n",
  ),
  mutant(
    "the older of two entries of a key wins a merge",
    "lsm/read/merge.ts",
    "const isNewer = ranks[at] < ranks[at + 1]",
    "const isNewer = ranks[at] > ranks[at + 1]",
  ),
  mutant(
    "the runs of level 0 are looked at oldest first",
    "lsm/manifest/version.ts",
    "const numbers = [...runs.keys()].sort((left, right) => right - left)",
    "const numbers = [...runs.keys()].sort((left, right) => left - right)",
  ),
  mutant(
    "trees are mixed in one table",
    "lsm/maintenance/maintenance.ts",
    "const treesApart = this.trees.length > 0",
    "const treesApart = false",
  ),
  mutant(
    "the base sequence of an adopted table is ignored",
    "lsm/maintenance/edits.ts",
    'const baseSequence = job._tag === "Ingest" ? 0 : job.sequence',
    "const baseSequence = 0",
  ),
  mutant(
    "an ingest leaves what it should replace",
    "lsm/maintenance/edits.ts",
    "return replacing({ version, levels: allLevels, intervals: job.intervals, added, measure })",
    "return replacing({ version, levels: [deepestLevel], intervals: job.intervals, added, measure })",
  ),
  mutant(
    "a compaction's filter drops live values",
    "lsm/maintenance/filter.ts",
    "return expiry !== 0 && expiry <= atOrBefore",
    "return expiry <= atOrBefore",
  ),
  mutant(
    "a filtered value lets an older one come back",
    "lsm/maintenance/tableOutput.ts",
    "    if (this.dropDeletes && cursor.kind === kinds.delete) return\n",
    "    if (cursor.kind === kinds.delete && (this.dropDeletes || cursor.keyBytes[cursor.keyOffset] === 0xfe)) return\n",
  ),
  mutant(
    "a put does not take its row out of the cache",
    "lsm/engine.ts",
    "    if (!this.rows.isOff) this.rows.invalidate(key)\n    this.userBytes += key.length + head.length + tail.length\n",
    "    this.userBytes += key.length + head.length + tail.length\n",
  ),
  mutant(
    "a range delete leaves the row cache as it is",
    "lsm/engine.ts",
    "if (!this.rows.isOff) this.rows.clear()\n    this.userBytes",
    "this.userBytes",
  ),
  mutant(
    "a hint of the key cache is believed",
    "lsm/table/block.ts",
    "return this.scanAtOrAfter(key, restart) && this.isAt(key)",
    "return this.scanAtOrAfter(key, restart)",
  ),
  mutant(
    "the bytes of compressed blocks may claim any size",
    "lsm/table/compression.ts",
    "if (size > maxExpandedBytes) return undefined",
    "",
  ),
  mutant(
    "a half-written table of a failed job stays",
    "lsm/maintenance/tableSet.ts",
    "this.obsolete.push(tablePath(this.directory, parsed.fileNumber))",
    "",
  ),
  mutant(
    "a torn tail of the journal is left as it is",
    "journal/recovery.ts",
    "    end = this.cleanTail(position, end)\n",
    "",
  ),
  mutant(
    "a hole in the journal is taken for its end",
    "journal/recovery.ts",
    "      const holeEnd = Math.min(span.end, statedEnd)\n",
    "      if (statedEnd > 0) return { end: span.offset, isLast: true }\n      const holeEnd = Math.min(span.end, statedEnd)\n",
  ),
  mutant(
    "the journal lets go of what only a memtable holds",
    "server/localStorage.ts",
    "    this.seals.push({ generation: this.engine.seal(), index, bytes })\n",
    "    this.seals.push({ generation: this.engine.seal(), index, bytes })\n    this.flushedIndex = index\n",
  ),
  mutant(
    "the state key speaks of a batch that is not in its memtable",
    "server/localStorage.ts",
    "this.sealAt(this.group.lastIndex - 1)",
    "this.sealAt(this.group.lastIndex)",
  ),
]
