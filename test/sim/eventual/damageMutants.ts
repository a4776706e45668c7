import { Owner } from "../../../src/dynamo/node/owner.ts"
import { type Mutant, withMethod } from "../mutants/mutant.ts"

/** Bugs that only worlds with damage can show; others of the kind are looked for in test/server/eventualDamage.test.ts. */
export const damageMutants: ReadonlyArray<Mutant> = [
  {
    name: "clock",
    title: "a slot that has lost data goes on with its clock, in its epoch",
    plant: withMethod<Owner, Parameters<Owner["beginAgain"]>, void>(
      Owner,
      "beginAgain",
      (beginAgain) =>
        function (_, nextEpoch) {
          beginAgain.call(this, new Set(), nextEpoch)
        },
    ),
  },
  {
    name: "epoch",
    title: "a slot begins again in an epoch that was used",
    plant: withMethod<Owner, Parameters<Owner["beginAgain"]>, void>(
      Owner,
      "beginAgain",
      (beginAgain) =>
        function (lost) {
          beginAgain.call(this, lost, () => 1)
        },
    ),
  },
]
