package contract;

import dev.restate.sdk.ObjectContext;
import dev.restate.sdk.SharedObjectContext;
import dev.restate.sdk.annotation.Handler;
import dev.restate.sdk.annotation.Shared;
import dev.restate.sdk.annotation.VirtualObject;
import dev.restate.sdk.common.StateKey;
import dev.restate.sdk.common.TerminalException;
import java.util.List;

/** State that is asked for: Main switches lazy state on. */
@VirtualObject
public class LazyCounter {
  private static final StateKey<Integer> COUNT = StateKey.of("count", Integer.class);
  private static final StateKey<String> NOTE = StateKey.of("note", String.class);

  @Handler
  public int add(ObjectContext ctx, int amount) {
    int count = ctx.get(COUNT).orElse(0) + amount;
    ctx.set(COUNT, count);
    return count;
  }

  @Shared
  public int get(SharedObjectContext ctx) {
    return ctx.get(COUNT).orElse(0);
  }

  @Shared
  public List<String> keys(SharedObjectContext ctx) {
    return ctx.stateKeys().stream().sorted().toList();
  }

  @Handler
  public void note(ObjectContext ctx, String text) {
    ctx.set(NOTE, text);
  }

  @Handler
  public void clear(ObjectContext ctx) {
    ctx.clear(COUNT);
  }

  @Handler
  public void clearAll(ObjectContext ctx) {
    ctx.clearAll();
  }

  /** Fails after its change: a failed handler is not a transaction that is rolled back. */
  @Handler
  public void spoil(ObjectContext ctx, int count) {
    ctx.set(COUNT, count);
    throw new TerminalException(400, "spoilt");
  }
}
