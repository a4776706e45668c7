/**
 * A seeded source of chance: xoshiro128** (Blackman and Vigna, 2018), seeded by splitmix32. The same seed gives the same
 * draws on every platform. Not for secrets.
 */
export class Prng {
  private a: number
  private b: number
  private c: number
  private d: number

  constructor(seed: number) {
    let state = (seed ^ Math.floor(seed / 2 ** 32)) >>> 0
    const next = () => {
      state = (state + 0x9e3779b9) >>> 0
      let z = state
      z = Math.imul(z ^ (z >>> 16), 0x21f0aaad)
      z = Math.imul(z ^ (z >>> 15), 0x735a2d97)
      return (z ^ (z >>> 15)) >>> 0
    }
    this.a = next()
    this.b = next()
    this.c = next()
    this.d = next() | 1
  }

  /** An independent stream, so that a draw added to one does not shift the others. */
  fork(): Prng {
    return new Prng(this.uint32() * 2 ** 21 + (this.uint32() >>> 11))
  }

  /** 0 to 2^32 - 1. */
  uint32(): number {
    const times5 = Math.imul(this.b, 5)
    const result = Math.imul((times5 << 7) | (times5 >>> 25), 9) >>> 0
    const t = this.b << 9
    this.c ^= this.a
    this.d ^= this.b
    this.b ^= this.c
    this.a ^= this.d
    this.c ^= t
    this.d = (this.d << 11) | (this.d >>> 21)
    return result
  }

  /** 0 <= x < 1. */
  float(): number {
    return this.uint32() / 2 ** 32
  }

  /** A whole number from `min` to `max`, both included. */
  int(min: number, max: number): number {
    return min + Math.floor(this.float() * (max - min + 1))
  }

  /** True with the given probability, 0 to 1. */
  chance(probability: number): boolean {
    return this.float() < probability
  }

  /** Log-uniform between `min` and `max`, both above 0: every order of magnitude is as likely as the next. */
  logUniform(min: number, max: number): number {
    return min * (max / min) ** this.float()
  }

  /** One of `items`, which must not be empty. */
  pick<A>(items: ReadonlyArray<A>): A {
    return items[this.int(0, items.length - 1)] as A
  }

  /** Fisher-Yates, in place. */
  shuffle<A>(items: Array<A>): Array<A> {
    for (let i = items.length - 1; i > 0; i--) {
      const j = this.int(0, i)
      const swap = items[i] as A
      items[i] = items[j] as A
      items[j] = swap
    }
    return items
  }
}
