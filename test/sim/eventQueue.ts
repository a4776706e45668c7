/** Something that happens at a time; `sequence` breaks ties by order of scheduling. */
interface ScheduledEvent {
  readonly time: number
  readonly sequence: number
  readonly run: () => void
}

/** Events in order of (time, sequence): a binary heap. Times are whole microseconds of the simulated world. */
export class EventQueue {
  private readonly heap: Array<ScheduledEvent> = []
  private nextSequence = 0

  get size(): number {
    return this.heap.length
  }

  /** Time of the next event; infinite when there is none. */
  get nextTime(): number {
    return this.heap[0]?.time ?? Number.POSITIVE_INFINITY
  }

  push(time: number, run: () => void): void {
    const { heap } = this
    const event = { time, sequence: this.nextSequence++, run }
    let at = heap.length
    heap.push(event)
    while (at > 0) {
      const parent = (at - 1) >> 1
      const above = heap[parent] as ScheduledEvent
      if (above.time <= time) break
      heap[at] = above
      at = parent
    }
    heap[at] = event
  }

  /** Takes the next event out. Requires one. */
  pop(): ScheduledEvent {
    const { heap } = this
    const first = heap[0] as ScheduledEvent
    const last = heap.pop() as ScheduledEvent
    const count = heap.length
    if (count === 0) return first
    let at = 0
    for (;;) {
      let child = 2 * at + 1
      if (child >= count) break
      if (
        child + 1 < count &&
        before(heap[child + 1] as ScheduledEvent, heap[child] as ScheduledEvent)
      ) {
        child++
      }
      if (before(last, heap[child] as ScheduledEvent)) break
      heap[at] = heap[child] as ScheduledEvent
      at = child
    }
    heap[at] = last
    return first
  }
}

function before(left: ScheduledEvent, right: ScheduledEvent): boolean {
  return left.time < right.time || (left.time === right.time && left.sequence < right.sequence)
}
