// Three samples in one program: a greeter that counts, an update that never repeats a done part, and a payment.
//
//   npm install && npm start        (Node 22.18 or newer runs TypeScript as it is)

import * as restate from "@restatedev/restate-sdk";

import { greeter } from "./greeter.ts";
import { payment } from "./payment.ts";
import { profileUpdater } from "./profile_updater.ts";

restate.serve({
  services: [greeter, profileUpdater, payment],
  port: Number(process.env.PORT ?? 9080),
});
