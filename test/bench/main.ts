import { benchCaches } from "./Caches.ts"
import { benchEngine } from "./Engine.ts"
import { benchEventual } from "./Eventual.ts"
import { benchFailover } from "./Failover.ts"
import { benchIdleGroups } from "./IdleGroups.ts"
import { benchSim } from "./Sim.ts"
import { benchSnapshot } from "./Snapshot.ts"
import { benchStrong } from "./Strong.ts"
import { benchTopology } from "./Topology.ts"

/**
 * `npm run bench -- strong [--json] [--seconds N] [--skip-peers] [--spread]`: Kvorum and etcd in the same run.
 * `npm run bench -- eventual [--json] [--seconds N] [--skip-peers]`: Kvorum and Redis in the same run.
 * `npm run bench -- sim [--seeds N] [--json]`: simulated cluster hours per CPU-minute.
 * `npm run bench -- engine [--json] [--quick] [--only NAME,...] [--skip-peers]`: the storage engine and RocksDB in the same run.
 * `npm run bench -- failover [--json] [--rounds N] [--histories DIR]`: for how long nothing can be written when a node fails.
 * `npm run bench -- topology [--json] [--rounds N] [--mebibytes N]`: what it costs clients that ranges split and merge and that a node joins, and a table of very many ranges.
 * `npm run bench -- snapshot [--json] [--mebibytes N]`: how fast a new replica catches up, and what that costs clients.
 * `npm run bench -- idle-groups [--json] [--groups N] [--seconds N]`: what groups cost that nobody uses.
 * `npm run bench -- caches [--json] [--quick]`: what each cache of the engine buys.
 *
 * Figures are measured when asked for and never asserted: a timed test says more about the neighbours than about the code.
 */
const usage = [
  "npm run bench -- strong [--json] [--seconds N] [--skip-peers] [--spread]",
  "    puts and gets with 1, 16 and 128 callers on three nodes, then etcd on the same machine",
  "    --spread       leaders on all nodes, in place of one",
  "    --seconds N    per put run (60); gets run a third of it",
  "    --skip-peers   measure Kvorum alone",
  "npm run bench -- eventual [--json] [--seconds N] [--skip-peers]",
  "    puts and gets at levels one and quorum on three nodes, then one Redis on the same machine",
  "npm run bench -- sim [--seeds N] [--json]",
  "    simulated cluster hours per CPU-minute (--seeds 800: fewer measure the compilers too)",
  "npm run bench -- engine [--json] [--quick] [--only NAME,...] [--skip-peers]",
  "    the storage engine, then RocksDB on the same machine; some 30 minutes and 40 GB of disk",
  "    --only NAME    fillrandom, overwrite, readrandom, readmissing, seekrandom, readseq, fillsync, fillsync64,",
  "                   sustained, amplification, reopen, memory, node",
  "    --quick        little work, without RocksDB: shows that all of it runs; KVORUM_BENCH_DIR says where stores lie",
  "npm run bench -- failover [--json] [--rounds N] [--histories DIR]",
  "    the time without writes when a leader is killed, paused, cut one way, or its disk stands still (--rounds 12 of each)",
  "    --histories DIR   keep what clients saw, for npm run jepsen and outside checkers",
  "npm run bench -- topology [--json] [--rounds N] [--mebibytes N]",
  "    the time without writes when a range splits or two merge under load (0 rounds = left out), a node that joins a cluster of N MiB (1024; 0 = none), and a client's table of 100,000 ranges",
  "npm run bench -- snapshot [--json] [--mebibytes N]",
  "    a replica is added to a range of N MiB (1024), with and without clients; beside it a copy of the directory",
  "npm run bench -- idle-groups [--json] [--groups N] [--seconds N]",
  "    CPU time and memory of three nodes with N idle groups more (1000) than a new cluster has, over N seconds (60)",
  "npm run bench -- caches [--json] [--quick]",
  "    point reads with each cache of the engine on and off",
].join("\n")

function usageExit(problem: string): never {
  console.error(`${problem}\n\n${usage}`)
  process.exit(2)
}

function parse(words: ReadonlyArray<string>) {
  const options = {
    json: false,
    skipPeers: false,
    spread: false,
    quick: false,
    seconds: 60,
    seeds: 800,
    rounds: 12,
    mebibytes: 1024,
    groups: 1000,
    histories: undefined as string | undefined,
    only: undefined as ReadonlyArray<string> | undefined,
  }
  for (let i = 0; i < words.length; i++) {
    const word = words[i]
    if (word === "--json") options.json = true
    else if (word === "--skip-peers") options.skipPeers = true
    else if (word === "--spread") options.spread = true
    else if (word === "--quick") options.quick = true
    else if (word === "--histories") options.histories = words[++i]
    else if (word === "--only") options.only = (words[++i] ?? "").split(",")
    else if (/^--(seconds|seeds|rounds|mebibytes|groups)$/.test(word ?? "")) {
      const number = Number(words[++i])
      // Of several figures of one bench some may be left out.
      const least = what === "topology" ? 0 : 1
      if (!Number.isInteger(number) || number < least) {
        usageExit(`${word} needs a whole number from ${least}`)
      }
      options[word?.slice(2) as "seconds" | "seeds" | "rounds" | "mebibytes" | "groups"] = number
    } else usageExit(`unknown option ${word}`)
  }
  return options
}

const [what, ...rest] = process.argv.slice(2)
if (what === undefined) usageExit("Which bench?")
const options = parse(rest)
switch (what) {
  case "strong":
    process.exitCode = await benchStrong({
      json: options.json,
      withPeers: !options.skipPeers,
      spread: options.spread,
      putSeconds: options.seconds,
      getSeconds: Math.max(1, Math.round(options.seconds / 3)),
    })
    break
  case "eventual":
    process.exitCode = await benchEventual({
      json: options.json,
      withPeers: !options.skipPeers,
      putSeconds: options.seconds,
      getSeconds: Math.max(1, Math.round(options.seconds / 3)),
    })
    break
  case "sim":
    process.exitCode = await benchSim({ json: options.json, seeds: options.seeds })
    break
  case "engine":
    process.exitCode = await benchEngine({
      json: options.json,
      quick: options.quick,
      only: options.only,
      withPeers: !options.skipPeers,
    })
    break
  case "failover":
    process.exitCode = await benchFailover({
      json: options.json,
      rounds: options.rounds,
      histories: options.histories,
    })
    break
  case "topology":
    process.exitCode = await benchTopology({
      json: options.json,
      rounds: options.rounds,
      mebibytes: options.mebibytes,
    })
    break
  case "snapshot":
    process.exitCode = await benchSnapshot({ json: options.json, mebibytes: options.mebibytes })
    break
  case "idle-groups":
    process.exitCode = await benchIdleGroups({
      json: options.json,
      groups: options.groups,
      seconds: options.seconds,
    })
    break
  case "caches":
    process.exitCode = await benchCaches({ json: options.json, quick: options.quick })
    break
  default:
    usageExit(`unknown bench "${what}"`)
}
