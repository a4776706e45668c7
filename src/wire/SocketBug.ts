/**
 * What a socket's `error` handler does: the runtime calls it when another handler of the socket threw, and would go on as if
 * nothing had happened. That is a bug of this program, an assert most likely, so the process stops. Errors of the system (they carry a
 * `code`) are only the end of the connection: false, and nothing happens here.
 */
export function isSocketBug(error: Error): boolean {
  if ("code" in error && typeof error.code === "string" && "syscall" in error) return false
  queueMicrotask(() => {
    throw error
  })
  return true
}
