import {
  eventualProblem,
  getProblem,
  mutateProblem,
  scanProblem,
} from "../../src/doors/native/checks.ts"
import { tokenOf, viewOf } from "../../src/dynamo/valueView.ts"
import { MalformedBytes } from "../../src/lib/byteReader.ts"
import { concatBytes, toHex } from "../../src/lib/bytes.ts"
import { Prng } from "../../src/lib/prng.ts"
import { decodePeerMessage } from "../../src/server/peerMessage.ts"
import { readAnswer } from "../../src/wire/answersLayout.ts"
import { FrameDecoder } from "../../src/wire/frames.ts"
import { readHello, readRequest, readWelcome } from "../../src/wire/native.ts"
import { readPeerFrame, readPeerHello } from "../../src/wire/peer.ts"
import { bytesOf, frameOf } from "./samples.ts"

export interface FuzzReport {
  readonly frames: number
  /** Payloads that some reader took for well-formed, and that every reader refused. */
  readonly accepted: number
  readonly refused: number
  /** Streams that ended in a frame problem. */
  readonly streamsBroken: number
}

const caller = {
  namespaces: [
    { id: 1, name: "default", mode: "strong", partitioning: "hash" },
    { id: 2, name: "notes", mode: "eventual", partitioning: "hash" },
  ],
  internal: false,
} as const

/** Every reader that meets bytes from outside. */
const readers: ReadonlyArray<(payload: Uint8Array) => unknown> = [
  (payload) => {
    const request = readRequest(payload)
    if (request._tag === "Mutate") mutateProblem(request, caller)
    else if (request._tag === "Get") getProblem(request, caller)
    else if (request._tag === "Scan") scanProblem(request, caller)
    else if (request._tag === "Eventual") eventualProblem(request.request, caller)
  },
  (payload) => {
    const { answer } = readAnswer(payload)
    if (answer._tag !== "Eventual" || answer.reply._tag !== "EventualValue") return
    const { state } = answer.reply
    if (state === undefined) return
    viewOf(state)
    tokenOf(state, 2, state)
  },
  readWelcome,
  readHello,
  readPeerHello,
  readPeerFrame,
  decodePeerMessage,
]

/**
 * Feeds `count` frames, well-formed ones mutated at the level of bytes and of lengths, in random chunks, to the decoder and to every
 * reader. Each may refuse with `MalformedBytes` and nothing else, and the decoder never sets more aside than twice what has
 * arrived. Throws at the first that does, with what reproduces it.
 */
export function runFrameFuzz(count: number, seed: number): FuzzReport {
  const prng = new Prng(seed)
  let frames = 0
  let accepted = 0
  let refused = 0
  let streamsBroken = 0
  while (frames < count) {
    const pieces = Array.from({ length: prng.int(1, 8) }, () => mutate(frameOf(prng), prng))
    frames += pieces.length
    const stream = concatBytes(...pieces)
    const decoder = new FrameDecoder()
    for (let offset = 0; offset < stream.length && decoder.problem === undefined; ) {
      const end = Math.min(stream.length, offset + Math.floor(prng.logUniform(1, 5000)))
      decoder.push(stream.subarray(offset, end))
      for (let frame = decoder.next(); frame !== undefined; frame = decoder.next()) {
        if (meetReaders(frame, seed)) accepted++
        else refused++
      }
      offset = end
      if (decoder.reservedBytes > 2 * stream.length) {
        throw new Error(`seed ${seed}: ${decoder.reservedBytes} bytes set aside`)
      }
    }
    if (decoder.problem !== undefined) streamsBroken++
  }
  return { frames, accepted, refused, streamsBroken }
}

function meetReaders(payload: Uint8Array, seed: number): boolean {
  let taken = false
  for (const read of readers) {
    try {
      read(payload)
      taken = true
    } catch (cause) {
      if (cause instanceof MalformedBytes) continue
      throw new Error(`seed ${seed}: payload ${toHex(payload)}`, { cause })
    }
  }
  return taken
}

/** Mostly the frame with a few bytes wrong; its length is mostly right again, so that readers see the rest. */
function mutate(frame: Uint8Array, prng: Prng): Uint8Array {
  if (prng.chance(0.1)) return frame
  let payload: Uint8Array = frame.slice(4)
  for (let i = prng.int(1, 3); i > 0 && payload.length > 0; i--) {
    const at = prng.int(0, payload.length - 1)
    switch (prng.int(0, 5)) {
      case 0:
        payload[at] = prng.int(0, 255)
        break
      case 1:
        payload[at] = (payload[at] as number) ^ (1 << prng.int(0, 7))
        break
      case 2:
        payload = payload.slice(0, at)
        break
      case 3:
        payload = concatBytes(payload.slice(0, at), bytesOf(prng, 1, 9), payload.slice(at))
        break
      case 4:
        // Where a length may be: a large one.
        payload.set(
          [prng.pick([0xdd, 0xdf, 0xc6, 0xff]), 0xff, 0xff, 0xff, 0xff].slice(
            0,
            payload.length - at,
          ),
          at,
        )
        break
      default:
        payload = concatBytes(payload.slice(0, at), payload.slice(prng.int(at, payload.length)))
    }
  }
  const length = new Uint8Array(4)
  const claimed = prng.chance(0.02) ? prng.uint32() : payload.length
  new DataView(length.buffer).setUint32(0, claimed, true)
  return concatBytes(length, payload)
}
