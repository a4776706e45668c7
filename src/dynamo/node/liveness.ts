import type { MonotonicMs, NodeId } from "../../types.ts"

/** A node that nothing was heard of for so long counts as down. */
export const silenceMs = 1000
/** A member that was sent nothing for so long is told that this node lives. */
export const greetingMs = 250

/**
 * Who is up, by what was heard of whom: messages of either mode, and greetings where nothing else is to be said. Whoever has not had the time to say anything since this node
 * started counts as up.
 */
export class Liveness {
  private readonly heard = new Map<NodeId, MonotonicMs>()
  private readonly lost = new Set<NodeId>()
  private readonly startedMs: MonotonicMs
  private nextGreetingMs: MonotonicMs

  constructor(nowMs: MonotonicMs) {
    this.startedMs = nowMs
    this.nextGreetingMs = nowMs
  }

  heardOf(node: NodeId, nowMs: MonotonicMs): void {
    this.heard.set(node, nowMs)
    this.lost.delete(node)
  }

  /** The transport has no connection to it. */
  lose(node: NodeId): void {
    this.lost.add(node)
  }

  isUp(node: NodeId, nowMs: MonotonicMs): boolean {
    if (this.lost.has(node)) return false
    return this.silentMs(node, nowMs) < silenceMs
  }

  /** For how long nothing was heard of it; at most for as long as this node runs. */
  silentMs(node: NodeId, nowMs: MonotonicMs): number {
    return nowMs - (this.heard.get(node) ?? this.startedMs)
  }

  /** True once every `greetingMs`. */
  greets(nowMs: MonotonicMs): boolean {
    if (nowMs < this.nextGreetingMs) return false
    this.nextGreetingMs = nowMs + greetingMs
    return true
  }
}
