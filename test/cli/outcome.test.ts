import { afterEach, describe, expect, test } from "bun:test"
import { emptyBytes } from "../../src/lib/bytes.ts"
import { ByteWriter } from "../../src/lib/byteWriter.ts"
import { writeRoutes } from "../../src/wire/answersLayout.ts"
import { FrameDecoder } from "../../src/wire/frames.ts"
import { readRequest, writeWelcome } from "../../src/wire/native.ts"
import { kvorum } from "../processes/Command.ts"

/**
 * A node that takes a write and hangs up before it answers, as one does that dies at that moment. What became of the write cannot be known,
 * and the command must say so.
 */
const stops: Array<() => void> = []
afterEach(() => {
  for (const stop of stops.splice(0)) stop()
})

function hangingNode(): { readonly endpoint: string; readonly mutations: () => number } {
  let mutations = 0
  const listener = Bun.listen<{ decoder: FrameDecoder; greeted: boolean }>({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      open(socket) {
        socket.data = { decoder: new FrameDecoder(), greeted: false }
      },
      data(socket, chunk) {
        const { data } = socket
        data.decoder.push(chunk)
        for (let frame = data.decoder.next(); frame !== undefined; frame = data.decoder.next()) {
          const writer = new ByteWriter(1024)
          if (!data.greeted) {
            data.greeted = true
            writeWelcome(writer, { clusterId: "c", node: 1, time: 1_000_000 })
            socket.write(writer.take())
            continue
          }
          const request = readRequest(frame)
          if (request._tag === "AskRoutes") {
            writeRoutes(writer, request.id, routes(`127.0.0.1:${listener.port}`))
            socket.write(writer.take())
          } else if (request._tag === "Mutate") {
            mutations++
            socket.end()
          }
        }
      },
    },
  })
  stops.push(() => listener.stop(true))
  return { endpoint: `127.0.0.1:${listener.port}`, mutations: () => mutations }
}

function routes(client: string) {
  const versions = { boundsVersion: 1, membersVersion: 1 }
  return {
    ring: undefined,
    nodes: [{ id: 1, client, peer: client }],
    namespaces: [{ id: 1, name: "default", mode: "strong", partitioning: "hash" } as const],
    ranges: [
      {
        descriptor: {
          id: 1,
          namespace: 1,
          start: emptyBytes,
          end: emptyBytes,
          replicas: [{ node: 1, replica: 1, role: "voter" as const }],
          ...versions,
        },
        leader: 1,
        term: 1,
        index: 1,
      },
    ],
  }
}

const batchLine = '{"op":"put","key":"k","value":"v"}'

describe.concurrent("when the answer never comes", () => {
  // Each tries until the deadline of ten seconds, so they do it side by side.
  test("a write is exit code 3, one of a batch decides the batch's, and a read is refused", async () => {
    const writes: ReadonlyArray<ReadonlyArray<string>> = [
      ["put", "default", "k", "v", "--json"],
      ["delete", "default", "k", "--json"],
      ["cas", "default", "k", "v", "--expect-version", "0", "--json"],
    ]
    const run = async (words: ReadonlyArray<string>, input = "") => {
      const node = hangingNode()
      const finished = await kvorum([...words, "--endpoints", node.endpoint], { input })
      return { ...finished, words, mutations: node.mutations() }
    }
    const batch = run(["batch", "default"], batchLine)
    const read = run(["get", "default", "k"])
    for (const { words, code, stdout, stderr, mutations } of await Promise.all(
      writes.map((words) => run(words)),
    )) {
      expect({ words, code }).toEqual({ words, code: 3 })
      expect(stderr).toStartWith("kvorum: OutcomeUnknown: ")
      expect(JSON.parse(stdout)).toMatchObject({ error: "OutcomeUnknown" })
      // It was tried again, not given up at the first.
      expect(mutations).toBeGreaterThan(1)
    }
    expect(await batch).toMatchObject({
      code: 3,
      stderr: "kvorum: OutcomeUnknown: 1 of 1 operations\n",
    })
    expect(JSON.parse((await batch).stdout)).toMatchObject({
      op: "put",
      key: "k",
      error: "OutcomeUnknown",
    })
    // Nothing can have happened.
    expect((await read).code).toBe(1)
    expect((await read).stderr).toStartWith("kvorum: QuorumUnavailable: ")
  }, 60_000)
})
