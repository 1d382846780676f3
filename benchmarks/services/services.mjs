// The workloads on the official TypeScript SDK: no step, one object's state, three recorded steps; and a long sleep.
// PORT is where to listen, NODE_MODULES_DIR where @restatedev/restate-sdk is installed.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(pathToFileURL(process.env.NODE_MODULES_DIR + "/"));
const restate = require("@restatedev/restate-sdk");

const greeter = restate.service({
  name: "Greeter",
  handlers: { greet: async (ctx, name) => `Hello ${name}` },
});

const counter = restate.object({
  name: "Counter",
  handlers: {
    add: async (ctx, amount) => {
      const count = ((await ctx.get("count")) ?? 0) + amount;
      ctx.set("count", count);
      return count;
    },
  },
});

const steps = restate.service({
  name: "Steps",
  handlers: {
    three: async (ctx, name) => {
      for (let number = 0; number < 3; number++) {
        const before = name;
        name = await ctx.run(`step ${number}`, () => before + ".");
      }
      return name;
    },
  },
});

// Suspended as soon as it waits: a hundred thousand of them shall not take turns in a thousand slots.
const sleeper = restate.service({
  name: "Sleeper",
  handlers: { sleep: async (ctx, seconds) => ctx.sleep({ seconds }) },
  options: { inactivityTimeout: 0 },
});

restate.serve({ services: [greeter, counter, steps, sleeper], port: Number(process.env.PORT) });
