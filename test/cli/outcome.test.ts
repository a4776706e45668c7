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
    nodes: [{ id: 1, client, peer: client }],
    namespaces: [{ id: 1, name: "default", mode: "strong", partitioning: "hash" } as const],
    ranges: [
      {
        descriptor: {
          id: 1,
          namespace: 1,
          start: emptyBytes,
          end: emptyBytes,
          replicas: [{ node: 1, replica: 1 }],
          ...versions,
        },
        leader: 1,
        term: 1,
        index: 1,
      },
    ],
  }
}

describe("a write whose answer never came", () => {
  const writes: ReadonlyArray<ReadonlyArray<string>> = [
    ["put", "default", "k", "v"],
    ["delete", "default", "k"],
    ["cas", "default", "k", "v", "--expect-absent"],
  ]
  test.each(writes)(
    "is exit code 3: %s",
    async (...words) => {
      const node = hangingNode()
      const place = ["--endpoints", node.endpoint, "--timeout-ms", "700", "--json"]
      const { code, stdout, stderr } = await kvorum([...words, ...place])
      expect(code).toBe(3)
      expect(stderr).toStartWith("kvorum: OutcomeUnknown: ")
      expect(JSON.parse(stdout)).toMatchObject({ error: "OutcomeUnknown" })
      // It was tried again, not given up at the first.
      expect(node.mutations()).toBeGreaterThan(1)
    },
    30_000,
  )

  test("of a batch decides the batch's exit code", async () => {
    const { endpoint } = hangingNode()
    const place = ["--endpoints", endpoint, "--timeout-ms", "700"]
    const { code, stdout, stderr } = await kvorum(["batch", "default", ...place], {
      input: '{"op":"put","key":"k","value":"v"}',
    })
    expect(code).toBe(3)
    expect(JSON.parse(stdout)).toMatchObject({ op: "put", key: "k", error: "OutcomeUnknown" })
    expect(stderr).toBe("kvorum: OutcomeUnknown: 1 of 1 operations\n")
  }, 30_000)

  test("a read whose answer never came is refused: nothing can have happened", async () => {
    const { endpoint } = hangingNode()
    const place = ["--endpoints", endpoint, "--timeout-ms", "700"]
    const { code, stderr } = await kvorum(["get", "default", "k", ...place])
    expect(code).toBe(1)
    expect(stderr).toStartWith("kvorum: QuorumUnavailable: ")
  }, 30_000)
})
