import { writeFully } from "./Output.ts"

/** Between two redraws on a terminal, and between two lines elsewhere. */
const redrawMs = 100
const lineMs = 10_000
/** Work that is done sooner shows nothing. */
const quietMs = 500

const mebibyte = 2 ** 20

interface Amounts {
  readonly path: string
  readonly doneBytes: number
  readonly totalBytes: number
  /** What the bytes come in, where that is counted. */
  readonly pieces?: { readonly done: number; readonly total: number; readonly unit: string }
}

/** Pieces that hardly have bytes tell more by their number. */
function goesByPieces({ pieces, totalBytes }: Amounts): boolean {
  return pieces !== undefined && totalBytes < mebibyte
}

/** Where progress is shown. */
export interface ProgressPlace {
  /** Width of the terminal; `undefined` = it is none. */
  readonly columns: number | undefined
  readonly nowMs: () => number
  readonly write: (text: string) => void
}

const stderrPlace: ProgressPlace = {
  get columns() {
    return process.stderr.isTTY === true ? (process.stderr.columns ?? 80) : undefined
  },
  nowMs: () => performance.now(),
  write: (text) => writeFully(2, Buffer.from(text)),
}

/**
 * How far long work is, on stderr: one line that is drawn over again on a terminal, a line now and then elsewhere. The rate is that of the last
 * few seconds, so that a change of pace shows.
 */
export class ProgressLine {
  private readonly place: ProgressPlace
  private readonly startedMs: number
  private shownMs: number
  private ratePerMs = 0
  private sample: { readonly timeMs: number; readonly done: number }
  private drawn = false

  constructor(place: ProgressPlace = stderrPlace) {
    this.place = place
    this.startedMs = place.nowMs()
    this.shownMs = this.startedMs
    this.sample = { timeMs: this.startedMs, done: 0 }
  }

  show(progress: Amounts): void {
    const { columns, write } = this.place
    const nowMs = this.place.nowMs()
    const waitMs = columns === undefined ? lineMs : this.drawn ? redrawMs : quietMs
    if (nowMs - this.shownMs < waitMs) return
    this.measure(nowMs, goesByPieces(progress) ? (progress.pieces?.done ?? 0) : progress.doneBytes)
    this.shownMs = nowMs
    const line = progressText({ ...progress, perSecond: this.ratePerMs * 1000 })
    if (columns === undefined) return write(`${line}\n`)
    this.drawn = true
    write(`\r\u001b[K${line.slice(0, columns - 1)}`)
  }

  /** Takes the line away, so that what comes next has it for itself. */
  end(): void {
    if (this.drawn) this.place.write("\r\u001b[K")
    this.drawn = false
  }

  private measure(nowMs: number, done: number): void {
    const elapsedMs = nowMs - this.sample.timeMs
    const rate = elapsedMs > 0 ? (done - this.sample.done) / elapsedMs : 0
    // An old rate fades with a half-life of about two seconds.
    const weight = this.ratePerMs === 0 ? 1 : 1 - 0.5 ** (elapsedMs / 2000)
    this.ratePerMs += (rate - this.ratePerMs) * weight
    this.sample = { timeMs: nowMs, done }
  }
}

/** `engine/00000012.table  120 of 480 MiB, 310 MiB/s, 2 s left`; with pieces `n2  3 of 12 replicas, 120 of 480 MiB, 31 MiB/s, 12 s left`. */
export function progressText(progress: Amounts & { readonly perSecond: number }): string {
  const { path, doneBytes, totalBytes, pieces, perSecond } = progress
  const mebibytes = (bytes: number) => Math.round(bytes / mebibyte)
  const byPieces = goesByPieces(progress)
  const amounts = [
    ...(pieces === undefined ? [] : [`${pieces.done} of ${pieces.total} ${pieces.unit}`]),
    ...(byPieces ? [] : [`${mebibytes(doneBytes)} of ${mebibytes(totalBytes)} MiB`]),
  ]
  const amount = `${path}  ${amounts.join(", ")}`
  if (perSecond <= 0) return amount
  const [done, total] = byPieces && pieces ? [pieces.done, pieces.total] : [doneBytes, totalBytes]
  const rate = byPieces ? `${perSecond.toFixed(1)}/s` : `${mebibytes(perSecond)} MiB/s`
  return `${amount}, ${rate}, ${timeText(Math.max(0, total - done) / perSecond)} left`
}

function timeText(seconds: number): string {
  const whole = Math.ceil(seconds)
  if (whole < 60) return `${whole} s`
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`
}
