import { describe, expect, test } from "bun:test"
import {
  clientOf,
  formatAddress,
  formatMembers,
  localMembers,
  parseAddress,
  parseEndpoints,
  parseMembers,
  resolveEndpoints,
} from "../../src/cli/addresses.ts"

describe("addresses", () => {
  test("HOST:PORT and [IPV6]:PORT are read and written back", () => {
    for (const text of ["127.0.0.1:7401", "db.example.org:1", "[::1]:65535"]) {
      const address = parseAddress(text)
      expect(typeof address).toBe("object")
      if (typeof address !== "string") expect(formatAddress(address)).toBe(text)
    }
    expect(parseAddress("[::1]:7401")).toEqual({ host: "::1", port: 7401 })
  })

  test.each(["", "7401", "host", "host:", "host:0", "host:65536", "::1:7401", "a b:1", "h:1e3"])(
    "%p is no address",
    (text) => {
      expect(typeof parseAddress(text)).toBe("string")
    },
  )

  test("one bad endpoint refuses the whole list", () => {
    expect(parseEndpoints("a:1,b:2")).toHaveLength(2)
    expect(parseEndpoints("a:1,,b:2")).toBe('"" is not HOST:PORT')
  })

  test("members come in order of id, whatever the order they were named in", () => {
    const members = parseMembers("2=b:7502, 1=a:7501")
    expect(members).toEqual([
      { id: 1, peer: { host: "a", port: 7501 } },
      { id: 2, peer: { host: "b", port: 7502 } },
    ])
    if (typeof members !== "string") expect(formatMembers(members)).toBe("1=a:7501,2=b:7502")
  })

  test.each([
    ["1=a:7501,1=b:7502", "node n1 is named twice"],
    ["1=a:7501,3=b:7503", "ids must run from 1 to 2"],
    ["0=a:7501", "ids must run from 1 to 1"],
    ["1=a:100", "the peer port of node n1 must be above 100: clients use that port less 100"],
    ["a:7501", '"a:7501" is not ID=HOST:PORT'],
    [
      Array.from({ length: 10 }, (_, i) => `${i + 1}=a:${7501 + i}`).join(),
      "10 nodes are more than 9",
    ],
  ])("members %p are refused: %s", (text, problem) => {
    expect(parseMembers(text)).toBe(problem)
  })

  test("clients use a node's peer port less 100", () => {
    const [first, second] = localMembers({ nodes: 2, host: "127.0.0.1", portBase: 7400 })
    expect(first).toEqual({ id: 1, peer: { host: "127.0.0.1", port: 7501 } })
    expect(clientOf(second?.peer ?? { host: "", port: 0 })).toEqual({
      host: "127.0.0.1",
      port: 7402,
    })
  })
})

describe("the cluster is looked for", () => {
  const ask = (endpoints?: string, portBase?: number, environment?: string) =>
    resolveEndpoints({ endpoints, portBase, environment })

  test("at --endpoints before anything else", () => {
    expect(ask("h:1", 7400, "e:2")).toEqual([{ host: "h", port: 1 }])
  })

  test("at --port-base before KVORUM_ENDPOINTS", () => {
    expect(ask(undefined, 9000, "e:2")).toContainEqual({ host: "127.0.0.1", port: 9001 })
  })

  test("at KVORUM_ENDPOINTS before the ports of npm start", () => {
    expect(ask(undefined, undefined, "e:2")).toEqual([{ host: "e", port: 2 }])
  })

  test("at the ports of npm start when nothing is said, or the variable is empty", () => {
    const usual = Array.from({ length: 9 }, (_, i) => ({ host: "127.0.0.1", port: 7401 + i }))
    expect(ask()).toEqual(usual)
    expect(ask(undefined, undefined, "")).toEqual(usual)
  })

  test("and a bad place is named", () => {
    expect(ask(undefined, undefined, "nowhere")).toBe(
      'KVORUM_ENDPOINTS: "nowhere" is not HOST:PORT',
    )
    expect(ask(undefined, 80)).toBe("--port-base must be between 2024 and 64526")
  })
})
