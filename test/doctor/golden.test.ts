import { join } from "node:path"
import { goldenScripts } from "../golden.ts"
import { Directory } from "./fixture.ts"

goldenScripts({
  of: "the doctor",
  directory: join(import.meta.dir, "golden"),
  atLeast: 10,
  run(commands) {
    const directory = new Directory()
    try {
      return commands.flatMap((command) => directory.run(command))
    } finally {
      directory.remove()
    }
  },
})
