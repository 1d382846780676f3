// Two samples in one program: a greeter that counts, and an update of several systems that never repeats a done part.
//
//   npm install && npm start        (Node 22.18 or newer runs TypeScript as it is)

import * as restate from "@restatedev/restate-sdk";

import { greeter } from "./greeter.ts";
import { profileUpdater } from "./profile_updater.ts";

restate.serve({
  services: [greeter, profileUpdater],
  port: Number(process.env.PORT ?? 9080),
});
