// A virtual object: one greeter per name, which remembers how often it greeted.

import * as restate from "@restatedev/restate-sdk";

export const greeter = restate.object({
  name: "Greeter",
  handlers: {
    // One call per key at a time: nothing is read that another call is about to change.
    greet: async (ctx: restate.ObjectContext, greeting: string): Promise<string> => {
      const count = ((await ctx.get<number>("count")) ?? 0) + 1;
      ctx.set("count", count);
      return `${greeting}, ${ctx.key}! That makes ${count}.`;
    },

    // Shared handlers only read, and run beside anything else.
    count: restate.handlers.object.shared(
      async (ctx: restate.ObjectSharedContext): Promise<number> => (await ctx.get<number>("count")) ?? 0,
    ),
  },
});
