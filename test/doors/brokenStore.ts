import { Effect } from "effect"
import { assert } from "../../src/lib/assert.ts"
import { withDoors } from "./harness.ts"

/** A program whose store fails an assert while a client waits for an answer; run by nativeDoor.test.ts. Without a
 * top-level await, as src/main.ts: the runtime reports an uncaught error inside one, and goes on. */
void withDoors({ nodes: 1 }, async (doors) => {
  doors.cluster.intercept = () => {
    assert(false, "the store broke a promise")
    return true
  }
  const kv = await doors.client()
  await Effect.runPromise(Effect.exit(kv.put("default", "a", "1", { deadlineMs: 2000 })))
}).then(() => process.exit(0))
