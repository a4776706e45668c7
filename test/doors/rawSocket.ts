import { FrameDecoder } from "../../src/wire/frames.ts"

/** A TCP client that speaks no protocol: it writes what it is told, and keeps the frames that come. */
export class RawSocket {
  readonly frames: Array<Uint8Array> = []
  closed = false
  receivedBytes = 0
  private readonly decoder = new FrameDecoder()
  private socket: Bun.Socket<undefined> | undefined
  private outgoing: Array<Uint8Array> = []
  private wake: () => void = () => {}

  static async connect(address: string): Promise<RawSocket> {
    const raw = new RawSocket()
    const [hostname, port] = address.split(":") as [string, string]
    raw.socket = await Bun.connect<undefined>({
      hostname,
      port: Number(port),
      socket: {
        binaryType: "uint8array",
        data: (_, chunk) => {
          raw.receivedBytes += chunk.length
          raw.decoder.push(chunk)
          for (let frame = raw.decoder.next(); frame; frame = raw.decoder.next()) {
            raw.frames.push(frame)
          }
          raw.wake()
        },
        drain: () => raw.pump(),
        close: () => {
          raw.closed = true
          raw.wake()
        },
        error: () => {},
      },
    })
    return raw
  }

  write(bytes: Uint8Array): void {
    this.outgoing.push(bytes)
    this.pump()
  }

  private pump(): void {
    for (let bytes = this.outgoing[0]; bytes !== undefined; bytes = this.outgoing[0]) {
      const taken = this.socket?.write(bytes) ?? -1
      if (taken < 0) return
      if (taken < bytes.length) {
        this.outgoing[0] = bytes.subarray(taken)
        return
      }
      this.outgoing.shift()
    }
  }

  /** Bytes that the kernel has not taken yet. */
  get unsentBytes(): number {
    return this.outgoing.reduce((sum, bytes) => sum + bytes.length, 0)
  }

  pause(): void {
    this.socket?.pause()
  }

  resume(): void {
    this.socket?.resume()
  }

  end(): void {
    this.socket?.terminate()
  }

  /** Waits until `condition` holds; looks after everything that happens, and every few milliseconds for what does not. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 5)
        this.wake = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
  }
}
