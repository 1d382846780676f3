package contract;

import dev.restate.sdk.Awakeable;
import dev.restate.sdk.ObjectContext;
import dev.restate.sdk.SharedObjectContext;
import dev.restate.sdk.annotation.Handler;
import dev.restate.sdk.annotation.Name;
import dev.restate.sdk.annotation.Shared;
import dev.restate.sdk.annotation.VirtualObject;
import dev.restate.sdk.common.StateKey;
import dev.restate.sdk.common.TerminalException;

/** An awakeable that somebody else completes. */
@VirtualObject
public class Mailbox {
  private static final StateKey<String> ADDRESS = StateKey.of("address", String.class);

  @Handler
  @Name("wait")
  public String waitForLetter(ObjectContext ctx) {
    Awakeable<String> letter = ctx.awakeable(String.class);
    ctx.set(ADDRESS, letter.id());
    try {
      return letter.await();
    } catch (TerminalException e) {
      return "rejected: " + e.getMessage();
    }
  }

  @Shared
  public String address(SharedObjectContext ctx) {
    return ctx.get(ADDRESS).orElse(null);
  }
}
