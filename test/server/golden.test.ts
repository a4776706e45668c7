import { goldenScripts } from "../golden.ts"
import { runRangeScript } from "./rangeScript.ts"

goldenScripts({
  of: "ranges",
  directory: new URL("golden", import.meta.url).pathname,
  atLeast: 4,
  run: runRangeScript,
})
