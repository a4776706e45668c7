import type { Disk, StorageCorruption } from "../disk/disk.ts"
import { assert } from "../lib/assert.ts"
import type { Lsn } from "../types.ts"
import { Batch, type Rewrite } from "./batch.ts"
import { DirectBatch, directOverheadBytes } from "./direct.ts"
import { batchHeaderBytes, patchBatchHeader, sealRecords, segmentHeaderBytes } from "./format.ts"
import { JournalGroup, type JournalParts, noLsn } from "./group.ts"
import { GroupIndex } from "./groupIndex.ts"
import { compareKeys, type GroupKey } from "./logged.ts"
import {
  defaultJournalOptions,
  type JournalOptions,
  type JournalWrite,
  type RecoveredGroup,
} from "./options.ts"
import { recoverFiles } from "./recovery.ts"
import { Rewriter } from "./rewrite.ts"
import { type Segment, type SegmentJob, Segments } from "./segments.ts"
import { standingRecordBytes } from "./standing.ts"
import { TailCache } from "./tailCache.ts"
import { type ClosedSegment, Turnover } from "./turnover.ts"

/**
 * The node's write-ahead log, shared by all groups of the node.
 *
 * Raft entries and hard states live here and nowhere else on disk. All groups write into one
 * sequence of batches, so that one fdatasync serves every group that had something to say. The
 * sequence is cut into segments, files of a fixed size filled with zeros beforehand, whose place in
 * it is their base LSN. In memory each group has an index, entry -> (term, LSN), and the newest
 * entries of all groups stay in one cache; older ones are read back from the file.
 *
 * Flow:
 * 1. Groups gather records: append, setHardState, release, resetTo, destroy. Reads see them at
 *    once.
 * 2. `cut` makes one batch of all that was gathered, as one contiguous write; the driver writes and
 *    syncs it while the next batch gathers. One write is under way at a time.
 * 3. `durable` ends the write: `durableLsn` moves up, and what the batch made superfluous is free.
 * 4. A batch that does not fit opens the next segment, which a worker has prepared
 *    (`segmentsToPrepare`), and begins there with a checkpoint of every group. So the older
 *    segments hold nothing that recovery needs but entries.
 * 5. `segmentsToDelete` hands out segments without live entries, oldest first. `maintain` copies
 *    live entries out of the oldest one when too many segments are held.
 * 6. When nothing follows a durable batch, `sealIfIdle` writes an empty batch that states its LSN.
 * 7. `Journal.recover` reads the files back (recovery.ts has the rules for torn tails and holes, salvage.ts for what is left of a
 *    damaged batch, replay.ts for records).
 *
 * Damage. A torn tail was never acknowledged and goes. A *hole* lies below an LSN that some batch states to be durable: it is passed over, and what lies
 * behind it counts. Every batch ends with a *standing* record of each group that it speaks of, and every segment begins with a checkpoint of all: so a damaged
 * record costs its group the entry that it held, if it held one, and no knowledge. Which entries those are follows from the standing records and from
 * the term of the entry before that each entry states. They become *gaps* of the group, which answers for the rest as before, and are filled from other
 * replicas (server/holeFilling.ts) by `rewrite` records. Where whole batches are lost and nothing behind them speaks of a group, it is *unsure*: what
 * it promised may have been more than it knows. Gaps are in no need of a record of their own: recovery finds them again, because the checkpoint counts the
 * entries and no record of them is met. Doubts, and the *floor* that is left when a leader's entries take the place of a gap, stand in the
 * group's standing and checkpoint records until they end.
 *
 * Invariants:
 * - Without damage, what recovery yields is the state after some batch at or after the last durable one: never a
 *   part of a batch, never a gap.
 * - With damage, a group that is not unsure has its hard state, and knows of every index whether it has the entry. Nothing that it has is wrong, but for entries
 *   in front of a gap, which a truncation that is lost in it may have replaced: they count only together with what fills it.
 * - A record's place counts as live until the batch that made it superfluous is durable.
 *   Truncation, release, reset and removal are records too, so replay knows exactly which entries
 *   must be there, and a missing one is damage.
 * - A segment is handed out for deletion only when it is the oldest, holds no live record, and the
 *   next one's checkpoint is durable. Hard states go forward from checkpoint to checkpoint.
 * - A checkpoint or standing record says what replay comes to by itself up to there; recovery compares the two.
 * - A rewritten entry never truncates, and its old place counts until the copy is durable.
 * - The durable LSN in a batch header was true when written. The first batch of a segment is cut
 *   only when all before it is durable, so its statement is where the content of the segment before
 *   it ends.
 * - A sealing batch is written without a sync, and only sealing and direct batches are. Nothing waits for one,
 *   and losing one loses nothing. It carries no records, because a segment can end before an
 *   unsynced batch.
 * - An entry stays in the cache until it is durable, so no read meets bytes that are still being
 *   written.
 * - A direct batch (`cutDirect`) is one entry that its caller writes at once and syncs when it likes; it is never cached, and nothing reads
 *   it back before recovery. Before a segment is left, all in it is synced.
 *
 * Left out: a segment that is missing is refused, and one whose damaged header nothing else tells for sure; direct batches have no standing records, because who writes them alone
 * has nobody to get anything back from; segments are not compressed, and no batch is
 * split over two. A write that rewrites the rest of a sector written before is taken to leave the
 * older bytes of it alone (disks promise it, and the page cache writes the same bytes again).
 *
 * Sources: Raft paper 5.2 and Figure 2 (what must be stable); Rosenblum and Ousterhout, "The design
 * and implementation of a log-structured file system" (live data copied out of old segments);
 * Alagappan et al., "Protocol-aware recovery" (torn tail against corruption); Rebello et al., "Can
 * applications recover from fsync failures?"; leveldb log_format.md.
 */
export class Journal {
  private readonly segments: Segments
  private readonly cache: TailCache
  private readonly rewriter: Rewriter
  private readonly turnover: Turnover
  private readonly groups = new Map<string, JournalGroup>()
  /** Groups of which a batch cut so far holds a record: those that a checkpoint lists. */
  private readonly recorded = new Map<string, JournalGroup>()
  /** Offset in the current segment where the next batch begins. */
  private position: number
  private gathering = new Batch()
  private spare = new Batch()
  private readonly seal = new Batch()
  private readonly direct = new DirectBatch()
  private readonly parts: JournalParts
  private underWay: WriteUnderWay | undefined
  private appended: Lsn
  private durableUpTo: Lsn
  /** The largest durable LSN that a batch header states. */
  private stated: Lsn
  private damages: Array<StorageCorruption> = []

  /**
   * Reads the journal in `directory`, which it makes if there is none (`created`), and leaves it
   * ready to be appended to. Durable bytes that are damaged become gaps and doubts of groups, and are told by
   * `takeDamages`. Throws `StorageCorruption` when a segment is missing, or its header is newer than this program or damaged beyond repair. All that it returns is
   * durable.
   */
  static recover(
    disk: Disk,
    directory: string,
    given: Partial<JournalOptions> = {},
  ): {
    readonly journal: Journal
    readonly groups: ReadonlyArray<RecoveredGroup>
    readonly created: boolean
  } {
    const options = { ...defaultJournalOptions, ...given }
    const { segmentBytes } = options
    assert(segmentBytes >= segmentBytesMin, () => `a segment of ${segmentBytes} bytes`)
    const files = recoverFiles(disk, directory, segmentBytes)
    const { held, endLsn, statedLsn } = files
    const segments = new Segments({ disk, directory, segmentBytes, held })
    const journal = new Journal(segments, options, endLsn, statedLsn)
    journal.damages.push(...files.holes)
    for (const replayed of files.replay.groups()) {
      const { key } = replayed
      const group = new JournalGroup(journal.parts, key, replayed)
      group.recovered()
      journal.groups.set(keyText(key), group)
      journal.recorded.set(keyText(key), group)
    }
    const groups = journal.list().map(({ key, hardState, firstIndex, lastIndex }) => {
      return { key, hardState, firstIndex, lastIndex }
    })
    return { journal, groups, created: files.created }
  }

  private constructor(
    segments: Segments,
    options: Required<JournalOptions>,
    endLsn: Lsn,
    statedLsn: Lsn,
  ) {
    this.segments = segments
    this.cache = new TailCache(options.tailCacheBytes)
    this.turnover = new Turnover(segments)
    this.rewriter = new Rewriter({
      thresholdSegments: options.rewriteThresholdSegments,
      sliceBytes: options.rewriteSliceBytes,
    })
    this.position = endLsn - segments.current.baseLsn
    this.appended = endLsn
    this.durableUpTo = endLsn
    this.stated = statedLsn
    const journal = this
    this.parts = {
      segments,
      cache: this.cache,
      get batch() {
        return journal.gathering
      },
      get durableLsn() {
        return journal.durableUpTo
      },
      forget: (group) => this.groups.delete(keyText(group.key)),
      damaged: (error) => this.damages.push(error),
    }
  }

  /**
   * LSN up to which batches with records have been cut; `durableLsn` reaches it when the write
   * under way is done.
   */
  get appendedLsn(): Lsn {
    return this.appended
  }

  /** Everything written below this LSN is durable. */
  get durableLsn(): Lsn {
    return this.durableUpTo
  }

  /**
   * True when something gathered is worth a write: what is said from now on must wait for the next
   * `cut`.
   */
  get wantsWrite(): boolean {
    return this.gathering.forced
  }

  /**
   * Bytes of the records that wait for the next `cut`; they grow while a write is slow, so
   * proposals are to be held back by it.
   */
  get gatheredBytes(): number {
    return this.gathering.recordBytes
  }

  /** Segments with content, and their bytes on disk. */
  get heldSegments(): { readonly count: number; readonly bytes: number } {
    return { count: this.segments.count, bytes: this.segments.heldBytes }
  }

  /** Groups that exist, by range and replica. */
  list(): ReadonlyArray<JournalGroup> {
    return [...this.groups.values()].sort((left, right) => compareKeys(left.key, right.key))
  }

  /**
   * The group's handle, the same one until it is destroyed. A group is remembered from its first
   * record on.
   */
  group(key: GroupKey): JournalGroup {
    const known = this.groups.get(keyText(key))
    if (known !== undefined) return known
    const state = { term: 0, vote: 0, commit: 0 }
    const empty = { places: new GroupIndex(), isUnsure: false, floor: undefined }
    const group = new JournalGroup(this.parts, { ...key }, { hardState: state, ...empty })
    this.groups.set(keyText(key), group)
    return group
  }

  /**
   * Makes one batch of all that was gathered. `undefined` when nothing gathered is worth a write,
   * the previous write is not `durable` yet, or the next segment is not ready (see
   * `segmentsToPrepare`).
   */
  cut(): JournalWrite | undefined {
    if (this.underWay !== undefined || !this.gathering.forced) return undefined
    return this.cutGathered(undefined)
  }

  /** `openingBytes`: in a new segment, with room for so much more. */
  private cutGathered(openingBytes: number | undefined): JournalWrite | undefined {
    const batch = this.gathering
    for (const group of batch.lagging) group.writeLagging()
    batch.lagging.length = 0
    const write = this.begin(batch, true, openingBytes)
    if (write === undefined) return undefined
    this.gathering = this.spare
    this.spare = batch
    return write
  }

  /**
   * An empty batch that states the durable LSN, if no batch does yet and nothing else is to be
   * written. To be called when no write follows a durable one, so that damage to acknowledged bytes
   * is not taken for a torn tail later.
   */
  sealIfIdle(): JournalWrite | undefined {
    const idle = this.underWay === undefined && !this.gathering.forced
    if (!idle || this.stated >= this.durableUpTo) return undefined
    return this.begin(this.seal, false, undefined)
  }

  /**
   * Makes `data` the next entry of `group`, in the term of its last one, as a batch of its own that the caller writes at once; `undefined` when the
   * segment has no room for it (`openSegment`). Valid until the next call. It is durable when `synced` says so. May be called while a
   * write of `cut` is under way. Requires that a batch has held a record of the group.
   */
  cutDirect(group: JournalGroup, data: Uint8Array): DirectBatch | undefined {
    const segment = this.segments.current
    const lengthBytes = directOverheadBytes + data.length
    if (this.position + lengthBytes > segment.sizeBytes) return undefined
    const lsn = segment.baseLsn + this.position
    const previousTerm = group.term(group.lastIndex) ?? 0
    const index = group.lastIndex + 1
    const term = group.hardState.term
    const durableLsn = this.durableUpTo
    const { direct } = this
    direct.fill(group.key, { lsn, durableLsn, index, term, previousTerm }, data)
    direct.path = segment.path
    direct.offset = this.position
    group.appendDirect(segment, term, lsn + batchHeaderBytes, lengthBytes - batchHeaderBytes)
    this.position += lengthBytes
    this.appended = lsn + lengthBytes
    this.stated = durableLsn
    return direct
  }

  /** Everything that was written below `lsn` has been synced. */
  synced(lsn: Lsn): void {
    assert(lsn <= this.appended, () => `${lsn} is at most ${this.appended}`)
    if (lsn > this.durableUpTo) this.durableUpTo = lsn
  }

  /** Whether a direct entry with so many bytes of data fits the current segment. */
  hasRoom(dataBytes: number): boolean {
    return this.position + directOverheadBytes + dataBytes <= this.segments.current.sizeBytes
  }

  /**
   * Goes on to the next segment although the current one is not full: the batch that opens it, with all that was gathered. `undefined` while that
   * segment is not ready, with room for an entry of `dataBytes`, or something is not durable yet.
   */
  openSegment(dataBytes: number): JournalWrite | undefined {
    if (this.underWay !== undefined) return undefined
    this.gathering.forced = true
    return this.cutGathered(directOverheadBytes + dataBytes)
  }

  /**
   * Finds the batch its place and makes it ready to be written; `undefined` when it has to wait for
   * a segment.
   */
  private begin(
    batch: Batch,
    synced: boolean,
    openingBytes: number | undefined,
  ): JournalWrite | undefined {
    // What took the place of a destroyed replica stands for it too.
    const standing = batch.touched.filter(
      (group) => !group.isDestroyed || !this.groups.has(keyText(group.key)),
    )
    let standingBytes = 0
    for (const group of standing) standingBytes += group.standingBytes
    let sizeBytes = batchHeaderBytes + batch.recordBytes + standingBytes
    let checkpointCount = 0
    let checkpointBytes = 0
    let opens = false
    const isFull = this.position + sizeBytes > this.segments.current.sizeBytes
    if (isFull || openingBytes !== undefined) {
      const neededBytes = segmentHeaderBytes + sizeBytes + this.checkpointBytes
      // The statement of the batch that opens a segment is where the one before it ends.
      if (this.durableUpTo < this.appended) return undefined
      opens = this.segments.openNext(neededBytes + (openingBytes ?? 0)) !== undefined
      if (!opens) return undefined
      this.position = segmentHeaderBytes
      checkpointCount = this.recorded.size
      checkpointBytes = this.insertCheckpoint(batch)
    }
    for (const group of standing) group.writeStanding(batch)
    sizeBytes = batchHeaderBytes + batch.recordBytes
    assert(sizeBytes <= batchBytesMax, () => `a batch of ${sizeBytes} bytes`)
    const segment = this.segments.current
    const lsn = segment.baseLsn + this.position
    const { recordCount } = batch
    const durableLsn = this.durableUpTo
    const counts = { recordCount, checkpointCount, standingCount: standing.length }
    patchBatchHeader(batch.writer, { lengthBytes: sizeBytes, ...counts, lsn, durableLsn })
    sealRecords(batch.writer, lsn)
    this.stated = durableLsn
    this.settle(batch, segment, lsn + batchHeaderBytes + checkpointBytes)
    const write: JournalWrite = {
      path: segment.path,
      offset: this.position,
      bytes: batch.writer.bytes(),
      endLsn: lsn + sizeBytes,
      sync: synced || opens,
    }
    this.position += sizeBytes
    if (write.sync) this.appended = write.endLsn
    this.underWay = { write, batch, segment }
    return write
  }

  /** At most so many. */
  private get checkpointBytes(): number {
    return this.recorded.size * standingRecordBytes({ index: 0, term: 0 })
  }

  /**
   * Puts a checkpoint of every group, as the batches before left it, in front of the records
   * gathered. Returns its bytes.
   */
  private insertCheckpoint(batch: Batch): number {
    const records = batch.takeRecords()
    const groups = [...this.recorded.values()]
    groups.sort((left, right) => compareKeys(left.key, right.key))
    for (const group of groups) group.writeCheckpoint(batch)
    const checkpointBytes = batch.recordBytes
    batch.writer.raw(records)
    return checkpointBytes
  }

  /** The batch has its place: entries, copies and checkpoints learn theirs. */
  private settle(batch: Batch, segment: Segment, recordsLsn: Lsn): void {
    for (const group of batch.touched) {
      group.cut(segment, recordsLsn)
      const key = keyText(group.key)
      if (!group.isDestroyed) this.recorded.set(key, group)
      else if (this.recorded.get(key) === group) this.recorded.delete(key)
    }
    for (const rewrite of batch.rewrites) {
      const { group, sizeBytes } = rewrite
      rewrite.place = group.wants(rewrite) ? recordsLsn + rewrite.place : -1
      if (rewrite.place < 0) continue
      segment.liveCount++
      segment.liveBytes += sizeBytes
    }
  }

  /**
   * The write that `cut` or `sealIfIdle` returned last has been written, and synced if it asked for
   * that.
   */
  durable(write: JournalWrite): void {
    const { underWay } = this
    assert(
      underWay?.write.endLsn === write.endLsn,
      () => `a write up to ${write.endLsn} is under way`,
    )
    const { batch, segment } = underWay
    this.underWay = undefined
    if (write.sync && write.endLsn > this.durableUpTo) this.durableUpTo = write.endLsn
    for (const [freedSegment, freed] of batch.freed) {
      freedSegment.liveCount -= freed.count
      freedSegment.liveBytes -= freed.bytes
    }
    for (const rewrite of batch.rewrites) this.rewriteDurable(rewrite, segment)
    batch.reset()
    this.cache.evict()
  }

  private rewriteDurable(rewrite: Rewrite, segment: Segment): void {
    const { group, index, oldLsn, sizeBytes, place } = rewrite
    if (oldLsn === noLsn) group.filled(index)
    if (place < 0) return
    const moved = group.wants(rewrite)
    if (moved) group.move(rewrite)
    if (moved && oldLsn === noLsn) return
    const superfluous = moved ? this.segments.find(oldLsn) : segment
    superfluous.liveCount--
    superfluous.liveBytes -= sizeBytes
  }

  /** Damage to its files that was met since the last call. */
  takeDamages(): ReadonlyArray<StorageCorruption> {
    const { damages } = this
    if (damages.length > 0) this.damages = []
    return damages
  }

  /** Somebody else found the record at `offset` of a closed segment damaged: whoever's entry it holds misses it from now on. */
  damagedAt(path: string, offset: number): void {
    const segment = this.segments.named(path)
    if (segment === undefined) return
    for (const group of this.groups.values()) {
      const index = group.indexAt(segment.baseLsn + offset)
      if (index !== undefined) group.lose(index)
    }
  }

  /**
   * Segments that a worker must make with `prepareSegment`; each is returned once. Call
   * `segmentReady` when one is made.
   */
  segmentsToPrepare(): ReadonlyArray<SegmentJob> {
    return this.segments.jobs(this.checkpointBytes)
  }

  segmentReady(job: SegmentJob): void {
    this.segments.jobDone(job)
  }

  /** A segment could not be made for want of space: it is asked for again. */
  segmentFailed(job: SegmentJob): void {
    this.segments.jobFailed(job)
  }

  /** Whether the next segment is made. */
  get isNextSegmentReady(): boolean {
    return this.segments.isNextReady
  }

  /** The oldest segment that is no longer written to and has a number above `after`; everything in it is durable. */
  closedSegment(after: number): ClosedSegment | undefined {
    return this.turnover.closedSegment(after, this.durableUpTo)
  }

  /**
   * Files that nothing needs any more, oldest first, to be removed with `removeSegments`; each is
   * returned once.
   */
  segmentsToDelete(): ReadonlyArray<string> {
    const paths = this.turnover.takeDeletable(this.durableUpTo)
    // Releases are written along with other records; where a segment waits for one, it is worth a write of its own.
    if (this.turnover.waitsFor(this.gathering)) this.gathering.forced = true
    return paths
  }

  /**
   * Copies a slice of the live entries that pin the oldest segment, when too many segments are
   * held. Call it now and then.
   */
  maintain(): void {
    this.rewriter.slice(this.segments, this.groups.values())
  }

  /** Closes the files that were opened for reading. */
  close(): void {
    this.segments.close()
  }
}

interface WriteUnderWay {
  readonly write: JournalWrite
  readonly batch: Batch
  readonly segment: Segment
}

/** Below this, headers would be most of a segment. */
const segmentBytesMin = 512
/** What the length field of a batch can say. */
const batchBytesMax = 2 ** 32 - 1

function keyText(key: GroupKey): string {
  return `${key.range}/${key.replica}`
}

export {
  type ClosedSegment,
  defaultJournalOptions,
  type JournalOptions,
  type JournalWrite,
  type RecoveredGroup,
}
