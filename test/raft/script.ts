import { assert } from "../../src/lib/assert.ts"
import { utf8 } from "../../src/lib/bytes.ts"
import {
  describeEntries,
  describeMembership,
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
 *     cluster nodes=3 voters=NODES leader=1 prevote=false checkquorum=false silence=0 election=10-20
 *             lease=0 slip=20 inflight=256 append=BYTES committed=BYTES uncommitted=BYTES seed=1
 *     campaign N           tick N [COUNT]       run COUNT            pass MILLISECONDS
 *     put N TEXT           read N CONTEXT       stabilize            settle N
 *     deliver [FROM TO]    drop [FROM TO]       duplicate FROM TO    later FROM TO
 *     partition N...       cut FROM TO          heal                 network
 *     crash N              restart N            hold N               persist N [COUNT]    release N
 *     compact N INDEX      snapshot N M         sent N M installed|failed INDEX
 *     append FROM TO TERM AFTER COMMIT ENTRY...        (AFTER: 1@1, ENTRY: 2@1=text)
 *     unreachable N M      state [N]            progress N           log N
 *     change N VOTERS [LEARNERS]      (1,2,4)   members [N]          transfer N M
 *     stay N (does not leave joint by itself)   leave N              broadcast N
 *     lease N              wall N MILLISECONDS (its wall clock jumps)
 *     timeoutnow FROM TO TERM
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

function replicas(list: string): ReadonlyArray<number> {
  return list === "" ? [] : list.split(",").map(Number)
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
      if (!this.cluster.read(Number(id), Number(context))) throw new Error("no leader is known")
    },
    change: ([id, voters = "", learners = ""]) => {
      const result = this.cluster.change(Number(id), replicas(voters), replicas(learners))
      if (typeof result !== "number") throw new Error(`refused: ${result ?? "not the leader"}`)
    },
    leave: ([id]) => {
      const result = this.cluster.replica(Number(id)).leaveJoint()
      if (typeof result !== "number") throw new Error(`refused: ${result ?? "not the leader"}`)
      this.cluster.replica(Number(id)).settle()
    },
    stay: ([id]) => {
      this.cluster.replica(Number(id)).leavesJoint = false
    },
    members: (ids) => this.members(ids),
    transfer: ([id, to]) => {
      if (!this.cluster.transfer(Number(id), Number(to))) throw new Error("refused")
    },
    broadcast: ([id]) => {
      this.cluster.node(Number(id)).broadcastCommit()
      this.cluster.replica(Number(id)).settle()
    },
    timeoutnow: ([from, to, term]) => {
      const route = { from: Number(from), to: Number(to), term: Number(term) }
      this.cluster.send({ _tag: "TimeoutNow", ...route })
    },
    lease: ([id]) => {
      const { holdsLease } = this.cluster.replica(Number(id))
      this.lines.push(`n${id} ${holdsLease ? "has the lease" : "has no lease"}`)
    },
    wall: ([id, milliseconds]) => {
      this.cluster.replica(Number(id)).wallAheadMs += Number(milliseconds)
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

  private members(ids: ReadonlyArray<string>): void {
    for (const { id, node, up } of this.cluster.replicas) {
      if (!up || (ids.length > 0 && !ids.includes(String(id)))) continue
      const inForce = describeMembership(node.membership)
      const committed = describeMembership(node.committedMembership)
      const before = inForce === committed ? "" : `, committed ${committed}`
      this.lines.push(`n${id} knows ${inForce === "" ? "no members" : inForce}${before}`)
    }
  }

  /** Cuts the replicas named off from all others; among themselves they stay connected. */
  private partition(ids: ReadonlyArray<number>): void {
    for (const from of this.cluster.ids) {
      for (const to of this.cluster.ids) {
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
      leaseMs: number("lease", 0),
      clockSlipMs: number("slip", 20),
      preVote: given.get("prevote") !== "false",
      checkQuorum: given.get("checkquorum") !== "false",
      maxInflightAppends: number("inflight", 256),
      maxAppendBytes: number("append", 2 ** 20),
      maxCommittedBytes: number("committed", 2 ** 20),
      maxUncommittedBytes: number("uncommitted", 16 * 2 ** 20),
    }
    const nodes = number("nodes", 3)
    const voters = number("voters", nodes)
    this.current = new TestCluster({ nodes, voters, seed: number("seed", 1), settings })
    if (given.has("leader")) this.current.elect(number("leader", 1))
  }
}
