import { PeerBeats, Sum } from "../../../src/server/peerBeats.ts"
import { type Mutant, withMethod } from "./mutant.ts"

export const sumNotCompared: Mutant = {
  name: "BF",
  title: "a beat's sum is taken for equal to that of the receiver's groups, whatever it is",
  plant: withMethod<Sum, [unknown], boolean>(Sum, "equals", () => () => true),
}

interface Marks {
  marks: Array<{ readonly round: number; readonly monotonicMs: number; readonly wallMs: number }>
  equalRound: number
  equalMark: Marks["marks"][number] | undefined
}

/** The newest round's reading in place of that of the round that was echoed. */
export const beatConfirmsLater: Mutant = {
  name: "BG",
  title: "a beat's echo confirms sleeping groups from the sending of a later beat (pitfall 19)",
  shows: ({ settings }) => settings.leaseMs > 0 && settings.sleepTicks > 0,
  plant: withMethod<Marks, [number], void>(
    PeerBeats,
    "confirmed",
    () =>
      function (round) {
        const mark = this.marks.at(-1)
        if (mark === undefined || round < this.equalRound) return
        this.equalRound = mark.round
        this.equalMark = mark
      },
  ),
}
