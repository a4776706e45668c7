import packageJson from "../../package.json" with { type: "json" }
import { add } from "./Add.ts"
import { batch } from "./Batch.ts"
import { bench } from "./Bench.ts"
import { cas } from "./Cas.ts"
import { count } from "./Count.ts"
import { del } from "./Delete.ts"
import { doctor } from "./Doctor.ts"
import { Command } from "./EffectCli.ts"
import { get } from "./Get.ts"
import { namespace } from "./Namespace.ts"
import { node } from "./Node.ts"
import { put } from "./Put.ts"
import { range } from "./Range.ts"
import { ranges } from "./Ranges.ts"
import { rebalance } from "./Rebalance.ts"
import { recoverCommand } from "./Recover.ts"
import { remove } from "./Remove.ts"
import { ring } from "./Ring.ts"
import { scan } from "./Scan.ts"
import { serve } from "./Serve.ts"
import { start } from "./Start.ts"
import { status } from "./Status.ts"

/**
 * The `kvorum` command: a file per command, and here what they have in common.
 *
 * 1. `main.ts` hands the words of the command line to `run`; Effect's command-line modules, which only EffectCli.ts imports, parse them and print
 *    help. A wrong invocation ends with exit code 2 and one line per mistake on stderr.
 * 2. `start` is a supervisor (Supervisor.ts): it checks everything that could be in the way before it changes anything (StartChecks.ts), runs one
 *    `serve` process per node, and says when every range has a leader.
 * 3. `serve` is one node: src/Node.ts as a layer, until a signal, the end of stdin (if asked) or a failure.
 * 4. `doctor` looks at the files of a node that is stopped (src/doctor), and `recover` changes those of survivors (server/quorumLoss.ts), without a cluster.
 * 5. The others are clients. Cluster.ts finds the cluster (addresses.ts) and turns the client's typed errors into exit codes; each command file reads its
 *    arguments as bytes (Input.ts, textBytes.ts), makes one call, and prints.
 * 6. Of these, `namespace`, `range` and `node` give orders to the cluster (Orders.ts): the node that takes one carries it out (src/admin), and the command
 *    waits for it.
 *
 * Rules that scripts may rely on, held by test/cli and test/processes:
 * - Data goes to stdout, everything else to stderr. With `--json`, stdout ends in exactly one line, for a refusal too.
 * - Exit codes (Output.ts): 0 done, 1 refused, 2 usage, 3 outcome unknown, 4 key absent or condition false.
 * - A session's token goes in by `--session`, and the next one comes out on stderr, or in the line of `--json` (Sessions.ts).
 * - Keys and values are bytes, from argument to output: text by default, `--hex`, and stdin for `-`.
 * - Node ids read n1, n2, ... wherever people see them.
 *
 * Left out: a shell of its own, and commands for what the cluster cannot do yet.
 */
export const command = Command.make("kvorum").pipe(
  Command.withDescription(
    "A distributed key-value store: strong namespaces on Raft, eventual ones without leaders, one LSM engine.",
  ),
  Command.withSubcommands([
    start,
    serve,
    put,
    get,
    del,
    cas,
    add,
    remove,
    scan,
    count,
    batch,
    status,
    node,
    namespace,
    ranges,
    range,
    ring,
    rebalance,
    bench,
    doctor,
    recoverCommand,
  ]),
)

export const run = Command.runWith(command, { version: packageJson.version })
