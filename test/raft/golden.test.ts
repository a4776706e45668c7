import { join } from "node:path"
import { goldenScripts } from "../golden.ts"
import { runScript } from "./script.ts"

// script.ts tells the language.
goldenScripts({
  of: "the raft core",
  directory: join(import.meta.dir, "golden"),
  atLeast: 60,
  run: runScript,
})
