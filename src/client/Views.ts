import { Effect } from "effect"
import { InvalidRequest, type KvorumError, OutcomeUnknown, QuorumUnavailable } from "../Errors.ts"
import type { NodeId, RangeId } from "../types.ts"
import type { NamespaceInfo, NodeStatus, RangeReport } from "../wire/answers.ts"
import { deadlineProblem, limits } from "../wire/limits.ts"
import type { RangeChange } from "../wire/native.ts"
import type { CallOptions, ClusterStatus, RangeChanged } from "./Api.ts"
import { type Caller, invalid } from "./Caller.ts"
import { changePlan } from "./changePlans.ts"
import type { NodeLink } from "./NodeLink.ts"
import { errorOf } from "./Refusals.ts"
import { mergeReports } from "./reports.ts"

/** The node answers by itself at the deadline; this is for an answer on its way. */
const answerSlackMs = 500

/** An order may have a range copied to another node. */
const orderDeadlineMs = 60_000

/** What concerns the cluster rather than its data: looking at it, and changing it. */
export class Views {
  private readonly caller: Caller

  constructor(caller: Caller) {
    this.caller = caller
  }

  private get directory() {
    return this.caller.core.directory
  }

  namespaces(): Effect.Effect<ReadonlyArray<NamespaceInfo>, KvorumError> {
    return Effect.map(this.caller.refreshed, () => this.directory.namespaces)
  }

  ranges(): Effect.Effect<ReadonlyArray<RangeReport>, KvorumError> {
    return Effect.andThen(
      this.caller.refreshed,
      Effect.callback<ReadonlyArray<RangeReport>>((resume) => {
        this.directory.askAll("AskRoutes", (answers) => {
          const reports = [...answers.values()].flatMap((answer) =>
            answer?._tag === "Routes" ? answer.routes.ranges : [],
          )
          resume(Effect.succeed(mergeReports(reports)))
        })
      }),
    )
  }

  status(): Effect.Effect<ClusterStatus, KvorumError> {
    return Effect.andThen(
      this.caller.refreshed,
      Effect.callback<ClusterStatus>((resume) => {
        this.directory.askAll("AskStatus", (answers) => {
          const nodes: Array<NodeStatus> = []
          const unreachable: Array<NodeId> = []
          for (const [node, answer] of answers) {
            if (answer?._tag === "Status") nodes.push(answer.status)
            else unreachable.push(node)
          }
          resume(Effect.succeed({ nodes, unreachable }))
        })
      }),
    )
  }

  /** Asks one node after another until one takes the order; from then on it is that node's answer or none. */
  admin(
    verb: string,
    args: unknown,
    options: (CallOptions & { readonly node?: NodeId }) | undefined,
  ): Effect.Effect<unknown, KvorumError> {
    const deadlineMs = options?.deadlineMs ?? orderDeadlineMs
    if (!(deadlineMs > 0 && deadlineMs <= limits.adminDeadlineMs)) {
      return invalid(
        `deadline of ${deadlineMs} ms: limit is above 0 and up to ${limits.adminDeadlineMs} ms`,
      )
    }
    const order = { verb, args, deadlineMs }
    return Effect.andThen(
      // Being carried out may take an order long; finding a node that takes it may not.
      this.caller.reached(Math.min(deadlineMs, this.caller.deadline(undefined))),
      Effect.callback<unknown, KvorumError>((resume) => {
        const { directory } = this
        const links =
          options?.node === undefined ? directory.links() : [directory.link(options.node)]
        this.order(links, order, resume)
      }),
    )
  }

  private order(
    links: ReadonlyArray<NodeLink | undefined>,
    order: { readonly verb: string; readonly args: unknown; readonly deadlineMs: number },
    resume: (result: Effect.Effect<unknown, KvorumError>) => void,
  ): void {
    const [link, ...others] = links
    if (link === undefined) {
      const detail = `no node took the order: ${this.directory.reachability()}`
      return resume(Effect.fail(new QuorumUnavailable({ detail })))
    }
    this.directory.askOnce(
      link,
      { _tag: "Admin", id: 0, ...order },
      order.deadlineMs + answerSlackMs,
      (answer) => {
        if (answer === "unsent") return this.order(others, order, resume)
        if (answer === undefined) {
          const detail = `${link.address} did not say what became of it within ${order.deadlineMs} ms; it may still be going on`
          return resume(Effect.fail(new OutcomeUnknown({ detail })))
        }
        if (answer._tag === "Admin") return resume(Effect.succeed(answer.result))
        if (answer._tag === "Refused") return resume(Effect.fail(errorOf(answer.refusal)))
        const detail = `the node answered ${order.verb} with ${answer._tag}, which is no answer to it`
        resume(Effect.fail(new InvalidRequest({ detail })))
      },
    )
  }

  changeRange(
    range: RangeId,
    change: RangeChange,
    options: CallOptions | undefined,
  ): Effect.Effect<RangeChanged, KvorumError> {
    const deadlineMs = this.caller.deadline(options)
    const problem = deadlineProblem(deadlineMs)
    if (problem !== undefined) return invalid(problem)
    const { table } = this.directory
    const known =
      table.byId(range) === undefined
        ? Effect.andThen(this.caller.reached(deadlineMs), this.caller.refreshedFromAll)
        : Effect.void
    return Effect.andThen(
      known,
      Effect.suspend(() => {
        const route = table.byId(range)
        if (route === undefined) return invalid(`no node knows of a range ${range}`)
        const plan = changePlan({ range, change, position: route.descriptor.start })
        return this.caller.call(plan, deadlineMs, ({ descriptor, receipt }) => {
          table.learn(descriptor)
          return { descriptor, receipt }
        })
      }),
    )
  }
}
