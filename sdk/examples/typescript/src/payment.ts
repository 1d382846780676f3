// A workflow: a payment that charges once, and then waits for the word of the bank, however long that takes.
//
// A workflow runs once per key. While `run` waits, nothing of it need be in memory anywhere; the other handlers see its
// state and complete its promises.

import * as restate from "@restatedev/restate-sdk";

import * as systems from "./systems.ts";

type Order = { account: string; amount: number };
type Result = { outcome: string; receipt: string };

// A bank that cannot be reached is asked again for an hour; then the payment fails.
const patiently = {
  initialRetryInterval: { milliseconds: 100 },
  retryIntervalFactor: 2,
  maxRetryInterval: { seconds: 10 },
  maxRetryDuration: { hours: 1 },
};

export const payment = restate.workflow({
  name: "Payment",
  handlers: {
    // The whole payment, from the order to the message to the customer.
    run: async (ctx: restate.WorkflowContext, order: Order): Promise<Result> => {
      if (order.amount <= 0) {
        throw new restate.TerminalError(`not an amount: ${order.amount}`, { errorCode: 400 });
      }

      // The key goes along: a bank recognises by it a charge that is repeated because its answer was lost.
      ctx.set("status", "charging");
      const receipt = await ctx.run("charge", () => systems.write("bank", ctx.key, `${order.amount}`), patiently);

      ctx.set("status", "waiting for the bank");
      const outcome = await ctx.promise<string>("outcome");

      await ctx.run("notify", () => systems.write("mail", order.account, `${ctx.key}:${outcome}`));
      ctx.set("status", outcome);
      return { outcome, receipt };
    },

    // The bank calls this, minutes or days later. A second call is refused: a promise has one completion.
    webhook: async (ctx: restate.WorkflowSharedContext, outcome: string): Promise<void> => {
      await ctx.promise<string>("outcome").resolve(outcome);
    },

    status: async (ctx: restate.WorkflowSharedContext): Promise<string> =>
      (await ctx.get<string>("status")) ?? "unknown",
  },
});
