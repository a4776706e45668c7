import { describe, expect, test } from "bun:test"
import { SessionFloors } from "../../src/client/sessionFloors.ts"
import { emptyBytes, utf8 } from "../../src/lib/bytes.ts"
import { Prng } from "../../src/lib/prng.ts"

const letter = (index: number) => Uint8Array.from([97 + index])
const edge = (index: number) => (index === 26 ? emptyBytes : letter(index))

function parsed(token: string): SessionFloors {
  const session = SessionFloors.parse(token)
  if (typeof session === "string") throw new Error(session)
  return session
}

describe("session floors", () => {
  test("whatever is seen in whatever intervals, each position asks for the largest version seen there", () => {
    const prng = new Prng(5)
    for (let round = 0; round < 300; round++) {
      let session = new SessionFloors("cluster")
      const model = new Array<number>(26).fill(0)
      for (let step = 0; step < 25; step++) {
        const low = prng.int(0, 25)
        const high = prng.int(low + 1, 26)
        const version = prng.int(0, 40)
        session.saw({ start: letter(low), end: edge(high) }, version)
        for (let i = low; i < high; i++) model[i] = Math.max(model[i] as number, version)
        if (prng.int(0, 5) === 0) session = parsed(session.token)
        for (let i = 0; i < 26; i++) {
          expect(session.least(letter(i), edge(i + 1))).toBe(model[i] as number)
        }
        const [from, to] = [prng.int(0, 25), 26]
        const most = Math.max(...model.slice(from, to))
        expect(session.least(letter(from), emptyBytes)).toBe(most)
      }
    }
  })

  test("what was seen of a range counts for both halves after it is split, and for nothing else", () => {
    const session = new SessionFloors("c")
    session.saw({ start: utf8("d"), end: utf8("p") }, 70)
    expect(session.least(utf8("d"), utf8("h"))).toBe(70)
    expect(session.least(utf8("h"), utf8("p"))).toBe(70)
    session.saw({ start: utf8("h"), end: utf8("p") }, 90)
    expect(session.least(utf8("d"), utf8("h"))).toBe(70)
    expect(session.least(utf8("a"), utf8("d"))).toBe(0)
    expect(session.least(utf8("p"), emptyBytes)).toBe(0)
    session.saw({ start: utf8("h"), end: utf8("p") }, 80)
    expect(session.least(utf8("k"), utf8("l"))).toBe(90)
  })

  test("a token is printable, says its cluster, and a changed one is refused", () => {
    const session = new SessionFloors("0123456789abcdef")
    session.saw({ start: utf8("a"), end: emptyBytes }, 2 ** 52)
    const { token } = session
    expect(token).toMatch(/^[\w-]+$/)
    expect(parsed(token).clusterId).toBe("0123456789abcdef")
    expect(parsed(token).token).toBe(token)
    for (let i = 0; i < token.length; i++) {
      const other = token[i] === "x" ? "y" : "x"
      expect(SessionFloors.parse(token.slice(0, i) + other + token.slice(i + 1))).toBeString()
    }
    for (const bad of ["", "x", `${token} `, token.slice(1), "not a token!"]) {
      expect(SessionFloors.parse(bad)).toContain("session token")
    }
    expect(parsed(new SessionFloors("c").token).least(emptyBytes, emptyBytes)).toBe(0)
  })

  test("however many ranges are seen, a token stays short and never asks for less", () => {
    const session = new SessionFloors("c")
    const name = (i: number) => utf8(`${i}`.padStart(200, "0"))
    for (let i = 0; i < 1000; i++) {
      session.saw({ start: name(2 * i), end: name(2 * i + 1) }, 1 + ((i * 7919) % 1000))
    }
    expect(session.token.length).toBeLessThan(16 * 1024)
    for (let i = 0; i < 1000; i++) {
      const least = session.least(name(2 * i), name(2 * i + 1))
      expect(least).toBeGreaterThanOrEqual(1 + ((i * 7919) % 1000))
    }
  })
})
