import { describe, expect, test } from "bun:test"
import { defaultSettings, settingsProblem } from "../../src/server/settings.ts"

describe("settings", () => {
  test("a node's own settings are sound", () => {
    expect(settingsProblem(defaultSettings)).toBeUndefined()
  })

  test("each relation between the timing settings is checked", () => {
    const problem = (fields: Partial<typeof defaultSettings>) =>
      settingsProblem({ ...defaultSettings, ...fields })
    expect(problem({ electionTicksMax: 10 })).toContain("electionTicksMax")
    expect(problem({ heartbeatTicks: 6 })).toContain("heartbeatTicks")
    expect(problem({ voteSilenceMs: 301 })).toContain("voteSilenceMs")
  })
})
