import { afterAll } from "bun:test"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { FileDisk } from "../../src/disk/FileDisk.ts"
import { SimulatedDisk } from "../sim/simulatedDisk.ts"
import { diskContract } from "./contract.ts"

const made: Array<string> = []
afterAll(() => {
  for (const directory of made) rmSync(directory, { recursive: true, force: true })
})

diskContract("FileDisk", () => {
  const directory = mkdtempSync(join(tmpdir(), "kvorum-disk-"))
  made.push(directory)
  return new FileDisk(directory)
})
diskContract("SimulatedDisk", () => new SimulatedDisk())
