#!/usr/bin/env bun
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Effect, Layer } from "effect"
import { run } from "./cli/Cli.ts"
import { layers, teardown } from "./cli/Output.ts"

/** The `kvorum` command: parse, build layers, run; nothing else. */
run(process.argv.slice(2)).pipe(
  Effect.provide(Layer.mergeAll(NodeServices.layer, layers.presenter, layers.config)),
  NodeRuntime.runMain({ disableErrorReporting: true, teardown }),
)
