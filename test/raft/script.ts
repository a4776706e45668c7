import { assert } from "../../src/lib/assert.ts"
import { utf8 } from "../../src/lib/bytes.ts"
import {
  describeEntries,
  describeMessage,
  describeProgress,
  describeState,
} from "../../src/raft/describe.ts"
import { entryKinds } from "../../src/raft/message.ts"
import { type RaftSettings, TestCluster } from "./cluster.ts"

/**
 * Golden scripts: a comment that tells the story, commands, `---`, and the whole trace that the
 * commands must leave. Each command is repeated in the trace behind `>`. `(a; b)` runs silently,
 * `!a` must fail.
 *
 *     cluster nodes=3 leader=1 prevote=false checkquorum=false silence=0 election=10-20
 *             inflight=256 append=BYTES committed=BYTES uncommitted=BYTES seed=1
 *     campaign N           tick N [COUNT]       run COUNT            pass MILLISECONDS
 *     put N TEXT           read N CONTEXT       stabilize            settle N
 *     deliver [FROM TO]    drop [FROM TO]       duplicate FROM TO    later FROM TO
 *     partition N...       cut FROM TO          heal                 network
 *     crash N              restart N            hold N               persist N [COUNT]    release N
 *     compact N INDEX      snapshot N M         sent N M installed|failed INDEX
 *     append FROM TO TERM AFTER COMMIT ENTRY...        (AFTER: 1@1, ENTRY: 2@1=text)
 *     unreachable N M      state [N]            progress N           log N
 *
 * `deliver` and `drop` take the oldest message, or the oldest from one replica to another; `later`
 * moves that one behind all others; with `all` in place of FROM every message goes.
 */
export function runScript(commands: ReadonlyArray<string>): ReadonlyArray<string> {
  const lines: Array<string> = []
  const runner = new ScriptRunner(lines)
  for (const command of commands) {
    if (command.startsWith("(") && command.endsWith(")")) {
      const marker = lines.length
      for (const inner of command.slice(1, -1).split(";")) runner.run(inner.trim())
      lines.length = marker
    } else if (command.startsWith("!")) {
      lines.push(`> ${command}`)
      runner.runFailing(command.slice(1).trim())
    } else {
      lines.push(`> ${command}`)
      runner.run(command)
    }
  }
  return lines
}

class ScriptRunner {
  private readonly lines: Array<string>
  private current: TestCluster | undefined

  constructor(lines: Array<string>) {
    this.lines = lines
  }

  private get cluster(): TestCluster {
    assert(this.current !== undefined, "a script begins with `cluster`")
    return this.current
  }

  runFailing(command: string): void {
    let message: string
    try {
      this.run(command)
    } catch (error) {
      message = error instanceof Error ? error.message : String(error)
      this.lines.push(`failed: ${message}`)
      return
    }
    throw new Error(`\`${command}\` was to fail`)
  }

  run(command: string): void {
    const [verb = "", ...args] = command.split(/\s+/)
    const action = this.actions[verb]
    if (action === undefined) throw new Error(`no command \`${command}\``)
    action(args)
    this.current?.traceTo(this.lines)
  }

  private readonly actions: Record<string, (args: ReadonlyArray<string>) => void> = {
    cluster: (args) => this.makeCluster(args),
    campaign: ([id]) => this.cluster.campaign(Number(id)),
    tick: ([id, count = "1"]) => {
      for (let i = 0; i < Number(count); i++) this.cluster.tick(Number(id))
    },
    run: ([count]) => this.cluster.run(Number(count)),
    pass: ([milliseconds]) => this.cluster.pass(Number(milliseconds)),
    put: ([id, ...text]) => {
      const result = this.cluster.node(Number(id)).propose(utf8(text.join(" ")))
      if (typeof result !== "number") throw new Error(`refused: ${result ?? "not the leader"}`)
      this.lines.push(`n${id} proposed at ${result}`)
      this.cluster.replica(Number(id)).settle()
    },
    read: ([id, context]) => {
      if (!this.cluster.read(Number(id), Number(context))) throw new Error("not the leader")
    },
    stabilize: () => this.cluster.stabilize(),
    settle: ([id]) => this.cluster.replica(Number(id)).settle(),
    deliver: (args) => this.eachMessage(args, (position) => this.cluster.deliver(position)),
    drop: (args) =>
      this.eachMessage(args, (position) => {
        this.lines.push(`dropped: ${describeMessage(this.cluster.network[position]!)}`)
        this.cluster.network.splice(position, 1)
      }),
    duplicate: (args) => this.cluster.network.push(this.cluster.network[this.find(args)]!),
    later: (args) => {
      this.cluster.network.push(...this.cluster.network.splice(this.find(args), 1))
    },
    network: () => {
      for (const message of this.cluster.network) {
        this.lines.push(`under way: ${describeMessage(message)}`)
      }
    },
    partition: (ids) => this.partition(ids.map(Number)),
    cut: ([from, to]) => this.cluster.cut.add(`${from}>${to}`),
    heal: () => this.cluster.heal(),
    crash: ([id]) => this.cluster.replica(Number(id)).crash(),
    restart: ([id]) => {
      this.cluster.replica(Number(id)).restart()
      this.cluster.replica(Number(id)).settle()
      this.state([id as string])
    },
    hold: ([id]) => {
      this.cluster.replica(Number(id)).holdsWrites = true
    },
    persist: ([id, count = "1"]) => this.persist(Number(id), Number(count)),
    release: ([id]) => {
      this.cluster.replica(Number(id)).holdsWrites = false
      this.persist(Number(id), this.cluster.replica(Number(id)).pendingWrites)
    },
    compact: ([id, index]) => {
      const replica = this.cluster.replica(Number(id))
      assert(Number(index) <= replica.applied.length, "only applied entries are released")
      replica.durableLog.release(Number(index))
      replica.visibleLog.release(Number(index))
    },
    append: (args) => this.injectAppend(args),
    snapshot: ([source, target]) => this.cluster.sendSnapshot(Number(source), Number(target)),
    sent: ([id, target, outcome, index]) => {
      assert(outcome === "installed" || outcome === "failed", "installed or failed")
      this.cluster.node(Number(id)).snapshotSent(Number(target), outcome, Number(index))
      this.cluster.replica(Number(id)).settle()
    },
    unreachable: ([id, target]) => this.cluster.node(Number(id)).reportUnreachable(Number(target)),
    state: (ids) => this.state(ids),
    progress: ([id]) => {
      for (const line of this.cluster.node(Number(id)).progress().map(describeProgress)) {
        this.lines.push(line)
      }
    },
    log: ([id]) => {
      const { durableLog } = this.cluster.replica(Number(id))
      this.lines.push(`n${id} has ${describeEntries(durableLog.all)}`)
    },
  }

  private persist(id: number, count: number): void {
    const replica = this.cluster.replica(id)
    for (let i = 0; i < count; i++) {
      assert(replica.persist(), `nothing to persist at ${id}`)
      this.lines.push(`n${id} is durable to ${replica.node.durableIndex}`)
      replica.settle()
    }
  }

  private state(ids: ReadonlyArray<string>): void {
    for (const replica of this.cluster.replicas) {
      if (ids.length > 0 && !ids.includes(String(replica.id))) continue
      this.lines.push(replica.up ? describeState(replica.node) : `n${replica.id} is down`)
    }
  }

  /** Cuts the replicas named off from all others; among themselves they stay connected. */
  private partition(ids: ReadonlyArray<number>): void {
    for (const from of this.cluster.voters) {
      for (const to of this.cluster.voters) {
        if (ids.includes(from) !== ids.includes(to)) this.cluster.cut.add(`${from}>${to}`)
      }
    }
  }

  private injectAppend([from, to, term, after = "", commit, ...entries]: ReadonlyArray<string>) {
    const position = (text: string) => {
      const [index, itsTerm] = text.split("@").map(Number) as [number, number]
      return { index, term: itsTerm }
    }
    this.cluster.send({
      _tag: "AppendRequest",
      from: Number(from),
      to: Number(to),
      term: Number(term),
      previousIndex: position(after).index,
      previousTerm: position(after).term,
      commit: Number(commit),
      entries: entries.map((entry) => {
        const [at = "", text = ""] = entry.split("=")
        return { ...position(at), kind: entryKinds.commands, data: utf8(text) }
      }),
    })
  }

  private find([from, to]: ReadonlyArray<string>): number {
    const position = this.cluster.network.findIndex(
      (message) =>
        from === undefined || (message.from === Number(from) && message.to === Number(to)),
    )
    if (position < 0) throw new Error(`no message from ${from} to ${to}`)
    return position
  }

  private eachMessage(args: ReadonlyArray<string>, action: (position: number) => void): void {
    if (args[0] !== "all") {
      action(this.find(args))
      return
    }
    for (let count = this.cluster.network.length; count > 0; count--) action(0)
  }

  private makeCluster(args: ReadonlyArray<string>): void {
    const given = new Map(args.map((arg) => arg.split("=") as [string, string]))
    const number = (name: string, otherwise: number) => Number(given.get(name) ?? otherwise)
    const [electionTicksMin, electionTicksMax] = (given.get("election") ?? "10-20")
      .split("-")
      .map(Number) as [number, number]
    const settings: Partial<RaftSettings> = {
      electionTicksMin,
      electionTicksMax,
      heartbeatTicks: number("heartbeat", 2),
      voteSilenceMs: number("silence", 300),
      preVote: given.get("prevote") !== "false",
      checkQuorum: given.get("checkquorum") !== "false",
      maxInflightAppends: number("inflight", 256),
      maxAppendBytes: number("append", 2 ** 20),
      maxCommittedBytes: number("committed", 2 ** 20),
      maxUncommittedBytes: number("uncommitted", 16 * 2 ** 20),
    }
    this.current = new TestCluster({ nodes: number("nodes", 3), seed: number("seed", 1), settings })
    if (given.has("leader")) this.current.elect(number("leader", 1))
  }
}
