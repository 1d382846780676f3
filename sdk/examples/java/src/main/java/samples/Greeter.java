package samples;

import dev.restate.sdk.ObjectContext;
import dev.restate.sdk.SharedObjectContext;
import dev.restate.sdk.annotation.Handler;
import dev.restate.sdk.annotation.Shared;
import dev.restate.sdk.annotation.VirtualObject;
import dev.restate.sdk.common.StateKey;

/** A virtual object: one greeter per name, which remembers how often it greeted. */
@VirtualObject
public class Greeter {
  private static final StateKey<Integer> COUNT = StateKey.of("count", Integer.class);

  /** One call per key at a time: nothing is read that another call is about to change. */
  @Handler
  public String greet(ObjectContext ctx, String greeting) {
    int count = ctx.get(COUNT).orElse(0) + 1;
    ctx.set(COUNT, count);
    return "%s, %s! That makes %d.".formatted(greeting, ctx.key(), count);
  }

  /** Shared handlers only read, and run beside anything else. */
  @Shared
  public int count(SharedObjectContext ctx) {
    return ctx.get(COUNT).orElse(0);
  }
}
