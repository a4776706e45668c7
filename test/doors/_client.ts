import { Effect } from "effect"
import { Client } from "../../src/client/Client.ts"
const [op, callers, seconds, conns] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4]), Number(process.argv[5] ?? 1)]
const value = new Uint8Array(256)
const program = Effect.gen(function* () {
  const kv = yield* Client
  for (let i = 0; i < 1000; i++) yield* kv.put("default", `key:${i}`, value)
  let count = 0
  const end = performance.now() + seconds * 1000
  const cpu0 = process.cpuUsage()
  const t0 = performance.now()
  const lat: number[] = []
  const caller = Effect.gen(function* () {
    while (performance.now() < end) {
      const key = `key:${(count * 7919) % 1000}`
      const t = performance.now()
      if (op === "put") yield* kv.put("default", key, value)
      else yield* kv.get("default", key)
      if ((count & 15) === 0) lat.push(performance.now() - t)
      count++
    }
  })
  yield* Effect.all(Array.from({ length: callers }, () => caller), { concurrency: "unbounded" })
  const dt = (performance.now() - t0) / 1000
  const cpu = process.cpuUsage(cpu0)
  lat.sort((a, b) => a - b)
  console.log(op, callers, conns, Math.round(count / dt), "ops/s client cpu", ((cpu.user + cpu.system) / 1e6 / dt).toFixed(2), "us/op", ((cpu.user + cpu.system) / count).toFixed(1), "p50", lat[lat.length >> 1]?.toFixed(3), "p99", lat[Math.floor(lat.length * 0.99)]?.toFixed(3))
})
await Effect.runPromise(program.pipe(Effect.provide(Client.layer({ endpoints: ["127.0.0.1:17401"], connectionsPerNode: conns }))))
process.exit(0)
