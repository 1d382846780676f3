// The systems outside, played by files: a system is a file in SYSTEMS_DIR, a change is a line in it.
// Create `<system>.down` to make one of them fail, and remove it to bring it back.

import { randomUUID } from "node:crypto";
import { appendFileSync, existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";

const directory = process.env.SYSTEMS_DIR ?? "systems";

/** Tell a system something about somebody; returns a receipt. Throws if the system is down. */
export function write(system: string, who: string, what: string): string {
  if (existsSync(join(directory, `${system}.down`))) {
    throw new Error(`${system} is down`);
  }
  const receipt = randomUUID().slice(0, 8);
  mkdirSync(directory, { recursive: true });
  appendFileSync(join(directory, `${system}.log`), `${who} ${what} ${receipt}\n`);
  return receipt;
}
