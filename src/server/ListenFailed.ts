import { Data } from "effect"

/** A listener could not be bound: the port is in use, or the address is not this host's. The process does not start. */
export class ListenFailed extends Data.TaggedError("ListenFailed")<{
  readonly what: string
  readonly host: string
  readonly port: number
  readonly cause: unknown
}> {
  override get message(): string {
    const reason =
      this.cause instanceof Error && "code" in this.cause ? this.cause.code : this.cause
    return `cannot listen on ${this.host}:${this.port} for ${this.what}: ${reason}`
  }
}
