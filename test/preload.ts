import { setDefaultTimeout } from "bun:test"

/** Suites share two noisy cores: a test that is slow there has not failed. */
setDefaultTimeout(60_000)
