// The contract of ../README.md on the official TypeScript SDK. Node 22.18 or newer runs it as it is.

import { createServer } from "node:http2";

import * as restate from "@restatedev/restate-sdk";
import { RestatePromise, TerminalError } from "@restatedev/restate-sdk";

type Letter = { id: string; text: string };

const attempts = new Map<string, number>();

/** How often it was tried, this time included. */
function attempt(name: string): number {
  const count = (attempts.get(name) ?? 0) + 1;
  attempts.set(name, count);
  return count;
}

const basics = restate.service({
  name: "Basics",
  handlers: {
    greet: async (_ctx: restate.Context, name: string): Promise<string> => `Hello, ${name}!`,

    header: async (ctx: restate.Context): Promise<string | null> => ctx.request().headers.get("x-color") ?? null,

    fail: async (_ctx: restate.Context, message: string): Promise<string> => {
      throw new TerminalError(message, { errorCode: 418, metadata: { pot: "small" } });
    },

    // What this attempt drew, and what the first one drew.
    chance: async (ctx: restate.Context): Promise<string[]> => {
      const drawn = `${ctx.rand.uuidv4()} ${ctx.rand.random()}`;
      const recorded = await ctx.run("draw", () => drawn);
      await ctx.sleep(1);
      return [drawn, recorded];
    },

    nap: async (ctx: restate.Context, millis: number): Promise<string> => {
      await ctx.sleep(millis);
      return "rested";
    },
  },
});

const runs = restate.service({
  name: "Runs",
  handlers: {
    value: async (ctx: restate.Context, number: number): Promise<number> => ctx.run("double", () => number * 2),

    refused: async (ctx: restate.Context): Promise<string> =>
      ctx.run("refuse", (): string => {
        throw new TerminalError("not today", { errorCode: 422 });
      }),

    // Works the third time; how often it was tried.
    retried: async (ctx: restate.Context, name: string): Promise<number> =>
      ctx.run(
        "flaky",
        () => {
          const count = attempt(name);
          if (count < 3) throw new Error("not yet");
          return count;
        },
        { initialRetryInterval: 10 },
      ),

    // Never works; what is said after two attempts.
    exhausted: async (ctx: restate.Context, name: string): Promise<string> => {
      try {
        return await ctx.run(
          "broken",
          (): string => {
            attempt(name);
            throw new Error("broken");
          },
          { maxRetryAttempts: 2, initialRetryInterval: 10 },
        );
      } catch (error) {
        if (!(error instanceof TerminalError)) throw error;
        return `gave up after ${attempts.get(name)}`;
      }
    },
  },
});

const counterHandlers = {
  add: async (ctx: restate.ObjectContext, amount: number): Promise<number> => {
    const count = ((await ctx.get<number>("count")) ?? 0) + amount;
    ctx.set("count", count);
    return count;
  },

  get: restate.handlers.object.shared(
    async (ctx: restate.ObjectSharedContext): Promise<number> => (await ctx.get<number>("count")) ?? 0,
  ),

  keys: restate.handlers.object.shared(
    async (ctx: restate.ObjectSharedContext): Promise<string[]> => (await ctx.stateKeys()).sort(),
  ),

  note: async (ctx: restate.ObjectContext, text: string): Promise<void> => ctx.set("note", text),

  clear: async (ctx: restate.ObjectContext): Promise<void> => ctx.clear("count"),

  clearAll: async (ctx: restate.ObjectContext): Promise<void> => ctx.clearAll(),

  // Fails after its change: a failed handler is not a transaction that is rolled back.
  spoil: async (ctx: restate.ObjectContext, count: number): Promise<void> => {
    ctx.set("count", count);
    throw new TerminalError("spoilt", { errorCode: 400 });
  },
};

const counter = restate.object({ name: "Counter", handlers: counterHandlers });
const lazyCounter = restate.object({
  name: "LazyCounter",
  handlers: counterHandlers,
  options: { enableLazyState: true },
});

const calls = restate.service({
  name: "Calls",
  handlers: {
    call: async (ctx: restate.Context, name: string): Promise<string> => ctx.serviceClient(basics).greet(name),

    failing: async (ctx: restate.Context, message: string): Promise<object> => {
      try {
        await ctx.serviceClient(basics).fail(message);
      } catch (error) {
        if (!(error instanceof TerminalError)) throw error;
        return { code: error.code, message: error.message, metadata: error.metadata };
      }
      throw new TerminalError("the call did not fail");
    },

    header: async (ctx: restate.Context, color: string): Promise<string | null> =>
      ctx.serviceClient(basics).header(restate.rpc.opts({ headers: { "x-color": color } })),

    send: async (ctx: restate.Context, key: string): Promise<string> =>
      ctx.objectSendClient(counter, key).add(1).invocationId,

    // Twice with one idempotency key: one invocation.
    sendLater: async (ctx: restate.Context, key: string): Promise<string[]> => {
      const later = restate.rpc.sendOpts({ delay: 50, idempotencyKey: "once" });
      const handles = [1, 2].map(() => ctx.objectSendClient(counter, key).add(1, later));
      return [await handles[0].invocationId, await handles[1].invocationId];
    },

    identified: async (ctx: restate.Context, name: string): Promise<string[]> => {
      const promise = ctx.serviceClient(basics).greet(name, restate.rpc.opts({ idempotencyKey: name }));
      return [await promise.invocationId, await promise];
    },

    attach: async (ctx: restate.Context, invocation: string): Promise<string> =>
      ctx.attach<string>(restate.InvocationIdParser.fromString(invocation)),

    cancel: async (ctx: restate.Context, invocation: string): Promise<void> =>
      ctx.cancel(restate.InvocationIdParser.fromString(invocation)),
  },
});

const mailbox = restate.object({
  name: "Mailbox",
  handlers: {
    wait: async (ctx: restate.ObjectContext): Promise<string> => {
      const letter = ctx.awakeable<string>();
      ctx.set("address", letter.id);
      try {
        return await letter.promise;
      } catch (error) {
        if (!(error instanceof TerminalError)) throw error;
        return `rejected: ${error.message}`;
      }
    },

    address: restate.handlers.object.shared(
      async (ctx: restate.ObjectSharedContext): Promise<string | null> => ctx.get<string>("address"),
    ),
  },
});

const waits = restate.service({
  name: "Waits",
  handlers: {
    resolve: async (ctx: restate.Context, letter: Letter): Promise<void> =>
      ctx.resolveAwakeable(letter.id, letter.text),

    reject: async (ctx: restate.Context, letter: Letter): Promise<void> => ctx.rejectAwakeable(letter.id, letter.text),

    signal: async (ctx: restate.Context): Promise<string> => {
      try {
        return await ctx.signal<string>("go");
      } catch (error) {
        if (!(error instanceof TerminalError)) throw error;
        return `rejected: ${error.message}`;
      }
    },

    sendSignal: async (ctx: restate.Context, letter: Letter): Promise<void> =>
      ctx.invocation(restate.InvocationIdParser.fromString(letter.id)).signal<string>("go").resolve(letter.text),

    rejectSignal: async (ctx: restate.Context, letter: Letter): Promise<void> =>
      ctx.invocation(restate.InvocationIdParser.fromString(letter.id)).signal<string>("go").reject(letter.text),

    // Counts its cancellation, as a compensation would be done.
    forever: async (ctx: restate.Context, key: string): Promise<string> => {
      try {
        return await ctx.awakeable<string>().promise;
      } catch (error) {
        if (error instanceof TerminalError) ctx.objectSendClient(counter, key).add(1);
        throw error;
      }
    },

    parent: async (ctx: restate.Context, key: string): Promise<string> =>
      ctx.genericCall<string, string>({
        service: "Waits",
        method: "forever",
        parameter: key,
        inputSerde: restate.serde.json,
        outputSerde: restate.serde.json,
      }),
  },
});

const combine = restate.service({
  name: "Combine",
  handlers: {
    all: async (ctx: restate.Context, names: string[]): Promise<string[]> =>
      RestatePromise.all(names.map((name) => ctx.serviceClient(basics).greet(name))),

    race: async (ctx: restate.Context, name: string): Promise<string> =>
      RestatePromise.race([
        ctx.sleep({ hours: 1 }).map(() => "overslept"),
        ctx.serviceClient(basics).greet(name),
      ]),

    timeout: async (ctx: restate.Context): Promise<string> => {
      try {
        await ctx.awakeable<string>().promise.orTimeout(10);
        return "a letter";
      } catch (error) {
        if (error instanceof restate.TimeoutError) return "timed out";
        throw error;
      }
    },

    // The first that succeeds.
    any: async (ctx: restate.Context, name: string): Promise<string> =>
      RestatePromise.any([ctx.serviceClient(basics).fail(name), ctx.serviceClient(basics).greet(name)]),
  },
});

const flow = restate.workflow({
  name: "Flow",
  handlers: {
    run: async (ctx: restate.WorkflowContext, item: string): Promise<string> => {
      ctx.set("status", "waiting");
      let approval: string;
      try {
        approval = await ctx.promise<string>("approval");
      } catch (error) {
        if (!(error instanceof TerminalError)) throw error;
        approval = `refused, ${error.message}`;
      }
      ctx.set("status", "done");
      return `${item}: ${approval}`;
    },

    status: async (ctx: restate.WorkflowSharedContext): Promise<string | null> => ctx.get<string>("status"),

    approve: async (ctx: restate.WorkflowSharedContext, text: string): Promise<void> =>
      ctx.promise<string>("approval").resolve(text),

    refuse: async (ctx: restate.WorkflowSharedContext, reason: string): Promise<void> =>
      ctx.promise<string>("approval").reject(reason),

    peek: async (ctx: restate.WorkflowSharedContext): Promise<string | null> =>
      (await ctx.promise<string>("approval").peek()) ?? null,

    wait: async (ctx: restate.WorkflowSharedContext): Promise<string> => ctx.promise<string>("approval"),
  },
});

const services = [basics, runs, counter, lazyCounter, calls, mailbox, waits, combine, flow];
createServer(restate.createEndpointHandler({ services })).listen(Number(process.env.PORT), "127.0.0.1");
