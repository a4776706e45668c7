import { bunPath, root } from "../processes/Command.ts"
import { machineClass, today } from "./Machine.ts"

/** What `npm run sim -- --hunt N --json` prints, as far as it is used here. */
interface Hunt {
  readonly seeds: number
  readonly simulatedHours: number
  readonly cpuMinutes: number
  readonly violations: number
}

/** Simulated cluster hours per CPU-minute at world level. Exit code: 0, or 1 when the hunt found a violation. */
export async function benchSim(options: {
  readonly seeds: number
  readonly json: boolean
}): Promise<number> {
  const words = ["test/sim/main.ts", "--hunt", String(options.seeds), "--json"]
  const child = Bun.spawn([bunPath, ...words], { cwd: root, stdout: "pipe", stderr: "inherit" })
  const [output, code] = await Promise.all([new Response(child.stdout).text(), child.exited])
  const hunt = JSON.parse(output.trim().split("\n").at(-1) as string) as Hunt
  const hoursPerCpuMinute = hunt.simulatedHours / hunt.cpuMinutes
  const result = { date: today(), machine: machineClass(), hoursPerCpuMinute, ...hunt }
  if (options.json) console.log(JSON.stringify(result))
  else {
    console.log(`${hoursPerCpuMinute.toFixed(2)} simulated cluster hours per CPU-minute`)
    console.log(
      `${hunt.seeds} seeds, ${hunt.simulatedHours.toFixed(2)} hours in ${hunt.cpuMinutes.toFixed(2)} CPU-minutes, ${hunt.violations} violations; ${result.date}, ${result.machine}`,
    )
  }
  return code === 0 && hunt.violations === 0 ? 0 : 1
}
