/**
 * Which of the nodes' own lines a person who runs `npm start` sees: warnings, errors and last words always; news, such as who connected to
 * whom, only once the cluster is ready and until it is stopped. While it starts, news is kept, in case the start takes too long and someone has to
 * find out why.
 */
const news = /^(?:\d{4}-\d\d-\d\dT\S+ (?:INFO|DEBUG|TRACE) |n\d+ is up: )/
const keptMax = 1000

/** The last word of a node that was taken out of its cluster; its exit is no failure. */
export function tellsOfRemoval(line: string): boolean {
  return /^kvorum: n\d+ was removed from its cluster/.test(line)
}

export class NodeLines {
  private phase: "starting" | "running" | "stopping" = "starting"
  private kept: Array<string> = []

  /** The line that a node has written, with its name in front, if it is to be shown now. */
  take(node: string, line: string): string | undefined {
    const named = `${node} | ${line}`
    if (this.phase === "running" || !news.test(line)) return named
    if (this.phase === "starting" && this.kept.length < keptMax) this.kept.push(named)
    return undefined
  }

  /** From now on everything is shown. The result is what was kept, to be shown if the start is late. */
  run(): ReadonlyArray<string> {
    if (this.phase === "starting") this.phase = "running"
    return this.kept.splice(0)
  }

  /** From now on only warnings are. */
  stop(): void {
    this.phase = "stopping"
  }
}
