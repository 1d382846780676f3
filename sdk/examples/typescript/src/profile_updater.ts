// A service that changes several systems, one after the other.
//
// Each change is a `ctx.run`: once it has succeeded its result is recorded, and when a later one fails, or this
// program or the server dies, the handler goes on after the last one recorded instead of starting over.

import * as restate from "@restatedev/restate-sdk";

import * as systems from "./systems.ts";

type Profile = { user: string; email: string };

export const profileUpdater = restate.service({
  name: "ProfileUpdater",
  handlers: {
    update: async (ctx: restate.Context, profile: Profile): Promise<Record<string, string>> => {
      if (!profile.email.includes("@")) {
        // A TerminalError is an answer: it goes to the caller and is not retried.
        throw new restate.TerminalError(`not an e-mail address: ${profile.email}`, { errorCode: 400 });
      }

      // Any other error is retried. If billing is down, the CRM is not written a second time.
      const receipts: Record<string, string> = {};
      for (const system of ["crm", "billing", "newsletter"]) {
        receipts[system] = await ctx.run(`update ${system}`, () =>
          systems.write(system, profile.user, profile.email),
        );
      }
      return receipts;
    },
  },
});
