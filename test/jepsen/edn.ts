/**
 * The part of EDN that histories of Jepsen are written in: maps with keywords, vectors, whole numbers, strings, keywords, nil, true and false. A keyword
 * is `{ keyword: name }` here.
 */
export type Edn =
  | null
  | number
  | string
  | boolean
  | Keyword
  | ReadonlyArray<Edn>
  | ReadonlyMap<string, Edn>

export interface Keyword {
  readonly keyword: string
}

export function keyword(name: string): Keyword {
  return { keyword: name }
}

export function isKeyword(value: Edn | undefined): value is Keyword {
  return typeof value === "object" && value !== null && "keyword" in value
}

export function printEdn(value: Edn): string {
  if (value === null) return "nil"
  if (typeof value === "string") return JSON.stringify(value)
  if (typeof value !== "object") return String(value)
  if (isKeyword(value)) return `:${value.keyword}`
  if (value instanceof Map) {
    return `{${[...value].map(([name, each]) => `:${name} ${printEdn(each)}`).join(", ")}}`
  }
  return `[${(value as ReadonlyArray<Edn>).map(printEdn).join(" ")}]`
}

export class MalformedEdn extends Error {
  constructor(at: number, problem: string) {
    super(`at ${at}: ${problem}`)
  }
}

const blank = /[\s,]/
const token = /[^\s,[\]{}()"]/

/** Reads all values of a text; throws `MalformedEdn`. */
export function parseEdn(text: string): ReadonlyArray<Edn> {
  const reader = new EdnReader(text)
  const values: Array<Edn> = []
  while (!reader.isAtEnd) values.push(reader.value())
  return values
}

class EdnReader {
  private readonly text: string
  private at = 0

  constructor(text: string) {
    this.text = text
  }

  get isAtEnd(): boolean {
    while (this.at < this.text.length && blank.test(this.text[this.at] as string)) this.at++
    return this.at >= this.text.length
  }

  value(): Edn {
    if (this.isAtEnd) throw new MalformedEdn(this.at, "the text ends inside a value")
    switch (this.text[this.at]) {
      case "{":
        return this.map()
      case "[":
        return this.until("]")
      case '"':
        return this.string()
      case ":":
        this.at++
        return keyword(this.word())
      default:
        return this.atom()
    }
  }

  private until(close: string): ReadonlyArray<Edn> {
    this.at++
    const values: Array<Edn> = []
    while (!this.isAtEnd && this.text[this.at] !== close) values.push(this.value())
    if (this.isAtEnd) throw new MalformedEdn(this.at, `no ${close}`)
    this.at++
    return values
  }

  private map(): ReadonlyMap<string, Edn> {
    const begin = this.at
    const values = this.until("}")
    const map = new Map<string, Edn>()
    for (let i = 0; i < values.length; i += 2) {
      const [name, value] = [values[i], values[i + 1]]
      if (!isKeyword(name) || value === undefined) throw new MalformedEdn(begin, "an odd map")
      map.set(name.keyword, value)
    }
    return map
  }

  private string(): string {
    const begin = this.at++
    while (this.at < this.text.length && this.text[this.at] !== '"') {
      this.at += this.text[this.at] === "\\" ? 2 : 1
    }
    this.at++
    try {
      return JSON.parse(this.text.slice(begin, this.at)) as string
    } catch {
      throw new MalformedEdn(begin, "a string without its end")
    }
  }

  private word(): string {
    const begin = this.at
    while (this.at < this.text.length && token.test(this.text[this.at] as string)) this.at++
    if (this.at === begin) throw new MalformedEdn(begin, `unexpected ${this.text[begin]}`)
    return this.text.slice(begin, this.at)
  }

  private atom(): Edn {
    const begin = this.at
    const word = this.word()
    if (word === "nil") return null
    if (word === "true" || word === "false") return word === "true"
    const number = Number(word)
    if (!Number.isInteger(number)) throw new MalformedEdn(begin, `${word} is no value known here`)
    return number
  }
}
