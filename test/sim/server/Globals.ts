import { StoreLoop } from "../../../src/server/storeLoop.ts"
import type { StoreLoopOptions } from "../../../src/server/storeTypes.ts"
import type { SimulatedProcess } from "./simulatedProcess.ts"
import type { SimulatedTcp } from "./simulatedTcp.ts"
import type { WorkerConstructor } from "./simulatedWorker.ts"

/** What the globals of the runtime are replaced by. */
export interface SimulatedGlobals {
  readonly current: () => SimulatedProcess
  readonly tcp: SimulatedTcp
  readonly Worker: WorkerConstructor
  /** A process opens its store. */
  readonly opening: (options: StoreLoopOptions) => StoreLoop
  /** A microtask threw, or a promise was rejected that nobody waits for. */
  readonly threw: (error: unknown) => void
}

interface Timer {
  isOver: boolean
  unref(): Timer
  ref(): Timer
}

type Callback = (...rest: ReadonlyArray<unknown>) => void

/**
 * Puts a simulated runtime in the place of the real one until the returned function is called: clocks, timers, randomness, sockets and worker threads are
 * those of the process whose code runs. The code that ships asks for all of these by their global names, so that it need not know.
 */
export function replaceGlobals(simulated: SimulatedGlobals): () => void {
  const { current, tcp } = simulated
  const undo: Array<() => void> = []
  const put = (target: object, name: string, value: unknown) => {
    const before = Object.getOwnPropertyDescriptor(target, name)
    if (before?.configurable === false) {
      const known = Reflect.get(target, name)
      Reflect.set(target, name, value)
      undo.unshift(() => void Reflect.set(target, name, known))
      return
    }
    Object.defineProperty(target, name, { value, configurable: true, writable: true })
    undo.unshift(() => {
      if (before === undefined) Reflect.deleteProperty(target, name)
      else Object.defineProperty(target, name, before)
    })
  }
  putTimers(put, current)
  const native = queueMicrotask
  put(globalThis, "queueMicrotask", (callback: () => void) =>
    native(() => {
      try {
        callback()
      } catch (error) {
        simulated.threw(error)
      }
    }),
  )
  put(performance, "now", () => current().monotonicMs)
  put(process.hrtime, "bigint", () => BigInt(Math.round(current().monotonicMs * 1e6)))
  put(process, "pid", 1000)
  put(Date, "now", () => Math.floor(current().wallMs))
  put(Math, "random", () => current().prng.float())
  put(crypto, "getRandomValues", (words: Uint32Array) => {
    for (let i = 0; i < words.length; i++) words[i] = current().prng.uint32()
    return words
  })
  put(crypto, "randomUUID", () => {
    const word = () => current().prng.uint32().toString(16).padStart(8, "0")
    return `${word()}-${word()}-${word()}-${word()}`
  })
  put(Bun, "listen", (options: never) => tcp.listen(current(), options))
  put(Bun, "connect", (options: never) => tcp.connect(current(), options))
  put(globalThis, "Worker", simulated.Worker)
  put(StoreLoop, "open", simulated.opening)
  return () => {
    for (const each of undo) each()
  }
}

function putTimers(
  put: (target: object, name: string, value: unknown) => void,
  current: () => SimulatedProcess,
): void {
  const begin = (): Timer => {
    const timer: Timer = { isOver: false, unref: () => timer, ref: () => timer }
    return timer
  }
  const end = (timer: Timer | undefined) => {
    if (timer !== undefined) timer.isOver = true
  }
  put(globalThis, "setTimeout", (callback: Callback, delayMs = 0, ...rest: Array<unknown>) => {
    const timer = begin()
    current().after(delayMs, () => {
      if (!timer.isOver) callback(...rest)
    })
    return timer
  })
  put(globalThis, "setInterval", (callback: Callback, delayMs = 0, ...rest: Array<unknown>) => {
    const timer = begin()
    const owner = current()
    const again = () =>
      owner.after(delayMs, () => {
        if (timer.isOver) return
        again()
        callback(...rest)
      })
    again()
    return timer
  })
  put(globalThis, "setImmediate", (callback: Callback, ...rest: Array<unknown>) => {
    const timer = begin()
    current().immediate(() => {
      if (!timer.isOver) callback(...rest)
    })
    return timer
  })
  for (const name of ["clearTimeout", "clearInterval", "clearImmediate"]) {
    put(globalThis, name, end)
  }
}
