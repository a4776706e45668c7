import { expect, test } from "bun:test"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { DirectoryInUse, DirectoryLock } from "../../src/disk/DirectoryLock.ts"

function withDirectory(body: (directory: string) => void | Promise<void>) {
  return async () => {
    const directory = mkdtempSync(join(tmpdir(), "kvorum-lock-"))
    try {
      await body(directory)
    } finally {
      rmSync(directory, { recursive: true, force: true })
    }
  }
}

test(
  "a second lock on a directory is refused until the first is released",
  withDirectory((directory) => {
    const lock = DirectoryLock.acquire(directory)
    expect(() => DirectoryLock.acquire(directory)).toThrow(DirectoryInUse)
    expect(() => DirectoryLock.acquire(directory)).toThrow(`in use by process ${process.pid}`)
    lock.release()
    lock.release()
    DirectoryLock.acquire(directory).release()
  }),
)

test(
  "a process killed with -9 leaves no lock, even while a child of it lives",
  withDirectory(async (directory) => {
    const script = join(directory, "holder.ts")
    const module = join(import.meta.dir, "../../src/disk/DirectoryLock.ts")
    writeFileSync(
      script,
      `import { DirectoryLock } from ${JSON.stringify(module)}
       DirectoryLock.acquire(process.argv[2])
       const child = Bun.spawn(["sleep", "30"], { stdio: ["ignore", "ignore", "ignore"] })
       console.log(child.pid)
       setInterval(() => {}, 1000)`,
    )
    const holder = Bun.spawn([process.execPath, script, directory], { stdout: "pipe" })
    const { value } = await holder.stdout.getReader().read()
    const childPid = Number.parseInt(new TextDecoder().decode(value), 10)
    expect(() => DirectoryLock.acquire(directory)).toThrow(`in use by process ${holder.pid}`)
    holder.kill("SIGKILL")
    await holder.exited
    DirectoryLock.acquire(directory).release()
    process.kill(childPid, "SIGKILL")
  }),
)
