import { describe, expect, test } from "bun:test"
import { ConfigProvider, Effect, Layer } from "effect"
import {
  type ClusterContract,
  checkSettings,
  defaultSettings,
  type ProcessKnobs,
  readSettings,
} from "../src/Config.ts"

const read = (environment: Record<string, string>) =>
  readSettings.pipe(
    Effect.provide(
      ConfigProvider.layer(
        ConfigProvider.fromEnv({ env: environment }).pipe(ConfigProvider.constantCase),
      ),
    ),
    Effect.provide(Layer.empty),
  )

const contract = (change: Partial<ClusterContract>) =>
  checkSettings({ ...defaultSettings, contract: { ...defaultSettings.contract, ...change } })
const knobs = (change: Partial<ProcessKnobs>) =>
  checkSettings({ ...defaultSettings, process: { ...defaultSettings.process, ...change } })

describe("settings", () => {
  test("an empty environment gives the defaults, which pass their own checks", () => {
    expect(Effect.runSync(read({}))).toEqual(defaultSettings)
    expect(checkSettings(defaultSettings)).toBeUndefined()
  })

  test("a knob is read from the environment by its name in capitals", () => {
    const settings = Effect.runSync(
      read({ KVORUM_TICK_MS: "40", KVORUM_MEMTABLE_BYTES: "1048576" }),
    )
    expect(settings.contract.tickMs).toBe(40)
    expect(settings.process.memtableBytes).toBe(1_048_576)
  })

  test("what is no number, out of its limits or against another knob is refused by name", () => {
    const refused = (environment: Record<string, string>) =>
      Effect.runSync(Effect.flip(read(environment))).message
    expect(refused({ KVORUM_TICK_MS: "soon" })).toMatch(/^[^\n]*tickMs[^\n]*$/)
    expect(refused({ KVORUM_TICK_MS: "0" })).toContain("tickMs is 0")
    expect(contract({ electionTicksMin: 20 })).toContain("electionTicksMin")
    expect(contract({ heartbeatTicks: 6 })).toContain("heartbeatTicks")
    expect(contract({ voteSilenceMs: 301 })).toContain("voteSilenceMs")
    expect(knobs({ peerBackoffMinMs: 501 })).toContain("peerBackoffMinMs")
    expect(knobs({ blockBytes: 4096.5 })).toContain("blockBytes")
    expect(knobs({ appendBytesMax: 8 * 2 ** 20, peerQueueBytes: 2 ** 20 })).toContain(
      "peerQueueBytes",
    )
  })
})
