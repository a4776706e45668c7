import { join, resolve } from "node:path"

/** The `kvorum` command as a process, the way a person runs it. */
export const root = resolve(import.meta.dir, "../..")
export const bunPath = join(root, "node_modules/.bin/bun")
export const mainPath = join(root, "src/main.ts")

export interface Finished {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
  readonly stdoutBytes: Uint8Array
}

export interface RunOptions {
  readonly input?: Uint8Array | string
  readonly environment?: Readonly<Record<string, string | undefined>>
  readonly cwd?: string
}

/** Runs a command to its end. */
export async function kvorum(
  words: ReadonlyArray<string>,
  options: RunOptions = {},
): Promise<Finished> {
  const child = Bun.spawn([bunPath, mainPath, ...words], {
    stdin: options.input === undefined ? "ignore" : Buffer.from(options.input),
    stdout: "pipe",
    stderr: "pipe",
    cwd: options.cwd ?? root,
    env: { ...process.env, KVORUM_ENDPOINTS: undefined, ...options.environment },
  })
  const [stdoutBytes, stderr, code] = await Promise.all([
    new Response(child.stdout).bytes(),
    new Response(child.stderr).text(),
    child.exited,
  ])
  return { code, stdout: Buffer.from(stdoutBytes).toString("utf8"), stderr, stdoutBytes }
}
